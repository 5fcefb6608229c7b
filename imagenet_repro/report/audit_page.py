"""The result of an audit of labels: its tables, and the page `audit.html`."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Shaped
from markupsafe import Markup

from imagenet_repro.report import html_page
from imagenet_repro.report.html_page import LONG, PageSection
from imagenet_repro.report.tables import MISSING, Table
from imagenet_repro.report.templating import render
from imagenet_repro.report.text import short_names
from imagenet_repro.scoring import sets
from imagenet_repro.scoring.label_audit import VERDICTS, ReferenceLabels, Suspects
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.statistics import label_noise
from imagenet_repro.statistics.hypothesis_tests import mcnemar
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.statistics.label_noise import ErrorOverlap
from imagenet_repro.statistics.populations import NEW_IMAGES, interval_heading

PAGE = "audit.html"
TITLE = "Labels that are probably wrong"
SHOWN_SUSPECTS = 60  # the number of the most suspect images on the page
POINTS = (0.3, 1.0, 2.0, 5.0, 12.0)  # example differences in the table on wrong labels

Thumbnails = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclasses.dataclass(frozen=True)
class AuditedSystem:
    """A system, and its guesses on the images of the audit.

    Attributes:
      name: the system's name.
      top5: class indices of its guesses, best first, with the images in the audit's order.
    """

    name: str
    top5: Int32[np.ndarray, "n k"]


@dataclasses.dataclass(frozen=True)
class LabelAudit:
    """The result of an audit.

    Attributes:
      setting: data set, split and method, as one line.
      class_names: readable names by class index.
      id: ids of the images.
      suspects: the suspect labels, the most suspect first.
      auditors: the systems whose probabilities determine the suspects; if there are several, their mean is the last.
      compared: the systems that are compared pair by pair.
      truths: the labels as given, then other sets of right labels.
      verdicts: the number of images by people's verdict; empty if there are no verdicts.
      wrong_share: the share of wrong labels that the tables on comparisons assume, in [0, 1].
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
        """Return all systems, each once."""
        return tuple({one.name: one for one in (*self.auditors, *self.compared)}.values())

    @property
    def pairs(self) -> list[tuple[AuditedSystem, AuditedSystem]]:
        """Return all pairs of the compared systems."""
        return list(itertools.combinations(self.compared, 2))


def write(audit: LabelAudit, out: Path, thumbnails: Thumbnails | None) -> Path:
    """Write `audit.html`, `suspects.csv` and the other tables below `tables/`; return the page's path.

    Args:
      audit: the result.
      out: a directory, created if it is missing.
      thumbnails: a function from ids of images to the available JPEGs; None: the page has no images.

    Raises:
      SaveError: a file cannot be written.
    """
    sections = [section for section in _sections(audit, thumbnails) if section.body]
    html_page.save(out / "suspects.csv", suspects(audit).csv())
    html_page.save_tables((table for section in sections for table in section.tables), out / html_page.TABLES)
    path = out / PAGE
    html_page.save(path, html_page.render_page(TITLE, verdict(audit), audit.setting, sections))
    return path


def verdict(audit: LabelAudit) -> str:
    """Return the verdict in up to four lines."""
    auditor, (given, without, *others) = audit.auditors[-1], audit.truths
    n_images, n_suspects = len(audit.id), len(audit.suspects)
    rates = given.rates(auditor.top5)
    top1, _ = format_rate(rates.top1_wrong, rates.images)
    first = f"{n_suspects:,} of {n_images:,} labels ({100 * n_suspects / n_images:.1f} %) are suspect."
    if not n_suspects:
        return f"{auditor.name} finds none of {n_images:,} labels suspect."
    second = (
        f"They were found by {auditor.name}, whose first guess differs from the label for {top1} % of the images."
        " Wrong labels and its own mistakes look alike; only a look at the images can distinguish them."
    )
    lines = (first, second, _verdict_counts(audit), _restated_error(auditor, (without, *others)[-1], top1))
    return "\n".join(filter(None, lines))


def _verdict_counts(audit: LabelAudit) -> str:
    """Return people's verdicts on the suspects, as a sentence; empty if there are no verdicts."""
    total = sum(audit.verdicts.values())
    counts = ", ".join(f"{audit.verdicts.get(one, 0):,} {one}" for one in VERDICTS)
    return f"People checked {total:,} images: {counts}." if total else ""


def _restated_error(system: AuditedSystem, truth: ReferenceLabels, before: str) -> str:
    if not truth.counted.any():
        return ""
    rates = truth.rates(system.top5)
    top1, _ = format_rate(rates.top1_wrong, rates.images)
    return f"{truth.name.capitalize()}, its top-1 error is {top1} %, not {before} %."


# --- tables -----------------------------------------------------------------------------------------------------


