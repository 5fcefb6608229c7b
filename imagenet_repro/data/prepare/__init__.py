"""Writing data sets in the form that training reads: tfds data sets in ArrayRecord files."""
