"""What an audit of labels found: its tables, and the page `audit.html`."""

import dataclasses
import html
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Shaped

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import LONG, PageSection
from imagenet_repro.report.sections.class_gains import short_names
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.scoring import sets
from imagenet_repro.scoring.label_audit import VERDICTS, ReferenceLabels, Suspects
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.statistics import label_noise
from imagenet_repro.statistics.hypothesis_tests import mcnemar
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.statistics.label_noise import ErrorOverlap

TITLE = "Labels that are probably wrong"
PICTURES = 60  # of the most suspect images
POINTS = (0.3, 1.0, 2.0, 5.0, 12.0)  # measured differences, of which the page says what they can mean

Thumbnails = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclasses.dataclass(frozen=True)
class AuditedSystem:
    """What a system guessed on the images of the audit, in their order."""

    name: str
    top5: Int32[np.ndarray, "n k"]


@dataclasses.dataclass(frozen=True)
class LabelAudit:
    """What was found, and in what.

    Attributes:
      setting: data set, split and method, as a line for a person.
      class_names: by class index, for people.
      id: of the images.
      suspects: the most suspect first.
      auditors: the systems whose probabilities found them; of several also their mean, as the last.
      compared: systems that are compared pair by pair.
      truths: the labels as given, then other readings of what is right.
      verdicts: how many images people decided on in which way; empty: nobody did.
      wrong_share: of the labels, for what wrong labels do to a comparison.
      data: name of the data set.
    """

    setting: str
    class_names: tuple[str, ...]
    id: Shaped[np.ndarray, " n"]
    suspects: Suspects
    auditors: tuple[AuditedSystem, ...]
    compared: tuple[AuditedSystem, ...]
    truths: tuple[ReferenceLabels, ...]
    verdicts: Mapping[str, int]
    wrong_share: float
    data: str = ""

    @property
    def systems(self) -> tuple[AuditedSystem, ...]:
        """All, each once."""
        return tuple({one.name: one for one in (*self.auditors, *self.compared)}.values())

    @property
    def pairs(self) -> list[tuple[AuditedSystem, AuditedSystem]]:
        """Of those that are compared."""
        return list(itertools.combinations(self.compared, 2))


def write(audit: LabelAudit, out: Path, thumbnails: Thumbnails | None) -> Path:
    """Writes `audit.html`, `suspects.csv` and the other tables below `tables/`; returns the page's path.

    Args:
      audit: what was found.
      out: a directory, made where it is missing.
      thumbnails: from ids of images to JPEGs, of those that it has; None: the page has no images.

    Raises:
      SaveError: something cannot be written.
    """
    sections = [section for section in _sections(audit, thumbnails) if section.body]
    html_page.save(out / "suspects.csv", suspects(audit).csv())
    html_page.save_tables((table for section in sections for table in section.tables), out / "tables")
    path = out / "audit.html"
    html_page.save(path, html_page.document(TITLE, verdict(audit), audit.setting, sections))
    return path


def verdict(audit: LabelAudit) -> str:
    """What was found, in up to four lines."""
    auditor, (given, without, *others) = audit.auditors[-1], audit.truths
    images, found = len(audit.id), len(audit.suspects)
    rates = given.rates(auditor.top5)
    top1, _ = format_rate(rates.top1_wrong, rates.images)
    first = f"{found:,} of {images:,} labels ({100 * found / images:.1f} %) are suspect."
    if not found:
        return f"None of {images:,} labels is suspect by {auditor.name}."
    second = (
        f"Found by {auditor.name}, whose first guess is not the label for {top1} % of the images: wrong labels and its"
        f" own mistakes look alike, and only a look at the images tells them apart."
    )
    lines = (first, second, _decided(audit), _restated(auditor, (without, *others)[-1], top1))
    return "\n".join(filter(None, lines))


def _decided(audit: LabelAudit) -> str:
    """What people said of the suspects; empty where nobody did."""
    total = sum(audit.verdicts.values())
    said = ", ".join(f"{audit.verdicts.get(one, 0):,} {one}" for one in VERDICTS)
    return f"People decided on {total:,} images: {said}." if total else ""


def _restated(system: AuditedSystem, truth: ReferenceLabels, before: str) -> str:
    if not truth.counted.any():
        return ""
    rates = truth.rates(system.top5)
    top1, _ = format_rate(rates.top1_wrong, rates.images)
    return f"{truth.name.capitalize()}, its top-1 error is {top1} %, not {before} %."


# --- tables -----------------------------------------------------------------------------------------------------


