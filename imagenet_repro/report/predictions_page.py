"""The page of predictions for images without labels."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import PageSection
from imagenet_repro.report.templating import render

SHOWN = 1_000  # images on a page, 6 MB of small pictures


@dataclasses.dataclass(frozen=True)
class ShownImage:
    """An image on the page.

    Attributes:
      name: its path.
      jpeg: a small picture of it; None: there is none.
      guesses: names of classes with their shares as texts, the most probable first.
    """

    name: str
    jpeg: bytes | None
    guesses: Sequence[tuple[str, str]]

    @property
    def uri(self) -> str:
        """The picture as a URI; empty for none."""
        return html_page.data_uri("image/jpeg", self.jpeg) if self.jpeg else ""


def write(path: Path, images: Sequence[ShownImage], *, n_images: int, title: str, left_out: Sequence[str]) -> None:
    """Write the page.

    Args:
      path: of the file.
      images: the first images, at most `SHOWN`.
      n_images: the number of all images.
      title: what predicted, as one line.
      left_out: names of files that could not be read, with the reasons.

    Raises:
      SaveError: the file cannot be written.
    """
    shown = f"; the first {len(images):,} are shown" if len(images) < n_images else ""
    body = render("predictions.html", images=images)
    sections = [PageSection("images", "Images", body)]
    if left_out:
        sections.append(
            PageSection("left-out", "Not read", html_page.render_list("Files that could not be read", left_out))
        )
    verdict = f"{n_images:,} image{'s' * (n_images != 1)}{shown}"
    if left_out:
        verdict += f"; {len(left_out):,} file{'s' * (len(left_out) != 1)} could not be read"
    html_page.save(path, html_page.render_page("What the images show", verdict, title, sections))
