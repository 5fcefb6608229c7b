"""Scores computed from stored predictions and arrays; nothing here runs a model."""
