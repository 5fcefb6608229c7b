"""The labelling game, in which a person guesses the classes of images and is scored like any other system."""
