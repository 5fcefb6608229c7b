"""Hypothesis tests, confidence intervals and groups: arrays in, numbers out, with no other package of the project."""
