"""Trained models in memory and on disk, one module per file format."""
