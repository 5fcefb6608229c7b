"""Annotations as the challenge's archives have them, written by hand."""

import numpy as np


def write_xml(folder, image, objects, size=(500, 375)):
    """PASCAL VOC's XML of an image: `objects` are (WordNet id, (xmin, ymin, xmax, ymax))."""
    entries = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{image}.xml").write_text(
        f"<annotation>\n<folder>val</folder><filename>{image}</filename>"
        "<source><database>ILSVRC_2012</database></source>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size><segmented>0</segmented>"
        f"{entries}</annotation>\n"
    )


def write_lines(path, rows):
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return path


def random_boxes(rng, count, side=400, smallest=1, largest=200):
    """First and last pixels of boxes of whole pixels."""
    sizes = rng.integers(smallest, largest + 1, (count, 2))
    corner = rng.integers(0, side - sizes + 1)
    return np.concatenate([corner, corner + sizes - 1], axis=1)
