"""Predictions of any system, by evaluation protocols and on evaluation sets, and boxes for localization."""
