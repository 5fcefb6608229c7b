"""The parts of benchmarks/device.py, what they share, and the summary of what they measured."""
