"""Layers and other building blocks that several architecture families share."""
