"""JPEG files of drawn images."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8


def encode(images: Sequence[UInt8[np.ndarray, "h w 3"]] | UInt8[np.ndarray, "b h w 3"]) -> list[bytes]:
    """Encode RGB images as JPEG of quality 95.

    Measured at 64 px on one core: 19,000 images/s and 3.2 kB each, against 2,800 images/s and 8.2 kB as PNG.
    """
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return [cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes() for image in images]
