"""Average the stored predictions of several systems, and report what each of them contributes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenet_repro import __version__
from imagenet_repro.config.ensemble import Average, EnsembleConfig
from imagenet_repro.errors import EXIT_FINISHED, UserError, nearest
from imagenet_repro.inference import ensemble_plan
from imagenet_repro.report.sections.class_gains import signed
from imagenet_repro.runs import stored_predictions
from imagenet_repro.runs.stored_predictions import StoredPredictions
from imagenet_repro.scoring import ensembling as averaging
from imagenet_repro.scoring import predictions, sets
from imagenet_repro.scoring.ensembling import EnsembleErrors, Members
from imagenet_repro.scoring.metrics import GUESSES, format_rate
from imagenet_repro.statistics.hypothesis_tests import mcnemar
from imagenet_repro.statistics.intervals import bootstrap_difference
from imagenet_repro.storage import provenance
from imagenet_repro.zoo.entries import ENTRIES

FILE_WIDTH = 120  # columns, where rich would assume 80
HEADINGS = (
    "member", "network", "scored by", "weight", "top-1\nerror %", "top-5\nerror %", "left out,\ntop-1",
    "left out,\ntop-5", "up to it,\ntop-1", "up to it,\ntop-5",
)  # fmt: skip
CAPTION = (
    "Left out: by how many points the ensemble's error changes without the member. Up to it: the error of the members"
    " from the first to this one."
)


def ensemble(
    members: Sequence[str],
    *,
    config: str | None = None,
    weights: str | None = None,
    average: Average | None = None,
    select: Sequence[str] = (),
    out: str | None = None,
) -> int:
    """Averages members, and prints error rates, what each member adds, and the difference from the best member.

    Args:
      members: files of predictions, or workdirs of finished runs.
      config: of a published ensemble, FILE.py[:ARGUMENT]; without members, the commands that make them are printed.
      weights: "uniform", "validation", "greedy", "accuracy", or numbers with commas; None: as the config says, else
        uniform.
      average: of what; None: as the config says, else probabilities.
      select: predictions of the members, in their order, on images of another split, where weights are found.
      out: a file for the ensemble's own predictions; None: they are not kept.

    Raises:
      UserError: members cannot be averaged, or are not those of the config; weights cannot be found.
      SaveError: `out` cannot be written.
    """
    entry = ensemble_plan.load_ensemble(config) if config else None
    if not members and entry is None:
        raise UserError("which members? --members FILE_or_RUN …, or --config of a published ensemble for its plan")
    if not members:
        return _show_plan(entry, config)
    how = weights or (entry.weights if entry else "uniform")
    average = average or (entry.average if entry else "probabilities")
    opened, chosen = ([stored_predictions.load(place) for place in places] for places in (members, select))
    names = stored_predictions.short_names([one.path for one in opened])
    if entry:
        ensemble_plan.check_members(entry, [one.network for one in opened])
    aligned = averaging.align_members(names, [one.predictions for one in opened])
    found = _weights(how, average, aligned, opened, chosen)
    judged = averaging.score_ensemble(aligned, found, average)
    _show(aligned, opened, found, judged, average)
    if entry:
        _show_entry(entry)
        _show_protocols(entry, opened)
    if out:
        source = _provenance(opened, found, how=how, average=average, chosen=chosen, config=config)
        predictions.save(out, averaging.combine(aligned, found, average, source))
        print(f"predictions of the ensemble: {out}")
    return EXIT_FINISHED


# --- weights ----------------------------------------------------------------------------------------------------


def _weights(
    how: str,
    average: Average,
    members: Members,
    opened: Sequence[StoredPredictions],
    chosen: Sequence[StoredPredictions],
) -> Float[np.ndarray, " m"]:
    if how in ensemble_plan.NEED_HELD_OUT:
        return averaging.find_weights(how, _held_out(how, members, opened, chosen), average)
    if chosen:
        raise UserError(f"--select would be ignored: --weights={how} are not found on predictions")
    if how == "uniform":
        return averaging.normalize_weights([1.0] * len(opened))
    numbers = _numbers(how)
    if len(numbers) != len(opened):
        raise UserError(f"--weights={how} are {len(numbers)} weights, and there are {len(opened)} members")
    return averaging.normalize_weights(numbers)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        ways = ("uniform", *ensemble_plan.NEED_HELD_OUT)
        raise UserError(
            f"--weights={text} are no numbers with commas, and no such way: {nearest(text, ways)}"
        ) from None


def _held_out(
    how: str, members: Members, opened: Sequence[StoredPredictions], chosen: Sequence[StoredPredictions]
) -> Members:
    if not chosen:
        raise UserError(
            f"--weights={how} are found on images that are not scored: name predictions of the same members on another"
            " split with --select, in the order of --members (main.py evaluate --data.eval_split=… makes them)"
        )
    if len(chosen) != len(opened):
        raise UserError(f"--select names {len(chosen)} predictions, and there are {len(opened)} members")
    for one, other in zip(opened, chosen, strict=True):
        stored_predictions.check_same_model(one, other)
        stored_predictions.check_not_trained_on(other)
    found = averaging.align_members([str(one.path) for one in chosen], [one.predictions for one in chosen])
    predictions.check_disjoint(members.predictions[0], found.predictions[0], "weights are found")
    if found.predictions[0].logits.shape[1] != members.predictions[0].logits.shape[1]:
        raise UserError("--select and --members choose between different numbers of classes")
    return found


def _provenance(
    opened: Sequence[StoredPredictions],
    weights: Float[np.ndarray, " m"],
    *,
    how: str,
    average: Average,
    chosen: Sequence[StoredPredictions],
    config: str | None,
) -> dict[str, object]:
    """What made the ensemble; its section `config` says of which data set, as that of every other system does."""
    classes = sets.class_names(opened[0].predictions.provenance)
    named = {"classes": list(classes)} if classes else {}
    return named | {
        "imagenet_repro": __version__,
        "commit": provenance.commit(),
        "config": {"data": stored_predictions.data_of(opened[0].predictions)},
        "ensemble": {
            "config": config,
            "average": average,
            "weights": how,
            "select": [provenance.of_file(one.path) for one in chosen],
            "members": [
                provenance.of_file(one.path) | {"weight": weight, "provenance": one.predictions.provenance}
                for one, weight in zip(opened, weights.tolist(), strict=True)
            ],
        },
    }


# --- in the terminal --------------------------------------------------------------------------------------------


def _show(
    members: Members,
    opened: Sequence[StoredPredictions],
    weights: Float[np.ndarray, " m"],
    judged: EnsembleErrors,
    average: Average,
) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for number, heading in enumerate(HEADINGS):
        two_lines = heading if "\n" in heading else f"\n{heading}"
        table.add_column(two_lines, justify="right" if number > 2 else "left", overflow="fold", no_wrap=number > 2)
    for index, name in enumerate(members.names):
        cells = [name, opened[index].network, opened[index].protocol]
        cells += [f"{weights[index]:.3f}", *_percents(judged.alone[index])]
        cells += _changes(judged.whole, judged.without[index]) + _percents(judged.until[index])
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    console.print(CAPTION, markup=False, soft_wrap=True)
    said = (_rates(judged.whole), *_against_best(members, judged), *_of_margins(opened, average))
    for line in (*said, *sets.human_error_sentences(sets.data_name(members.predictions[0].provenance))):
        console.print(line, markup=False, soft_wrap=True)


def _percents(wrong: Bool[np.ndarray, "2 n"] | None) -> list[str]:
    if wrong is None:
        return ["", ""]
    return [format_rate(int(row.sum()), len(row))[0] for row in wrong]


def _changes(whole: Bool[np.ndarray, "2 n"], without: Bool[np.ndarray, "2 n"] | None) -> list[str]:
    """By how many points both errors rise when a member is left out."""
    if without is None:
        return ["", ""]
    return [_signed(100 * (x - y)) for x, y in zip(without.mean(axis=1), whole.mean(axis=1), strict=True)]


def _signed(points: float) -> str:
    """With two decimals: what one member adds to many is small."""
    text = f"{points:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _rates(whole: Bool[np.ndarray, "2 n"]) -> str:
    return f"ensemble: {averaging.error_rates(whole)}"


def _against_best(members: Members, judged: EnsembleErrors) -> list[str]:
    """For both errors, the ensemble against the member that has the lowest: paired interval, McNemar's test."""
    lines = []
    for row, guesses in enumerate((1, GUESSES)):
        best = int(np.argmin([wrong[row].sum() for wrong in judged.alone]))
        pair = judged.whole[row], judged.alone[best][row]
        found, test = bootstrap_difference(*pair), mcnemar(*pair)
        low, high = (signed(100 * end) for end in found.interval)
        lines.append(
            f"top-{guesses} error against {members.names[best]}, the best member in it:"
            f" {signed(100 * found.difference)} points [{low}, {high}] (95 % interval);"
            f" wrong by the ensemble alone {test.only_a:,} images, by the member alone {test.only_b:,},"
            f" McNemar's mid-p {_p(test.p)}"
        )
    return lines


