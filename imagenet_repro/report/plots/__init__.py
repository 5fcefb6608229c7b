"""Figures, one for each module."""
