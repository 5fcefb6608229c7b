"""Files on disk: the directory of a run, atomic writes, locks, and the provenance of results."""
