"""Training: config, optimizer, schedule, steps, loop, checkpoints and run folder."""
