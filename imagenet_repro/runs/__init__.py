"""One call of `train`, from the open data set to the written result, for each kind of system."""
