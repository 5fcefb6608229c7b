"""What lies on disk: a run's directory, files written whole or not at all, and the provenance of results."""
