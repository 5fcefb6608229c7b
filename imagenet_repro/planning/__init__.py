"""Plans: a run's training step compiled for devices that are not here, and what it would need and reach on them."""
