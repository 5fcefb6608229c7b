"""Characters in figures: fonts that have them, and escapes where no installed font does.

matplotlib's own font, DejaVu Sans, has Latin, Greek, Cyrillic, Hebrew and Arabic letters and many signs, but neither
Chinese, Japanese and Korean ones nor emoji. Names of classes come from everywhere.
"""

import bisect
import contextlib
import functools
import itertools
import warnings
from collections.abc import Iterator

from matplotlib import font_manager, ft2font
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from imagenet_repro.report.text import UNPRINTABLE, escaped_character

BASE = "DejaVu Sans"
NO_FONTS = ("Last Resort", "LastResort")  # their glyphs show only that a character is missing
NOTE = "Characters that no installed font has are written as their Unicode numbers, such as \\u732b."
LONGEST = 60  # characters of a name with escapes; longer texts are sentences


def is_plain(text: str) -> bool:
    """Return whether a text has ASCII characters only, and no control characters but line breaks."""
    return text.isascii() and not UNPRINTABLE.search(text)


def is_missing(character: str) -> bool:
    """Return whether no installed font has a character."""
    return UNPRINTABLE.fullmatch(character) is not None or (character not in "\t\n\r" and _family(character) is None)


def escape(text: str) -> str:
    r"""Return a text with escapes such as `\u732b` for characters without a font; a name that becomes long is cut."""
    if is_plain(text):
        return text
    parts = [escaped_character(character) if is_missing(character) else character for character in text]
    lengths = list(itertools.accumulate(map(len, parts)))
    if len(text) > LONGEST or not lengths or lengths[-1] <= LONGEST:
        return "".join(parts)
    return "".join(parts[: bisect.bisect_left(lengths, LONGEST)]) + "…"


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Measure text within the block without a warning about each character that the font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


@contextlib.contextmanager
def drawable_characters(figure: Figure) -> Iterator[None]:
    """Let a figure have only characters that can be drawn within the block, with a note if others are escaped.

    Each text gets the installed fonts that have its characters, which it keeps.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and not is_plain(text.get_text())]
    with contextlib.ExitStack() as undo:
        is_changed = False
        for text in texts:
            original = text.get_text()
            families = {_family(character) for character in original} - {BASE, None}
            if families:
                text.set_fontfamily([BASE, *sorted(family for family in families if family is not None)])
            if (escaped := escape(original)) != original:
                is_changed = True
                text.set_text(escaped)
                undo.callback(text.set_text, original)
        for axis in (axis for axes in figure.get_axes() for axis in (axes.xaxis, axes.yaxis)):
            _escape_ticks(axis, undo)
        if is_changed:
            _add_note(figure, undo)
        yield


def _escape_ticks(axis: Axis, undo: contextlib.ExitStack) -> None:
    """Escape the labels of ticks, which the formatter of an axis writes anew whenever it is drawn."""
    names = [label.get_text() for label in axis.get_ticklabels()]
    if all(escape(name) == name for name in names):
        return
    formatter = axis.get_major_formatter()
    axis.set_major_formatter(FuncFormatter(lambda value, position: escape(formatter(value, position))))
    undo.callback(axis.set_major_formatter, formatter)


def _add_note(figure: Figure, undo: contextlib.ExitStack) -> None:
    """Write the note at the end of the caption below the panels, for which their layout makes room."""
    caption = figure.get_supxlabel()
    captions = [text for text in figure.texts if caption and text.get_text() == caption]
    if not captions:
        captions = [figure.supxlabel("", x=0.015, ha="left", fontsize=8)]
    captions[0].set_text(f"{caption}\n{NOTE}".strip())
    undo.callback(captions[0].set_text, caption)


@functools.cache
def _family(character: str) -> str | None:
    """Return the family of an installed font that has a character, preferably BASE; None if there is none."""
    return next((name for name, path in _fonts() if ord(character) in _characters(path)), None)


@functools.cache
def _fonts() -> tuple[tuple[str, str], ...]:
    """Return family and path of the upright, regular fonts: BASE first, then other sans-serif ones."""
    fonts = {
        entry.name: entry.fname
        for entry in reversed(font_manager.fontManager.ttflist)
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and not entry.name.startswith(NO_FONTS)
    }
    return tuple(sorted(fonts.items(), key=lambda font: (font[0] != BASE, "Sans" not in font[0], font[0])))


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """Return the characters of a font; none if it cannot be drawn, such as one of coloured images."""
    try:
        font = ft2font.FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
