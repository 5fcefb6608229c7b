import cv2
import numpy as np

from imagenet_repro.data.prepare import smaller_copy


def test_a_strip_longer_than_a_jpeg_can_be_is_copied_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (34, 70_000, 3), dtype=np.uint8)
    image = cv2.imencode(".png", noise)[1].tobytes()
    assert smaller_copy.reduce(image, 33, 90) is image
    assert smaller_copy.reduce(image, 17, 90).startswith(b"\xff\xd8")
