"""Local image descriptors on a regular grid: SIFT, HOG, LBP and colour statistics."""
