"""Inspection of trained models: learning curves, first-layer kernels, example predictions and image retrieval."""
