"""Data sets: reading sources, preparing records, and building batches.

No module here depends on the network, and the modules that worker processes load do not import jax.
"""
