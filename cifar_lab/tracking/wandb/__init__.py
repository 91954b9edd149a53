"""What a run directory tells Weights & Biases. Runs as a process of its own; only its files import wandb."""
