"""The batches that the loader makes, and the arrays of them that each step on the device reads."""

from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8

Key = Literal["image", "label", "epoch", "index", "weight", "replaced", "id", "size", "tokens"]
# The arrays of a batch that go to the device.
TRAINING_KEYS: tuple[Key, ...] = ("image", "label", "epoch", "index")
PAIR_KEYS: tuple[Key, ...] = ("image", "tokens", "epoch", "index")
SCORING_KEYS: tuple[Key, ...] = ("image", "label", "weight")


class Batch(TypedDict):
    """One process's share of a batch; the axis b has batch_size / process_count elements."""

    image: UInt8[np.ndarray, "b ..."]  # RGB [b, s, s, 3], or the result of another form of crop (data/crops.py)
    label: Int32[np.ndarray, " b"]
    epoch: Int32[np.ndarray, " b"]  # with repeats: epoch x repeats + number of the repeat; keys the image's randomness
    index: Int32[np.ndarray, " b"]  # in the split; -1 for padding
    weight: Float32[np.ndarray, " b"]  # 1; in evaluation 0 for padding and for records that cannot be decoded
    replaced: Int32[np.ndarray, " b"]  # index of the record that could not be decoded, else -1
    id: Shaped[np.ndarray, " b"]  # in evaluation the data set's ids as str; "" in training and for padding
    size: Int32[np.ndarray, "b 2"]  # height and width of the stored image; 0 for padding or where it is not decoded
    tokens: Int32[np.ndarray, "b l"]  # of a caption (data/captions.py); l is 0 where images have none


def padding(count: int, image_shape: tuple[int, ...], n_tokens: int = 0) -> Batch:
    """Return `count` elements of padding: black images of weight 0 with label 0, index -1 and tokens 0."""
    return Batch(
        image=np.zeros((count, *image_shape), np.uint8),
        label=np.zeros(count, np.int32),
        epoch=np.zeros(count, np.int32),
        index=np.full(count, -1, np.int32),
        weight=np.zeros(count, np.float32),
        replaced=np.full(count, -1, np.int32),
        id=np.full(count, "", np.str_),
        size=np.zeros((count, 2), np.int32),
        tokens=np.zeros((count, n_tokens), np.int32),
    )
