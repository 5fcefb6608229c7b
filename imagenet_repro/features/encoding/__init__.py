"""Encoding of local descriptors into image codes, and the vocabularies that the codes need."""
