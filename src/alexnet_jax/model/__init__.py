"""Layers, networks as lists of layers, and the pure functions that compute one tower of a network."""
