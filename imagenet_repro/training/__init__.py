"""Training: systems, the step and its spread over devices, learning rate, budget, checkpoints and the loop."""
