"""Before 2012: hand-made descriptors, their coding, and the linear classifier on top."""
