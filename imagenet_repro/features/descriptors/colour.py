"""Local colour statistics: mean and standard deviation of each colour channel in 4 x 4 cells of a patch.

Source: Clinchant, Csurka, Perronnin & Renders, "XRCE's participation to ImagEval", 2007. It is the colour descriptor
of Perronnin, Sanchez & Mensink 2010 and of entries in the challenge of 2011.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from imagenet_repro.features.descriptors.grid import Level, box, check_divides, pool

CELLS = 4


def colour(images: Float[Array, "n h w 3"], level: Level, patch: int) -> Float[Array, "n r c 96"]:
    """Return the means (48 numbers in [0, 1]), then the standard deviations; cell by cell, each as red, green, blue.

    Args:
      images: RGB in [0, 1].
      level: the grid.
      patch: pixels on a side, a multiple of 4.

    Raises:
      UserError: `patch` is not a multiple of 4.
    """
    check_divides(CELLS, patch, "a colour descriptor")
    centred = images.transpose(0, 3, 1, 2) - 0.5  # squares of smaller numbers have smaller rounding errors
    area = (patch // CELLS) ** 2
    moments = pool(jnp.concatenate([centred, centred**2], axis=1), level, patch, cells=CELLS, weight=box) / area
    means, squares = moments[..., :3], moments[..., 3:]
    deviations = jnp.sqrt(jnp.maximum(squares - means**2, 0.0))
    n, rows, columns = means.shape[:3]
    flat = (n, rows, columns, CELLS * CELLS * 3)
    return jnp.concatenate([(means + 0.5).reshape(flat), deviations.reshape(flat)], axis=-1)
