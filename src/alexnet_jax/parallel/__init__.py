"""Device mesh, placement of the towers on it, distributed initialization and CPU runtime settings."""
