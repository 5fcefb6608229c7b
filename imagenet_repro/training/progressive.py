"""Progressive learning: small images and weak regularisation first, larger and stronger later.

Tan & Le 2021 (EfficientNetV2), section 4 and algorithm 1, with the numbers of the authors' code: four stages, sizes of
128 + (size - 128) s / 4 in stage s = 1 to 4, other values in even steps from the first stage to the last. Each stage
has its own configuration, compiled step and batches, so no other module depends on stages.
"""

import dataclasses
from collections.abc import Callable, Sequence

from imagenet_repro import models
from imagenet_repro.config import Config, Model, Policy, RandAugment, TimmRandAugment
from imagenet_repro.config.amount import Amount
from imagenet_repro.errors import UserError
from imagenet_repro.training.budget import Meter


def stage_config(config: Config, stage: int) -> Config:
    """Return the configuration of a stage, counted from 0; the last stage has `config` itself.

    Raises:
      UserError: the first size is larger than the last, or the final dropout of the network is not known.
    """
    spec = config.progressive
    if stage == spec.stages - 1:
        return config
    share = stage / (spec.stages - 1)

    def between(first: float, last: float) -> float:
        return (1 - share) * first + share * last

    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, image_size=_image_size(config, stage)),
        augment=dataclasses.replace(
            config.augment,
            mixup=between(spec.mixup_from, config.augment.mixup),
            cutmix=between(spec.cutmix_from, config.augment.cutmix),
            policy=_policy(config, between),
        ),
        model=_model(config, between),
    )


def _image_size(config: Config, stage: int) -> int:
    first, last = config.progressive.image_size_from, config.data.image_size
    if first > last:
        raise UserError(f"config.progressive.image_size_from: {first} is larger than config.data.image_size, {last}")
    return first + (last - first) * (stage + 1) // config.progressive.stages


def _policy(config: Config, between: Callable[[float, float], float]) -> Policy:
    """Return the policy with the stage's magnitude, if it has one."""
    policy = config.augment.policy
    if not isinstance(policy, RandAugment | TimmRandAugment):
        return policy
    return dataclasses.replace(policy, magnitude=between(config.progressive.magnitude_from, policy.magnitude))


def _model(config: Config, between: Callable[[float, float], float]) -> Model:
    """Return the network with the stage's dropout, if it has dropout."""
    options = models.spec(config.model.name).options | config.model.options
    if "dropout" not in options:
        return config.model
    if not isinstance(options["dropout"], int | float):
        raise UserError(
            f"config.progressive: set config.model.options.dropout, the final dropout rate of {config.model.name}"
        )
    rate = between(config.progressive.dropout_from, options["dropout"])
    if rate == options["dropout"]:
        return config.model
    return dataclasses.replace(config.model, options=config.model.options | {"dropout": rate})


def staged(meter: Meter, budget: Amount, later_flops: Sequence[int]) -> Meter:
    """Return the meter of a run in stages that are equal shares of its budget.

    Args:
      meter: the meter of a run with only the first stage.
      budget: the budget of the whole run.
      later_flops: floating point operations of a step of each further stage.

    Raises:
      UserError: the budget is in seconds, which cannot be divided in advance, or has fewer steps than stages.
    """
    stages = 1 + len(later_flops)
    if budget.unit == "s" and later_flops:
        raise UserError(
            f"config.budget: {budget} cannot be divided into the {stages} stages of config.progressive before the run;"
            " write epochs (ep), images (img), steps (st) or operations (flop)"
        )
    for number, flops in enumerate(later_flops, 1):
        first = meter.steps_to(Amount(budget.value * number / stages, budget.unit))
        meter = dataclasses.replace(meter, later=(*meter.later, (first, flops)))
    starts = [0, *(first for first, _ in meter.later), meter.steps_to(budget)]
    if later_flops and len(set(starts)) < len(starts):
        raise UserError(f"config.progressive.stages: {budget} are {starts[-1]} steps, too few for {stages} stages")
    return meter
