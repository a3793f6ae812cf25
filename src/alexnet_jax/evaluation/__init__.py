"""Prediction with trained networks, and classification errors: averaged over views, of ensembles, and per class."""
