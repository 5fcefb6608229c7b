"""Systems before 2012: hand-made descriptors, their codes, and the linear classifier that trains on them."""