def suspects(audit: LabelAudit) -> Table:
    """All suspects, a row each, the most suspect first; people add a column `verdict` and hand it back."""
    found = audit.suspects
    headings = ("rank", "id", "given", "suggested", "given_name", "suggested_name")
    columns = (found.image, found.given, found.suggested, found.of_given, found.of_suggested)
    rows = tuple(
        (
            str(rank),
            str(audit.id[image]),
            str(given),
            str(suggested),
            audit.class_names[given],
            audit.class_names[suggested],
            f"{of_given:.4f}",
            f"{of_suggested:.4f}",
        )
        for rank, (image, given, suggested, of_given, of_suggested) in enumerate(zip(*columns, strict=True), 1)
    )
    return Table("suspects", (*headings, "probability_of_given", "probability_of_suggested"), rows)


def rates(audit: LabelAudit) -> Table:
    """Both error rates of every system by every reading of what is right, with 95 % intervals."""
    headings = ("system", "counted by", "top-1 error %", "95 % interval", "top-5 error %", "95 % of top-5", "images")
    rows = tuple(
        (system.name, truth.name, *_cells(system, truth), f"{int(truth.counted.sum()):,}")
        for system in audit.systems
        for truth in audit.truths
    )
    caption = (
        "Suspects are images that the auditing systems get wrong, right or wrong as their labels may be: without them"
        " these systems look better than they are, and others the more so the more of their mistakes are the same."
        " Intervals (Wilson) are about other images of the kind that is counted."
    )
    caption += "".join(f" {line}." for line in sets.human_error_sentences(audit.data))
    return Table("error_rates_restated", headings, rows, caption)


def _cells(system: AuditedSystem, truth: ReferenceLabels) -> tuple[str, ...]:
    if not truth.counted.any():
        return (MISSING,) * 4
    found = truth.rates(system.top5)
    return *format_rate(found.top1_wrong, found.images), *format_rate(found.top5_wrong, found.images)


def differences(audit: LabelAudit) -> Table | None:
    """Differences of all pairs by every reading of what is right; None where fewer than two are compared."""
    rows = tuple(
        _difference(pair, guesses, truth)
        for pair in audit.pairs
        for guesses in (1, GUESSES)
        for truth in audit.truths
        if truth.counted.any()
    )
    headings = ("first", "second", "guesses", "counted by", "difference in points", "95 % interval", "p")
    caption = (
        "Error of the first less error of the second, on the same images. Intervals: bootstrap over images;"
        " p: McNemar, mid-p, each pair by itself."
    )
    return Table("differences_restated", headings, rows, caption) if rows else None


def _difference(pair: tuple[AuditedSystem, AuditedSystem], guesses: int, truth: ReferenceLabels) -> tuple[str, ...]:
    first, second = (truth.wrong(system.top5, guesses) for system in pair)
    found, p = bootstrap_difference(first, second), mcnemar(first, second).p
    said = f"{p:.3f}" if p >= 0.001 else "< 0.001"
    names = [system.name for system in pair]
    return (*names, str(guesses), truth.name, _points(found.difference), _range(*found.interval), said)


def noise(audit: LabelAudit) -> Table:
    """What a measured difference can mean where a share of the labels is wrong."""
    classes, share = len(audit.class_names), audit.wrong_share
    rows = tuple(
        (f"{x:.1f}", _range(*label_noise.blind_bounds(x / 100, share)), _symmetric(x / 100, audit).lstrip("+"))
        for x in POINTS
    )
    headings = ("measured difference in points", "true one at worst", "true one on average, symmetric noise")
    caption = (
        f"With {100 * share:.2f} % wrong labels. At worst: whichever labels are wrong, and whatever is right in their"
        f" place. Symmetric: every label is as likely wrong, and as likely any other of the {classes:,} classes."
    )
    return Table("what_wrong_labels_do", headings, rows, caption)


def noise_of_pairs(audit: LabelAudit) -> Table | None:
    """The same for the pairs that are compared, whose images are known; None where there is none."""
    given = audit.truths[0]
    rows = []
    for pair, guesses in itertools.product(audit.pairs, (1, GUESSES)):
        overlap = ErrorOverlap.from_wrong(*(given.wrong(system.top5, guesses) for system in pair), guesses)
        at_worst = _range(*label_noise.difference_bounds(overlap, audit.wrong_share))
        on_average = _symmetric(overlap.difference, audit)
        first, second = (system.name for system in pair)
        rows.append((first, second, str(guesses), _points(overlap.difference), at_worst, on_average))
    headings = ("first", "second", "guesses", "measured difference in points", "true one at worst")
    caption = (
        f"Error of the first less error of the second, with up to {100 * audit.wrong_share:.2f} % wrong labels."
        " The range is narrower than twice that share where few images tell the two apart."
    )
    table = Table("what_wrong_labels_do_to_pairs", (*headings, "on average, symmetric noise"), tuple(rows), caption)
    return table if rows else None