def _of_margins(opened: Sequence[StoredPredictions], average: Average) -> list[str]:
    """A note where what is averaged is of two kinds: margins of support vector machines, and networks' scores."""
    before_2012 = {entry.system for entry in ENTRIES if entry.system}
    margins = [one.network for one in opened if one.network in before_2012]
    if average == "logits" or len(margins) in (0, len(opened)):
        return []
    return [
        f"Note: {', '.join(margins)} gives margins, whose softmax is nearly flat: beside networks it counts for less"
        " than its weight"
    ]


def _p(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else f"{p:.4f}"


def _show_entry(entry: EnsembleConfig) -> None:
    """What was published of the entry, and what about it nobody knows."""
    lines = [f"{entry.entry}, published:", *(f"  {one}" for one in entry.published)]
    other = [kind for kind in entry.members if kind.stands_for]
    if other:
        lines.append("in place of what is not here:")
        lines += [f"  {kind.count} x {kind.network} for {kind.stands_for}" for kind in other]
    if entry.unknown:
        lines.append("the sources leave open:")
        lines += [f"  {one.what}; here: {one.here}" for one in entry.unknown]
    print("\n".join(lines))


def _show_protocols(entry: EnsembleConfig, opened: Sequence[StoredPredictions]) -> None:
    """Says so where a member was not scored as the entry's were: its error is then not the one to compare."""
    needed = {(kind.network, kind.protocol) for kind in entry.members}
    others = sorted({one.protocol for one in opened if (one.network, one.protocol) not in needed})
    if others:
        asked = ", ".join(sorted({kind.protocol for kind in entry.members}))
        print(f"not scored as the entry was: members here by {', '.join(others)}, the entry's by {asked}")


def _show_plan(entry: EnsembleConfig, spec: str) -> int:
    print(ensemble_plan.plan_commands(entry, spec))
    _show_entry(entry)
    return EXIT_FINISHED
