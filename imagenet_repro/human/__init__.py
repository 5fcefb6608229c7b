"""The labelling game, in which a person guesses images as one more system."""
