"""Populations that intervals are about: every interval that is shown names one of them.

An error rate is measured on some images, of some checkpoints. Its interval says what another measurement would give:

- `NEW_IMAGES`: other images of the same kind, and the same checkpoints;
- `NEW_SEEDS`: the same images, and recipes trained again with other seeds;
- `NEW_IMAGES_AND_SEEDS`: other images and other seeds, which is what a claim about a recipe needs;
- `NEW_IMAGES_AND_DRAWS`: other images and other draws of the few training images of a classifier on frozen features.
"""

NEW_IMAGES = "new images, these checkpoints"
NEW_SEEDS = "these images, new seeds"
NEW_IMAGES_AND_SEEDS = "new images and new seeds"
NEW_IMAGES_AND_DRAWS = "new images and new draws"


def interval_heading(population: str, confidence: float = 0.95, of: str = "", method: str = "") -> str:
    """Return the heading of a column of intervals, which names their population.

    Args:
      population: one of the populations of this module.
      confidence: coverage, in (0, 1).
      of: the quantity, such as "top-5"; empty: that of the column before it.
      method: a name that tells two intervals of one quantity apart, such as "exact"; empty: the usual one.
    """
    by, quantity = f" ({method})" if method else "", f" of {of}" if of else ""
    return f"{100 * confidence:g} % interval{by}{quantity}, {population}"


def terminal_heading(heading: str) -> str:
    """Return the heading of a column of intervals on several short lines."""
    return heading.replace(", ", ",\n").replace("these checkpoints", "these\ncheckpoints")
