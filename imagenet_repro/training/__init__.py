"""State, step, parallelism, budget, optimizer, checkpoint, loop."""
