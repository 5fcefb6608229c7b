"""Writers of small annotation files in the formats of the challenge's archives."""

import numpy as np


def write_xml(folder, image, objects, size=(500, 375)):
    """Write PASCAL VOC's XML for an image; `objects` are (WordNet id, (xmin, ymin, xmax, ymax))."""
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
    """Write one line for each row, with values separated by spaces; return the path."""
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return path


def random_boxes(rng, count, side=400, smallest=1, largest=200):
    """Return random boxes [count, 4] as their first and last pixels, both included."""
    sizes = rng.integers(smallest, largest + 1, (count, 2))
    corner = rng.integers(0, side - sizes + 1)
    return np.concatenate([corner, corner + sizes - 1], axis=1)
