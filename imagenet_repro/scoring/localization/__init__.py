"""The localization task of the challenge: annotations, boxes and error rates."""
