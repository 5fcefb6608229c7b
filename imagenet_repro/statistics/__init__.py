"""Tests and intervals for differences between systems."""
