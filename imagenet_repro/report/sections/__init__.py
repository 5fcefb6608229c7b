"""Sections of the comparison page, one per module."""
