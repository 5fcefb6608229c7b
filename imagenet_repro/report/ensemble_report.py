"""The report of an ensemble in the terminal: error rates, what each member contributes, the published entry."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table

from imagenet_repro.config.ensemble import Average, EnsembleConfig
from imagenet_repro.report.sections.class_gains import signed
from imagenet_repro.scoring import ensembling, predictions, sets, terminal
from imagenet_repro.scoring.ensembling import EnsembleErrors, Members
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.statistics.hypothesis_tests import mcnemar
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.statistics.populations import NEW_IMAGES
from imagenet_repro.zoo.entries import ENTRIES

FILE_WIDTH = 120  # columns of output to a file
HEADINGS = (
    "member", "network", "scored by", "weight", "top-1\nerror %", "top-5\nerror %", "left out,\ntop-1",
    "left out,\ntop-5", "up to it,\ntop-1", "up to it,\ntop-5",
)  # fmt: skip
CAPTION = (
    "Left out: by how many points the ensemble's error rate changes without the member. Up to it: the error rate of"
    " the members from the first to this one."
)


def present(
    members: Members,
    weights: Float[np.ndarray, " m"],
    errors: EnsembleErrors,
    *,
    networks: Sequence[str],
    protocols: Sequence[str],
    average: Average,
) -> None:
    """Print the table of members, the error rates of the ensemble, and its difference from the best member.

    Args:
      members: names and predictions of the m members.
      weights: the weight of each member.
      errors: the wrong images of the ensemble and of its parts.
      networks: the name of each member's network; empty if it is unknown.
      protocols: the name of each member's evaluation protocol; empty if it is unknown.
      average: the scores that are averaged.
    """
    console = Console(highlight=False)
    terminal.widen_for_file(console, FILE_WIDTH)
    console.print(_table(members.names, networks, protocols, weights, errors))
    console.print(CAPTION, markup=False, soft_wrap=True)
    lines = [f"ensemble: {ensembling.error_rates(errors.whole)}"]
    lines += [*_compare_with_best(members, errors), *_note_margins(networks, average)]
    lines += sets.human_error_sentences(predictions.data_name(members.predictions[0].provenance))
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def present_entry(entry: EnsembleConfig) -> None:
    """Print the published facts about an entry, and the open questions in its sources."""
    lines = [f"{entry.entry}, published:", *(f"  {sentence}" for sentence in entry.published)]
    substitutes = [kind for kind in entry.members if kind.stands_for]
    if substitutes:
        lines.append("in place of networks that are not available here:")
        lines += [f"  {kind.count} x {kind.network} for {kind.stands_for}" for kind in substitutes]
    if entry.unknown:
        lines.append("the sources leave open:")
        lines += [f"  {fact.what}; here: {fact.here}" for fact in entry.unknown]
    print("\n".join(lines))


def present_other_protocols(entry: EnsembleConfig, networks: Sequence[str], protocols: Sequence[str]) -> None:
    """Print a warning if members were not scored as the entry's were, so that error rates cannot be compared."""
    published = {(kind.network, kind.protocol) for kind in entry.members}
    pairs = zip(networks, protocols, strict=True)
    others = sorted({protocol for network, protocol in pairs if (network, protocol) not in published})
    if others:
        expected = ", ".join(sorted({kind.protocol for kind in entry.members}))
        print(f"not scored as the entry was: members here by {', '.join(others)}, the entry's by {expected}")


def _table(
    names: Sequence[str],
    networks: Sequence[str],
    protocols: Sequence[str],
    weights: Float[np.ndarray, " m"],
    errors: EnsembleErrors,
) -> Table:
    rows = []
    for index, name in enumerate(names):
        cells = [name, networks[index], protocols[index]]
        cells += [f"{weights[index]:.3f}", *_percents(errors.alone[index])]
        cells += _changes(errors.whole, errors.without[index]) + _percents(errors.until[index])
        rows.append(cells)
    return terminal.ruled_table(HEADINGS, rows, left=range(3), one_line=range(3, len(HEADINGS)))


def _percents(wrong_images: Bool[np.ndarray, "2 n"] | None) -> list[str]:
    if wrong_images is None:
        return ["", ""]
    return [format_rate(int(row.sum()), len(row))[0] for row in wrong_images]


def _changes(whole: Bool[np.ndarray, "2 n"], without: Bool[np.ndarray, "2 n"] | None) -> list[str]:
    """Return the points by which both error rates rise when a member is left out."""
    if without is None:
        return ["", ""]
    return [_signed(100 * (x - y)) for x, y in zip(without.mean(axis=1), whole.mean(axis=1), strict=True)]


def _signed(points: float) -> str:
    """Return a difference with two decimals, since one member of many changes little."""
    text = f"{points:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _compare_with_best(members: Members, errors: EnsembleErrors) -> list[str]:
    """Return a sentence on each error rate: the ensemble against the best member, with a paired interval and test."""
    lines = []
    for row, guesses in enumerate((1, GUESSES)):
        best = int(np.argmin([wrong_images[row].sum() for wrong_images in errors.alone]))
        pair = errors.whole[row], errors.alone[best][row]
        difference, test = bootstrap_difference(*pair), mcnemar(*pair)
        low, high = (signed(100 * end) for end in difference.interval)
        p_value = "below 0.0001" if test.p < 1e-4 else f"{test.p:.4f}"
        lines.append(
            f"top-{guesses} error against {members.names[best]}, the best member in it:"
            f" {signed(100 * difference.difference)} points [{low}, {high}] (95 % interval, {NEW_IMAGES});"
            f" wrong by the ensemble alone {test.only_a:,} images, by the member alone {test.only_b:,},"
            f" McNemar's mid-p {p_value}"
        )
    return lines


def _note_margins(networks: Sequence[str], average: Average) -> list[str]:
    """Return a note if an average of probabilities mixes margins of support vector machines with networks."""
    before_2012 = {entry.system for entry in ENTRIES if entry.system}
    with_margins = [network for network in networks if network in before_2012]
    if average == "logits" or len(with_margins) in (0, len(networks)):
        return []
    return [
        f"Note: {', '.join(with_margins)} gives margins, whose softmax is nearly flat: beside networks it counts for"
        " less than its weight"
    ]