def pairs_of_classes(audit: LabelAudit) -> Table | None:
    """How many suspects have which label and which suggested class; None without suspects."""
    shorts = short_names(audit.class_names)
    found = audit.suspects
    counted = Counter(zip(found.given.tolist(), found.suggested.tolist(), strict=True))
    order = sorted(counted, key=lambda pair: (-counted[pair], pair))
    rows = tuple((shorts[given], shorts[other], f"{counted[given, other]:,}") for given, other in order)
    caption = "Suspects by their label and by the class that they look like."
    return Table("suspects_by_class", ("label", "suggested", "suspects"), rows, caption) if rows else None


def _symmetric(difference: float, audit: LabelAudit) -> str:
    try:
        return _points(label_noise.undo_symmetric_noise(difference, audit.wrong_share, len(audit.class_names)), 2)
    except ValueError:  # nothing of a difference is left
        return MISSING


def _points(share: float, digits: int = 1) -> str:
    text = f"{100 * share:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def _range(low: float, high: float) -> str:
    return f"[{_points(low)}, {_points(high)}]".replace("+", "")


# --- the page ---------------------------------------------------------------------------------------------------


def _sections(audit: LabelAudit, thumbnails: Thumbnails | None) -> list[PageSection]:
    noisy = _section("noise", "What wrong labels do to a comparison", noise(audit), noise_of_pairs(audit))
    sentence = html_page.paragraphs(noise_sentence(audit))
    return [
        _section("rates", "Error rates with and without the suspects", rates(audit)),
        _section("differences", "Differences with and without the suspects", differences(audit)),
        dataclasses.replace(noisy, body=sentence + noisy.body),
        _gallery(audit, thumbnails),
        _section("pairs", "Which classes", pairs_of_classes(audit)),
    ]


def _section(anchor: str, title: str, *tables: Table | None) -> PageSection:
    there = tuple(table for table in tables if table)
    return PageSection(
        anchor, title, "".join(html_page.table(one, folded=len(one.rows) > LONG) for one in there), there
    )


def noise_sentence(audit: LabelAudit) -> str:
    """What the assumed share of wrong labels is, and what it makes of a point of difference."""
    share, classes = audit.wrong_share, len(audit.class_names)
    low, high = (_points(x).lstrip("+") for x in label_noise.blind_bounds(0.01, share))
    on_average = _symmetric(0.01, audit).lstrip("+")
    of_imagenet = f"{label_noise.IMAGENET_WRONG:,} of {label_noise.IMAGENET_IMAGES:,}, Northcutt et al. 2021"
    return (
        f"Were {100 * share:.2f} % of the labels wrong, a measured difference of 1.0 points could at worst be a true"
        f" one anywhere from {low} to {high} points, and on average {on_average}, were wrong labels spread evenly over"
        f" the {classes:,} classes. Only from {200 * share:.1f} points on can no choice of wrong labels turn the order"
        f" of two systems over. In ImageNet's validation split at least {100 * label_noise.IMAGENET_SHARE:.2f} % are"
        f" wrong ({of_imagenet}). The confident joint estimates {100 * audit.suspects.wrong_share:.1f} % here, the"
        " auditing systems' own mistakes included."
    )


def _gallery(audit: LabelAudit, thumbnails: Thumbnails | None) -> PageSection:
    found = audit.suspects
    shown = found.image[:PICTURES]
    title = "The most suspect images"
    if not len(shown):
        return PageSection("suspects", title, "")
    ids = [str(audit.id[image]) for image in shown]
    pictures = thumbnails(ids) if thumbnails else {}
    items = "".join(_item(audit, place, pictures.get(id)) for place, id in enumerate(ids))
    more = (
        f"The first {len(shown)} of {len(found):,}; suspects.csv has all. To say which labels are wrong, add a column"
        f" verdict ({', '.join(VERDICTS)}) and hand it back with --verdicts: every rate is then restated by that."
    )
    return PageSection("suspects", title, f'{html_page.paragraphs(more)}<ol class="examples">\n{items}</ol>\n')


def _item(audit: LabelAudit, place: int, picture: bytes | None) -> str:
    found = audit.suspects
    given, suggested = (audit.class_names[labels[place]] for labels in (found.given, found.suggested))
    id = str(audit.id[found.image[place]])
    image = ""
    if picture:
        alt = html.escape(f"suspect {place + 1}: {id}")
        image = f'<img src="{html_page.data_uri("image/jpeg", picture)}" alt="{alt}">'
    lines = (("label", given, found.of_given[place]), ("suggested", suggested, found.of_suggested[place]))
    said = "".join(f"<li>{what}: <strong>{html.escape(name)}</strong>, p = {p:.2f}</li>" for what, name, p in lines)
    return f"<li>{image}<div>{place + 1}.\n<ul>{said}</ul>\n<code>{html.escape(id)}</code></div></li>\n"