def suspects(audit: LabelAudit) -> Table:
    """Return a row for each suspect, the most suspect first; people add a column `verdict` and pass the file on."""
    suspected = audit.suspects
    headings = ("rank", "id", "given", "suggested", "given_name", "suggested_name")
    columns = (
        suspected.image,
        suspected.given,
        suspected.suggested,
        suspected.of_given,
        suspected.of_suggested,
    )
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
    """Return both error rates of every system by every set of right labels, with 95 % intervals for new images."""
    headings = (
        "system",
        "labels",
        "top-1 error %",
        interval_heading(NEW_IMAGES),
        "top-5 error %",
        interval_heading(NEW_IMAGES, of="top-5"),
        "images",
    )
    rows = tuple(
        (system.name, truth.name, *_rate_cells(system, truth), f"{int(truth.counted.sum()):,}")
        for system in audit.systems
        for truth in audit.truths
    )
    caption = (
        "Suspects are images that the auditing systems classify differently from their labels, whether the labels are"
        " wrong or not. Without the suspects these systems therefore look better than they are, and so do other"
        " systems that make the same mistakes. Intervals are Wilson's 95 % intervals of one checkpoint's error, for"
        f" {NEW_IMAGES}."
    )
    caption += "".join(f" {line}." for line in sets.human_error_sentences(audit.data))
    return Table("error_rates_restated", headings, rows, caption)


def _rate_cells(system: AuditedSystem, truth: ReferenceLabels) -> tuple[str, ...]:
    if not truth.counted.any():
        return (MISSING,) * 4
    rates = truth.rates(system.top5)
    return *format_rate(rates.top1_wrong, rates.images), *format_rate(rates.top5_wrong, rates.images)


def differences(audit: LabelAudit) -> Table | None:
    """Return the differences of all pairs by every set of right labels; None if fewer than two are compared."""
    rows = tuple(
        _difference_row(pair, guesses, truth)
        for pair in audit.pairs
        for guesses in (1, GUESSES)
        for truth in audit.truths
        if truth.counted.any()
    )
    headings = ("first", "second", "guesses", "labels", "difference in points", interval_heading(NEW_IMAGES), "p")
    caption = (
        "Error of the first minus error of the second, on the same images. Intervals: 95 %, bootstrap over images, for"
        f" {NEW_IMAGES}. p: McNemar's mid-p test, each pair by itself."
    )
    return Table("differences_restated", headings, rows, caption) if rows else None


def _difference_row(
    pair: tuple[AuditedSystem, AuditedSystem], guesses: int, truth: ReferenceLabels
) -> tuple[str, ...]:
    first, second = (truth.wrong(system.top5, guesses) for system in pair)
    difference, p = bootstrap_difference(first, second), mcnemar(first, second).p
    p_text = f"{p:.3f}" if p >= 0.001 else "< 0.001"
    names = [system.name for system in pair]
    return (*names, str(guesses), truth.name, _points(difference.difference), _range(*difference.interval), p_text)


def noise(audit: LabelAudit) -> Table:
    """Return the true differences that a measured one can correspond to if a share of the labels is wrong."""
    classes, share = len(audit.class_names), audit.wrong_share
    rows = tuple(
        (f"{x:.1f}", _range(*label_noise.blind_bounds(x / 100, share)), _symmetric(x / 100, audit).lstrip("+"))
        for x in POINTS
    )
    headings = (
        "measured difference in points",
        "true difference at worst",
        "true difference on average, symmetric noise",
    )
    caption = (
        f"With {100 * share:.2f} % wrong labels. At worst: whichever labels are wrong, and whatever the right ones"
        " are."
        f" Symmetric noise: every label is equally likely to be wrong, and then equally likely to be any of the other"
        f" {classes:,} classes."
    )
    return Table("what_wrong_labels_do", headings, rows, caption)


def noise_of_pairs(audit: LabelAudit) -> Table | None:
    """Return the same for the pairs that are compared, whose errors on each image are known; None without pairs."""
    given = audit.truths[0]
    rows = []
    for pair, guesses in itertools.product(audit.pairs, (1, GUESSES)):
        first_wrong, second_wrong = (given.wrong(system.top5, guesses) for system in pair)
        overlap = ErrorOverlap.from_wrong(first_wrong, second_wrong, guesses)
        at_worst = _range(*label_noise.difference_bounds(overlap, audit.wrong_share))
        on_average = _symmetric(overlap.difference, audit)
        first, second = (system.name for system in pair)
        rows.append((first, second, str(guesses), _points(overlap.difference), at_worst, on_average))
    headings = ("first", "second", "guesses", "measured difference in points", "true difference at worst")
    caption = (
        f"Error of the first minus error of the second, with up to {100 * audit.wrong_share:.2f} % wrong labels."
        " The range is narrower than twice that share where the two differ on few images."
    )
    table = Table("what_wrong_labels_do_to_pairs", (*headings, "on average, symmetric noise"), tuple(rows), caption)
    return table if rows else None


