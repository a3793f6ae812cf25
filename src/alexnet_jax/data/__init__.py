"""From images on disk to batches: nothing here knows of the model, and what runs in workers does not import jax."""
