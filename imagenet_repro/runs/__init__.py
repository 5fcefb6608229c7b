"""Commands on one run: train, evaluate, export, localize, calibrate, audit and ensemble."""
