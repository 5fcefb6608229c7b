"""Score published weights of CLIP or SigLIP by texts about the classes: `main.py evaluate --protocol=zeroshot`."""

import dataclasses
from typing import Any

import jax

from imagenet_repro import pretrained
from imagenet_repro.config import Config, replace_keys
from imagenet_repro.data.tokenizers import Tokenizer, check_fits, open_tokenizer
from imagenet_repro.inference import class_texts, evaluation_sets, protocols, zero_shot
from imagenet_repro.inference.class_texts import ClassTexts, Templates
from imagenet_repro.models import image_text
from imagenet_repro.models.image_text import ImageTextNetwork
from imagenet_repro.models.zero_shot import ZeroShotNetwork
from imagenet_repro.pretrained import Selection, Weights
from imagenet_repro.runs.evaluate import (
    EvaluationResult,
    configure_evaluation,
    create_evaluators,
    output_paths,
    require_images,
    require_writable,
    say_once,
    say_what_changed,
    score_by_protocols,
)
from imagenet_repro.storage import provenance
from imagenet_repro.training import devices
from imagenet_repro.training.systems import NetworkSystem
from imagenet_repro.training.systems.network import describe_loaded

PROTOCOL = "zeroshot"


def evaluate_zero_shot(
    path: str,
    *,
    name: str = "",
    options: dict[str, Any] | None = None,
    data: dict[str, str],
    out: str | None,
    set_name: str = "",
    mappings: str = "",
    settings: dict[str, str] | None = None,
    preprocess: dict[str, str] | None = None,
    classnames: str = "",
    templates: str = "",
    tokenizer: str = "",
) -> EvaluationResult:
    """Score a file of weights of two towers by texts about the classes, and print error rates.

    The texts of a class, one for each template, are embedded, normalised, averaged and normalised again, and are the
    weights of an ordinary classifier (`ZeroShotNetwork`), whose predictions are stored like any other. Embeddings are
    kept in the user's directory of caches.

    Args:
      path: a file of weights, or a model's directory.
      name: the network; empty: as the file shows.
      options, data, out, set_name, mappings, preprocess: as of `evaluate_weights`.
      settings: keys of the protocol of one crop to replace, as texts.
      classnames: a file of class names; empty: see `class_texts.choose_class_texts`.
      templates: a file of templates, "80" or "7"; empty: see `class_texts.choose_templates`.
      tokenizer: a file with the vocabulary of the text tower; empty: that of `open-clip-torch` for CLIP.

    Returns:
      The result, as of `evaluate_weights`.

    Raises:
      UserError: options do not go together, files cannot be read, the class names do not cover the classes, or the
        tokenizer does not fit the text tower.
      SaveError: predictions cannot be written.
    """
    require_images(data, set_name, mappings)
    parts = protocols.parse(protocols.OWN_PROTOCOL, settings)
    weights = pretrained.read(path)
    selection = pretrained.select_image_text(weights, name, options, preprocess)
    encoder = _open_tokenizer(selection, tokenizer)
    packaged = class_texts.packaged_lists()
    chosen_templates = class_texts.choose_templates(templates, packaged)
    config = _configure(selection, data, set_name)
    selection = dataclasses.replace(selection, options=config.model.options)  # for images of the evaluated size
    devices.start()
    evaluation_set = evaluation_sets.open_set(config, set_name, mappings)
    require_writable(evaluation_set, out)
    say_what_changed(evaluation_set)
    names = class_texts.choose_class_texts(classnames, evaluation_set.parts[0].split.class_names, packaged)
    evaluation_set = evaluation_sets.align_classes(evaluation_set, names.classes, "the class names", say_once)
    network, report = _load(selection, weights)
    say_once(f"{describe_loaded(report)}\n{selection.name}; {selection.describe_images()}")
    prompts = zero_shot.encode_prompts(encoder, names.texts, chosen_templates.texts, network.text.context)
    _say_prompts(names, chosen_templates, prompts)
    file = provenance.of_file(weights.path)
    system = NetworkSystem.of_network(config, len(names.classes), _classifier(network, prompts, file, selection))
    texts = _describe_texts(names, chosen_templates, prompts)
    texts["tokenizer"] = tokenizer or image_text.two_towers(selection.name).tokenizer
    results = score_by_protocols(
        create_evaluators({PROTOCOL: parts}, system, evaluation_set),
        evaluation_set,
        system.initial_state(),
        source={"weights": file, "zero_shot": texts},
        path_of=output_paths(evaluation_set, out),
        title=selection.name,
    )
    return EvaluationResult(f"{selection.name}, {path}", results)


def _open_tokenizer(selection: Selection, path: str) -> Tokenizer:
    """Return the tokenizer of the text tower; UserError where it does not fit."""
    design = image_text.two_towers(selection.name)
    encoder = open_tokenizer(design.tokenizer, path)
    vocabulary = selection.options.get("vocabulary", design.text.vocabulary)
    check_fits(encoder, path or design.tokenizer, vocabulary, selection.name)
    return encoder


def _configure(selection: Selection, data: dict[str, str], set_name: str) -> Config:
    config = configure_evaluation(selection.name, selection.options, selection.preprocessing)
    config = replace_keys(config, {f"data.{key}": value for key, value in data.items()})
    config = evaluation_sets.configure_for_set(config, set_name, data) if set_name else config
    size = config.data.size_evaluated
    options = config.model.options | {"image_size": size}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, options=options))


def _load(selection: Selection, weights: Weights) -> tuple[ImageTextNetwork, pretrained.Report]:
    network = image_text.abstract_image_text(selection.name, **selection.options)
    report = pretrained.load_image_text(network, weights)
    return network.eval(), report


def _say_prompts(names: ClassTexts, templates: Templates, prompts: zero_shot.Prompts) -> None:
    """Print the sources of the texts, and a warning for each part of them that may cost accuracy."""
    say_once(
        f"{len(names.texts):,} class names: {names.source}; {len(templates.texts):,} templates: {templates.source}"
    )
    for warning in (names.warning, templates.warning, zero_shot.truncation_note(prompts)):
        if warning:
            say_once(f"warning: {warning}")


def _describe_texts(names: ClassTexts, templates: Templates, prompts: zero_shot.Prompts) -> dict[str, Any]:
    """Return what the classifier was made of, for the provenance of predictions."""
    return {
        "class_names": list(names.texts),
        "templates": list(templates.texts),
        "truncated": prompts.truncated,
    }


def _classifier(
    network: ImageTextNetwork, prompts: zero_shot.Prompts, weights: dict[str, str], selection: Selection
) -> ZeroShotNetwork:
    with jax.default_matmul_precision("highest"):
        embeddings, note = zero_shot.cached_embeddings(network, prompts, weights, selection.options)
    say_once(note)
    return ZeroShotNetwork(network, embeddings)
