"""Tests of two towers as a system: their scores, what is frozen, the weights they start from, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.data.augment import augment
from imagenet_repro.errors import UserError
from imagenet_repro.training import systems
from imagenet_repro.training.systems import contrastive
from imagenet_repro.training.systems.contrastive import CLASSES, ContrastiveSystem
from tests.training import small_towers

NAMES = ("cat", "n01440764", "tea_cup")
PROMPTS = ("a {name}", "{name}s")


@pytest.fixture(autouse=True)
def towers(monkeypatch):
    small_towers.add(monkeypatch)


def create(image_tower=None, **settings):
    config = small_towers.config(**settings)
    return ContrastiveSystem.create(config, len(NAMES), class_names=NAMES, image_tower=image_tower)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_scores_are_scaled_cosines_with_the_mean_of_a_class_s_prompts():
    system = create(zeroshot={"templates": PROMPTS}, parallel="fsdp")
    state = system.initial_state()
    images = jnp.asarray(small_towers.batch(0, 4)["image"])
    scored = system.scoring_state(state)
    scores = jax.jit(system.score)(*scored.evaluated, images)
    model = system.network.model(*state.evaluated)
    encode = jax.jit(lambda tokens, pixels: (model.encode_text(tokens), model.encode_image(pixels)))
    texts = ["a cat", "cats", "a tench", "tenchs", "a tea cup", "tea cups"]
    tokens, _ = system.tokenizer.encode(texts, small_towers.LENGTH)
    texts_encoded, images_encoded = encode(tokens, augment.normalize(images, system.config.augment))
    classes = unit(unit(np.asarray(texts_encoded)).reshape(3, 2, -1).mean(1))
    features = unit(np.asarray(images_encoded))
    np.testing.assert_allclose(scores, features @ classes.T / 0.07, rtol=1e-4)
    assert CLASSES not in state.stats  # so no checkpoint has it
    with pytest.raises(UserError, match="use a protocol of crops"):
        system.class_map(*scored.evaluated, images)


def test_names_of_classes_are_those_of_a_sentence():
    assert contrastive.prompt_names(NAMES) == ["cat", "tench", "tea cup"]
    cranes = contrastive.prompt_names(["n03126707", "n02012849"])  # a machine and a bird
    assert len(set(cranes)) == 2
    assert all(name.startswith("crane") for name in cranes)


LOCKED = {"image": {"model": "resnet20_cifar", "locked": True}, "batch_size": 8, "flops": "full"}


def test_a_locked_tower_starts_from_weights_and_trains_its_head_alone():
    source = models.create("resnet20_cifar", 7, seed=5)
    system = create(image_tower=source, **LOCKED)
    params = system.network.params
    np.testing.assert_array_equal(params["image.conv1.weight"], source.conv1.weight[...])
    of_image = {name for name in params if name.startswith("image.")}
    trained = set(system.train_step(1).trained(params))
    assert trained == {name for name in params if name not in of_image} | {"image.fc.weight", "image.fc.bias"}
    assert params["image.fc.weight"].shape == (64, 24)


@pytest.mark.slow
def test_the_operations_of_both_towers_count_and_a_locked_one_has_no_backward_pass():
    system, whole = create(**LOCKED), create(**LOCKED | {"image": {"model": "resnet20_cifar"}})
    assert system.summary() == whole.summary() | {"trained_parameters": system.trained_parameters}
    shapes = [jax.eval_shape(lambda s=s: s.abstract_state()) for s in (system, whole)]
    locked, free = (s.flops_per_step(shape) for s, shape in zip((system, whole), shapes, strict=True))
    image_tower = 2 * 8 * whole.summary()["multiply_adds"]
    assert free > locked > 0.9 * image_tower
    assert free - locked == pytest.approx(2 * image_tower, rel=0.02)


def test_weights_of_another_network_are_refused():
    with pytest.raises(UserError, match=r"config\.image\.weights: \d+ tensors do not fit.*config\.image\.model"):
        create(image_tower=models.create("resnet20_cifar", 7))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"name": "clip_tiny"}}, r"config\.model\.name: no network with two towers"),
        ({"image": {"model": "resnet5"}}, r"config\.image\.model: no network is called 'resnet5'"),
        ({"image": {"options": {"depth": 2}}}, r"config\.image\.options: .*use model\.options"),
        ({"image": {"weights": "a"}, "model": {"weights": "b"}}, r"config\.image\.weights: .*name one of the two"),
        ({"augment": {"mixup": 0.2}}, r"config\.augment\.mixup: captions cannot be mixed"),
        ({"augment": {"label_smoothing": 0.1}}, r"config\.augment\.label_smoothing: captions cannot"),
        ({"accumulate": 4}, r"config\.accumulate: 4 parts"),
        ({"progressive": {"stages": 2}}, r"config\.progressive\.stages: two towers train at one size"),
        ({"distill": {"name": "hard", "teacher": "x"}}, r"config\.distill\.name: a teacher's labels"),
        ({"train": {"lora": {"rank": 2}}}, r"config\.train\.lora\.rank: adapters"),
        ({"train": {"zero_head": True}}, r"config\.train\.zero_head: two towers"),
        ({"train": {"freeze": ("all_but_head",)}}, r"config\.train\.freeze: .*config\.image\.locked=true"),
        ({"optimizer": {"name": "adamw", "layer_decay": 0.7}}, r"config\.optimizer: adamw with these settings"),
    ],
)
def test_keys_that_pairs_cannot_have_are_refused(settings, message):
    settings = {
        key: ({"name": small_towers.NAME} if key == "model" else {}) | value if isinstance(value, dict) else value
        for key, value in settings.items()
    }
    with pytest.raises(UserError, match=message):
        systems.check_config(small_towers.config(**settings))


def test_a_tokenizer_with_more_tokens_than_the_tower_is_refused():
    options = {"image_size": small_towers.SIDE, "vocabulary": 200}
    with pytest.raises(UserError, match=r"config\.tokenizer: it has 259 tokens.*has 200; set .*vocabulary=259"):
        create(model={"name": small_towers.NAME, "options": options})
    with pytest.raises(UserError, match=r"config\.tokenizer: .* reads bytes, and spiece\.model is"):
        create(tokenizer="spiece.model")


def test_the_image_tower_is_built_for_the_images_unless_it_starts_from_weights():
    config = small_towers.config(model={"name": small_towers.NAME}, data={"image_size": 12})
    assert systems.with_image_size(config).model.options == {"image_size": 12}
    other = dataclasses.replace(config, image=dataclasses.replace(config.image, model="vit_tiny_patch16"))
    assert systems.with_image_size(other).image.options == {"image_size": 12}
    loaded = dataclasses.replace(config, image=dataclasses.replace(config.image, weights="file"))
    assert systems.with_image_size(loaded) == loaded
