"""What the pictures share: colours, style, and how a figure becomes two files."""

from pathlib import Path

from matplotlib.figure import Figure

from imagenet_repro.errors import SaveError

# Okabe & Ito (2008): told apart by people with any common colour blindness; its yellow is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MUTED = "#666666"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "curves",  # the same input gives the same file
}


def write(figure: Figure, path: str | Path, what: str) -> list[Path]:
    """Writes the figure to `path` as .png and as .svg, and returns both; `SaveError` names `what` could not be."""
    path = Path(path)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(files[0], dpi=160)
        figure.savefig(files[1], metadata={"Date": None})
    except OSError as error:
        raise SaveError(f"could not write {what} to {path}: {error.strerror or error}") from error
    return files
