"""Training: steps, checkpoints, run folders, several processes."""
