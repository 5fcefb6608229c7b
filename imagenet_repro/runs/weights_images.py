"""The images of a run that starts from weights, beside those that the weights were trained on."""

import dataclasses
from collections.abc import Mapping

from imagenet_repro.config import AnyConfig, CenterCrop, Config, SquashCrop
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained import preprocessing
from imagenet_repro.runs.export import describe_preprocessing


def with_preprocessing(config: AnyConfig, settings: Mapping[str, str]) -> AnyConfig:
    """Return a configuration whose images are prepared as `--preprocess.KEY=VALUE` says.

    Mean, std and size are those of training and evaluation; the crop is that of evaluation; kernel and antialias are
    those of both crops.

    Raises:
      UserError: the run does not start from weights, or as `preprocessing.change`.
    """
    if not settings:
        return config
    flag = f"--preprocess.{next(iter(settings))}"
    if not isinstance(config, Config) or not config.initial_weights:
        raise UserError(
            f"{flag} is for a run that starts from weights, and config.model.weights is empty; set augment.mean,"
            " augment.std, data.image_size and eval_crop"
        )
    base = describe_preprocessing(config) or Preprocessing(config.data.size_evaluated)
    images = preprocessing.change(base, settings)
    resizing = {"kernel": images.kernel, "antialias": images.antialias}
    crop = SquashCrop(**resizing) if images.crop == "squash" else CenterCrop(ratio=images.crop_ratio, **resizing)
    of_training = {key: value for key, value in resizing.items() if key in settings}
    data = dataclasses.replace(config.data, image_size=images.image_size) if "size" in settings else config.data
    return dataclasses.replace(
        config,
        data=dataclasses.replace(data, eval_image_size=0) if "size" in settings else data,
        augment=dataclasses.replace(config.augment, mean=images.mean, std=images.std),
        eval_crop=crop if {"crop", *resizing} & set(settings) else config.eval_crop,
        train_crop=dataclasses.replace(config.train_crop, **of_training),
    )


def describe(config: Config, published: Preprocessing) -> str:
    """Return a line on the images that a run is evaluated on, and on those that its initial weights were made for."""
    ours, theirs = describe_preprocessing(config), preprocessing.describe(published)
    if ours is None:
        return f"images: {config.data.size_evaluated} px, {config.eval_crop}; those of the weights: {theirs}"
    described = preprocessing.describe(ours)
    if described == theirs:
        return f"images: {described}, as those of the weights"
    return f"images: {described}; those of the weights: {theirs} (--preprocess.KEY=VALUE changes ours)"
