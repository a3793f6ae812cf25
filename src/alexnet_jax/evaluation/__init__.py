"""Errors of trained networks: over views, of ensembles, class by class."""
