"""Average the stored predictions of several systems, and report what each of them contributes."""

import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from imagenet_repro import __version__
from imagenet_repro.config import parse_text
from imagenet_repro.config.ensemble import Average, SearchedWeights
from imagenet_repro.errors import EXIT_FINISHED, UserError, nearest
from imagenet_repro.inference import ensemble_plan
from imagenet_repro.report import ensemble_report
from imagenet_repro.runs import stored_predictions
from imagenet_repro.runs.stored_predictions import StoredPredictions
from imagenet_repro.scoring import class_names, ensembling, predictions
from imagenet_repro.scoring.ensembling import Members
from imagenet_repro.storage import provenance


def ensemble(
    members: Sequence[str],
    *,
    config: str | None = None,
    weights: str | None = None,
    average: Average | None = None,
    select: Sequence[str] = (),
    out: str | None = None,
) -> int:
    """Average members, and print error rates, what each member contributes, and the difference from the best member.

    Args:
      members: files of predictions, or workdirs of finished runs.
      config: a published ensemble, FILE.py[:ARGUMENT]. Without members, the commands that create them are printed.
      weights: "uniform", "validation", "greedy", "accuracy", or numbers with commas; None: as in the config, otherwise
        uniform.
      average: "probabilities" or "logits"; None: as in the config, otherwise probabilities.
      select: predictions of the members, in their order, on another split, on which weights are found.
      out: a file for the predictions of the ensemble; None: they are not stored.

    Returns:
      The exit code.

    Raises:
      UserError: the members cannot be averaged or are not those of the config, or weights cannot be found.
      SaveError: `out` cannot be written.
    """
    entry = ensemble_plan.load_ensemble(config) if config else None
    if not members:
        if config is None or entry is None:
            raise UserError("which members? --members FILE_or_RUN …, or --config of a published ensemble for its plan")
        print(ensemble_plan.plan_commands(entry, config))
        ensemble_report.present_entry(entry)
        return EXIT_FINISHED
    method = weights or (entry.weights if entry else "uniform")
    average = average or (entry.average if entry else "probabilities")
    stored, held_out = ([stored_predictions.load(path) for path in paths] for paths in (members, select))
    names = stored_predictions.short_names([member.path for member in stored])
    networks, protocols = [member.network for member in stored], [member.protocol for member in stored]
    if entry:
        ensemble_plan.check_members(entry, networks)
    aligned = ensembling.align_members(names, [member.predictions for member in stored])
    numbers = _find_weights(method, average, aligned, stored, held_out)
    errors = ensembling.score_ensemble(aligned, numbers, average)
    ensemble_report.present(aligned, numbers, errors, networks=networks, protocols=protocols, average=average)
    if entry:
        ensemble_report.present_entry(entry)
        ensemble_report.present_other_protocols(entry, networks, protocols)
    if out:
        source = _provenance(stored, numbers, method=method, average=average, held_out=held_out, config=config)
        predictions.save(out, ensembling.combine(aligned, numbers, average, source))
        print(f"predictions of the ensemble: {out}")
    return EXIT_FINISHED


def _find_weights(
    method: str,
    average: Average,
    members: Members,
    stored: Sequence[StoredPredictions],
    held_out: Sequence[StoredPredictions],
) -> Float[np.ndarray, " m"]:
    """Return a weight for each member, by a method or as numbers with commas."""
    if method in ensemble_plan.NEED_HELD_OUT:
        search = typing.cast(SearchedWeights, method)
        return ensembling.find_weights(search, _align_held_out(method, members, stored, held_out), average)
    if held_out:
        raise UserError(f"--select would be ignored: --weights={method} does not use predictions")
    if method == "uniform":
        return ensembling.normalize_weights([1.0] * len(stored))
    numbers = _parse_numbers(method)
    if len(numbers) != len(stored):
        raise UserError(f"--weights={method} are {len(numbers)} weights, and there are {len(stored)} members")
    return ensembling.normalize_weights(numbers)


def _parse_numbers(text: str) -> list[float]:
    try:
        return [parse_text(word, float, "--weights") for word in text.split(",")]
    except UserError as error:
        methods = ("uniform", *ensemble_plan.NEED_HELD_OUT)
        raise UserError(
            f"--weights={text} is neither a method nor numbers with commas ({error}); {nearest(text, methods)}"
        ) from None


def _align_held_out(
    method: str, members: Members, stored: Sequence[StoredPredictions], held_out: Sequence[StoredPredictions]
) -> Members:
    """Return the members' predictions on the split on which weights are found.

    Raises:
      UserError: predictions are missing, of other models, of images that are scored, or of images that a member was
        trained on.
    """
    if not held_out:
        raise UserError(
            f"--weights={method} are found on images that are not scored: give predictions of the same members on"
            " another split with --select, in the order of --members (main.py evaluate --data.eval_split=…)"
        )
    if len(held_out) != len(stored):
        raise UserError(f"--select names {len(held_out)} predictions, and there are {len(stored)} members")
    for member, other in zip(stored, held_out, strict=True):
        stored_predictions.check_same_model(member, other)
        stored_predictions.check_not_trained_on(other)
    aligned = ensembling.align_members([str(other.path) for other in held_out], [one.predictions for one in held_out])
    predictions.check_disjoint(members.predictions[0], aligned.predictions[0], "weights are found")
    scored, other = members.predictions[0], aligned.predictions[0]
    predictions.align_classes(scored, str(stored[0].path), other, str(held_out[0].path))
    return aligned


def _provenance(
    stored: Sequence[StoredPredictions],
    weights: Float[np.ndarray, " m"],
    *,
    method: str,
    average: Average,
    held_out: Sequence[StoredPredictions],
    config: str | None,
) -> dict[str, Any]:
    """Return the provenance of the ensemble; its section `config` names the data set, as for every other system."""
    classes = class_names.of_provenance(stored[0].predictions.provenance)
    named: dict[str, Any] = {"classes": list(classes)} if classes else {}
    return named | {
        "imagenet_repro": __version__,
        "commit": provenance.commit(),
        "config": {"data": stored_predictions.data_of(stored[0].predictions)},
        "ensemble": {
            "config": config,
            "average": average,
            "weights": method,
            "select": [provenance.of_file(other.path) for other in held_out],
            "members": [
                provenance.of_file(member.path) | {"weight": weight, "provenance": member.predictions.provenance}
                for member, weight in zip(stored, weights.tolist(), strict=True)
            ],
        },
    }
