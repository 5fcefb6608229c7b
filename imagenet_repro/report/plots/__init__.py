"""Figures, one for each module; `charts` writes them and `canvas` draws those that consist of images."""
