"""Sweeps: many training runs under one budget, with a plan, a queue, workers and a status display."""
