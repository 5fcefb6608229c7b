"""Draw the sheet of samples on the page about data: a row for each class of `silhouettes`.

    python -m tools.sample_sheet

Writes docs/images/silhouettes.jpg.
"""

import cv2
import numpy as np

from imagenet_repro.data.prepare.outlines import CLASSES
from imagenet_repro.data.prepare.scenes import Scene, draw_scene
from tools.generated import REPOSITORY

OUT = REPOSITORY / "docs" / "images" / "silhouettes.jpg"
COLUMNS = 10  # images of a class


def main() -> None:
    """Write the first training images of each class, side by side."""
    rows = [
        np.concatenate([draw_scene(0, 0, label, instance, Scene()) for instance in range(COLUMNS)], 1)
        for label in range(len(CLASSES))
    ]
    cv2.imwrite(str(OUT), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
