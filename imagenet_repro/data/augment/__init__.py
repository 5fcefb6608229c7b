"""Augmentation on the device, inside the compiled training step."""
