"""A split scored by dense and other protocols: groups of aspects, every image once, damaged images."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.data.image_index import ImageIndex
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference import protocol_evaluator, protocols
from imagenet_repro.training import parallel, state
from tests.inference.test_protocols import WEIGHTS, Linear, scores

SIZES = ((48, 64), (64, 48), (40, 40), (40, 60), (30, 90), (48, 64), (60, 40), (45, 60), (44, 44))


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8)


def record(number, damaged=()):
    """Return a PNG, whose decoded pixels are known exactly."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(pixels(number), cv2.COLOR_RGB2BGR))
    image = b"no image" if number in damaged else encoded.tobytes()
    return Record(image, number % 7, f"image_{number}")


def split(damaged=()):
    records = [record(number, damaged) for number in range(len(SIZES))]
    return Split("made", "validation", "1.0.0", tuple("abcdefg"), len(records), records)


def judged(name, damaged=(), **data):
    config = resolve_config({"data": {"image_size": 32, "threads": 1, "workers": 0, **data}, "batch_size": 8})
    spread = parallel.create("shard_map")
    trained = state.TrainState(
        jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2, jnp.uint32)
    )
    messages = []
    one = protocol_evaluator.ProtocolEvaluator(protocols.parse(name), Linear(config), spread, say=messages.append)
    seen = []
    one.show = seen.append
    rates, predictions = one.predict(split(damaged), spread.put_state(trained), {"made": True})
    assert sum(seen) == rates.images
    return rates, predictions, messages


ASPECTS = {"image_0": 4 / 3, "image_1": 3 / 4, "image_2": 1, "image_3": 3 / 2, "image_4": 2, "image_6": 2 / 3}


@pytest.mark.parametrize("name", ["vgg_dense1", pytest.param("vgg_dense1+10crop", marks=pytest.mark.slow)])
def test_every_image_is_scored_once_at_its_own_aspect(name):
    rates, predictions, _ = judged(name)
    assert sorted(predictions.id) == [f"image_{number}" for number in range(9)]
    assert rates.images == 9
    result = dict(zip(predictions.id, predictions.logits, strict=True))
    for image, aspect in ASPECTS.items():
        number = int(image.removeprefix("image_"))
        (expected,) = scores(protocols.parse(name), [pixels(number)], aspect)
        np.testing.assert_allclose(result[image], expected, atol=2e-3)  # stored as float16
    assert rates.top1_wrong == predictions.error_rates().top1_wrong
    assert np.isfinite(rates.cross_entropy)


def test_crops_keep_the_order_of_the_split():
    _, predictions, _ = judged("10crop")
    assert list(predictions.id) == [f"image_{number}" for number in range(9)]


def test_groups_are_by_aspect_with_a_hundredth_of_slack():
    sizes = ((500, 334), (334, 500), (375, 500), (500, 500), (100, 1000), (1000, 101), (500, 560))
    ids = np.array([str(number) for number in range(len(sizes))])
    groups = protocol_evaluator.group_by_aspect(ImageIndex(ids, np.array(sizes, np.int32)))
    result = {index: aspect for aspect, indices in groups.items() for index in indices}
    assert result == pytest.approx({0: 2 / 3, 1: 3 / 2, 2: 4 / 3, 3: 1, 4: 2, 5: 1 / 2, 6: 1})


@pytest.mark.parametrize("name", ["10crop", "vgg_dense1"])
def test_damaged_images_are_named_left_out_and_counted(name):
    rates, predictions, messages = judged(name, damaged=(2, 8), max_bad_share=0.25)
    assert rates.images == 7
    assert predictions.provenance["left_out"] == 2
    assert not {"image_2", "image_8"} & set(predictions.id)
    assert sum("image_2" in line for line in messages) == sum("image_8" in line for line in messages) == 1
    with pytest.raises(UserError, match=r"2 of the . records .* cannot be decoded"):
        judged(name, damaged=(2, 8), max_bad_share=0.15)


def test_dense_evaluation_of_a_system_without_maps_is_refused():
    class Pyramid(Linear):
        def class_map(self, params, stats, images):
            raise UserError("made is no convolutional network")

    one = protocol_evaluator.ProtocolEvaluator(protocols.parse("vgg_dense1"), Pyramid(), parallel.create("shard_map"))
    trained = state.TrainState(
        jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2, jnp.uint32)
    )
    with pytest.raises(UserError, match="no convolutional network"):
        one.predict(split(), trained, {})


@pytest.mark.parametrize(("name", "batch"), [("crop", 256), ("10crop", 256), ("googlenet144", 16), ("vgg_dense1", 80)])
def test_the_batch_size_falls_as_views_need_more_memory(name, batch):
    config = resolve_config({"data": {"image_size": 224}, "batch_size": 256})
    one = protocol_evaluator.ProtocolEvaluator(protocols.parse(name), Linear(config), parallel.create("shard_map"))
    assert one._batch_size(1.0) == batch


@pytest.mark.parametrize("devices", [1, 4])
def test_even_batches_pad_by_an_eighth_at_most(devices):
    for count in range(1, 700):
        size = protocol_evaluator.even_batch_size(count, 64 * devices, devices)
        assert size % devices == 0
        assert size <= 64 * devices
        n_batches = -(-count // size)
        assert n_batches == -(-count // (64 * devices))  # as few as with full batches
        assert n_batches * size <= 9 / 8 * count + n_batches * devices


class Watched(parallel.ShardMap):
    """A spread on one device that records the sizes of the batches that it scores."""

    def __init__(self):
        super().__init__(devices=jax.devices()[:1])
        self.scored = []

    def put_batch(self, batch):
        self.scored.append(len(batch["image"]))
        return super().put_batch(batch)


def test_a_short_batch_is_scored_without_padding():
    config = resolve_config({"data": {"image_size": 32, "threads": 1, "workers": 0}, "batch_size": 64})
    spread = Watched()
    trained = spread.put_state(
        state.TrainState(jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2, jnp.uint32))
    )
    one = protocol_evaluator.ProtocolEvaluator(protocols.parse("10crop"), Linear(config), spread)
    _, predictions = one.predict(split(), trained, {})
    assert spread.scored == [9]
    (expected,) = scores(protocols.parse("10crop"), [pixels(2)])
    np.testing.assert_allclose(predictions.logits[2], expected, atol=2e-3)  # stored as float16


@pytest.mark.parametrize(
    ("name", "counts", "sizes"),
    [
        ("10crop", (9, 9, 70, 64, 20, 3, 5), (9, 9, 36, 64, 20, 9, 9)),  # four programs and the full size
        ("10crop", (50_000, 10_000, 70), (64, 64, 36)),
        ("10crop", (3, 50_000), (3, 64)),
        ("crop", (3, 70), (64, 64)),
    ],
)
def test_many_splits_are_scored_by_few_programs(name, counts, sizes):
    config = resolve_config({"data": {"image_size": 32}, "batch_size": 64})
    one = protocol_evaluator.ProtocolEvaluator(protocols.parse(name), Linear(config), Watched())
    result = []
    for count in counts:
        result.append(one._fitting_batch_size(1.0, count))
        one._evaluators[1.0, result[-1]] = None  # pyright: ignore[reportArgumentType]  # only its size is read
    assert tuple(result) == sizes