def pairs_of_classes(audit: LabelAudit) -> Table | None:
    """Return the number of suspects by their label and suggested class; None without suspects."""
    names = short_names(audit.class_names)
    suspected = audit.suspects
    counts = Counter(zip(suspected.given.tolist(), suspected.suggested.tolist(), strict=True))
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    rows = tuple((names[given], names[other], f"{counts[given, other]:,}") for given, other in order)
    caption = "The number of suspects by their label and by the class that the auditing systems suggest."
    return Table("suspects_by_class", ("label", "suggested", "suspects"), rows, caption) if rows else None


def _symmetric(difference: float, audit: LabelAudit) -> str:
    try:
        return _points(label_noise.undo_symmetric_noise(difference, audit.wrong_share, len(audit.class_names)), 2)
    except ValueError:  # with so much noise no difference remains
        return MISSING


def _points(share: float, digits: int = 1) -> str:
    text = f"{100 * share:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def _range(low: float, high: float) -> str:
    return f"[{_points(low)}, {_points(high)}]".replace("+", "")


# --- the page ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _ShownSuspect:
    """A suspect as the template reads it."""

    id: str
    uri: str
    given: str
    suggested: str
    probability_of_given: str
    probability_of_suggested: str


def _sections(audit: LabelAudit, thumbnails: Thumbnails | None) -> list[PageSection]:
    noise_section = _section("noise", "How wrong labels affect a comparison", noise(audit), noise_of_pairs(audit))
    introduction = html_page.render_paragraphs(noise_sentence(audit))
    return [
        _section("rates", "Error rates with and without the suspects", rates(audit)),
        _section("differences", "Differences with and without the suspects", differences(audit)),
        dataclasses.replace(noise_section, body=introduction + noise_section.body),
        _gallery(audit, thumbnails),
        _section("pairs", "Suspects by class", pairs_of_classes(audit)),
    ]


def _section(anchor: str, title: str, *tables: Table | None) -> PageSection:
    present = tuple(table for table in tables if table)
    shown = [html_page.render_table(table, is_folded=len(table.rows) > LONG) for table in present]
    return PageSection(anchor, title, Markup().join(shown), present)


def noise_sentence(audit: LabelAudit) -> str:
    """Return a paragraph on the assumed share of wrong labels, and its effect on a difference of one point."""
    share, n_classes = audit.wrong_share, len(audit.class_names)
    low, high = (_points(x).lstrip("+") for x in label_noise.blind_bounds(0.01, share))
    on_average = _symmetric(0.01, audit).lstrip("+")
    of_imagenet = f"{label_noise.IMAGENET_WRONG:,} of {label_noise.IMAGENET_IMAGES:,}, Northcutt et al. 2021"
    return (
        f"If {100 * share:.2f} % of the labels were wrong, a measured difference of 1.0 points could at worst stand"
        f" for a true difference anywhere from {low} to {high} points, and on average for {on_average} if the wrong"
        f" labels were spread evenly over the {n_classes:,} classes. Only from {200 * share:.1f} points on can no"
        f" choice of wrong labels reverse the order of two systems. In ImageNet's validation split at least"
        f" {100 * label_noise.IMAGENET_SHARE:.2f} % of the labels are wrong ({of_imagenet}). Here the confident joint"
        f" estimates {100 * audit.suspects.wrong_share:.1f} %, which includes the auditing systems' own mistakes."
    )


def _gallery(audit: LabelAudit, thumbnails: Thumbnails | None) -> PageSection:
    suspected = audit.suspects
    title = "The most suspect images"
    n_shown = len(suspected.image[:SHOWN_SUSPECTS])
    if not n_shown:
        return PageSection("suspects", title, Markup())
    ids = [str(audit.id[image]) for image in suspected.image[:n_shown]]
    jpegs = thumbnails(ids) if thumbnails else {}
    introduction = html_page.render_paragraphs(
        f"The first {n_shown} of {len(suspected):,} suspects; suspects.csv has all of them. To decide which labels are"
        f" wrong, add a column verdict ({', '.join(VERDICTS)}) to that file and pass it with --verdicts: every error"
        " rate is then also given by those verdicts."
    )
    shown = [_show_suspect(audit, rank, jpegs.get(id)) for rank, id in enumerate(ids)]
    return PageSection("suspects", title, render("suspects.html", introduction=introduction, suspects=shown))


def _show_suspect(audit: LabelAudit, rank: int, jpeg: bytes | None) -> _ShownSuspect:
    suspected = audit.suspects
    return _ShownSuspect(
        id=str(audit.id[suspected.image[rank]]),
        uri=html_page.data_uri("image/jpeg", jpeg) if jpeg else "",
        given=audit.class_names[suspected.given[rank]],
        suggested=audit.class_names[suspected.suggested[rank]],
        probability_of_given=f"{suspected.of_given[rank]:.2f}",
        probability_of_suggested=f"{suspected.of_suggested[rank]:.2f}",
    )
