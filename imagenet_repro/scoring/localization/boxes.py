"""Boxes in images: the two ways to write them, and the overlap of two boxes.

Pixels: (x_min, y_min, x_max, y_max), the first and the last column and row that belong to the box, so its width is
x_max - x_min + 1. The challenge, PASCAL VOC and most files write boxes in this way. Whether the first column of an
image is 0 or 1 does not matter for an overlap, as long as both boxes count alike; this project's own boxes count from
0.

Edges: (left, top, right, bottom), the lines between pixels, so the width is right - left; the edges of an image are 0
and its width. Resizing and cropping map edges linearly. COCO writes (left, top, width, height).

A box that covers an image 64 pixels wide ends with pixel 63 and with edge 64.
"""

import numpy as np
from jaxtyping import Float, Num


def edges(pixels: Num[np.ndarray, "n 4"]) -> Num[np.ndarray, "n 4"]:
    """Return the edges of boxes given by their first and last pixels."""
    return pixels + np.array([0, 0, 1, 1], pixels.dtype)


def pixels_within(boxes: Float[np.ndarray, "n 4"], height: int, width: int) -> Num[np.ndarray, "n 4"]:
    """Return the first and last pixels (int32) of boxes given by their edges, rounded and clipped to the image.

    A box outside the image, or thinner than a pixel, becomes the nearest column or row of pixels.
    """
    last = np.array([width, height] * 2) - 1
    low, high = np.split(np.rint(boxes), 2, axis=1)
    first = np.clip(low, 0, last[:2])
    return np.concatenate([first, np.clip(high - 1, first, last[:2])], axis=1).astype(np.int32)


def to_coco(boxes: Num[np.ndarray, "n 4"]) -> Num[np.ndarray, "n 4"]:
    """Return (left, top, width, height) of boxes given by their edges."""
    low, high = np.split(boxes, 2, axis=1)
    return np.concatenate([low, high - low], axis=1)


def area(boxes: Num[np.ndarray, "n 4"]) -> Num[np.ndarray, " n"]:
    """Return the area of boxes given by their edges."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(one: Num[np.ndarray, "n 4"], other: Num[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Return the intersection over union of boxes given by their edges, as pycocotools does; 0 if both are empty."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2).astype(np.float64)
    union = area(one)[:, None] + area(other)[None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def pixel_iou(one: Num[np.ndarray, "n 4"], other: Num[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Return the intersection over union of boxes given by their pixels, as the challenge's `compute_overlap.m`."""
    return iou(edges(one), edges(other))
