"""Every winning system of the ImageNet challenge, and what came after, under one identical budget."""

__version__ = "0.1.0"
