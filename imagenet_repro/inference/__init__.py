"""Predictions of any system and what is scored from them."""
