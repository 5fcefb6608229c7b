"""The stages of a channel are kept, resumed and never stale, and report damaged or too few images."""

import dataclasses
import json
import shutil
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import resolve_config
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError
from imagenet_repro.features import stage_key, stages
from imagenet_repro.features.encoding import quantisation
from imagenet_repro.features.stages import ChannelStages, StoppedError
from imagenet_repro.features.stored_codes import UNDECODABLE
from imagenet_repro.zoo import counting

IMAGES, SIZE, BATCH = 300, 24, 32
EVERY = {"images": 50, "descriptors": 200, "codes": IMAGES}


class Watcher:
    """A monitor that asks for a stop after a number of calls."""

    def __init__(self, looks=10**9):
        self.looks, self.said, self.shown = looks, [], []

    def say(self, text):
        self.said.append(text)

    def show(self, stage, done, total):
        self.shown.append((stage, done, total))

    def stopping(self):
        self.looks -= 1
        return self.looks < 0

    def flops(self, function, *shapes):
        return counting.flops(function, *shapes)


class Images(Sequence):
    """Images of noise of several strengths, encoded when they are read."""

    def __init__(self, bad=(), seed=0, count=IMAGES):
        self.bad, self.seed, self.count = bad, seed, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        import cv2

        rng = np.random.default_rng((self.seed, index))
        image = rng.integers(0, 40 + 40 * (index % 5), (SIZE, SIZE, 3)).astype(np.uint8)
        data = b"no image" if index in self.bad else cv2.imencode(".png", image)[1].tobytes()
        return Record(data, index % 5, f"train/{index}")


def split_of(records):
    return Split("noise", "train", "1.0.0", tuple("abcde"), len(records), records)


def config_of(max_bad_share=0.0, sample=None, **channel):
    settings = {
        "batch_size": BATCH,
        "data": {"image_size": SIZE, "threads": 1, "workers": 0, "max_bad_share": max_bad_share},
        "channels": {
            "a": {
                "patch": 12,
                "step": 6,
                "components": 4,
                "code": {"name": "fisher", "components": 2, "iterations": 2},
            }
            | channel
        },
        "sample": sample or {"images": 50, "descriptors": 200, "codes": 256},
    }
    return resolve_config(settings)


def run(directory, config=None, records=None, watcher=None):
    watcher = watcher or Watcher()
    return ChannelStages("a", config or config_of(), split_of(records or Images()), directory, watcher).run()


def everything(learned):
    return learned.codes.read(np.arange(learned.codes.images))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(directory)


def test_codes_of_all_images_are_those_of_the_quantised_encoder(finished):
    _, learned = finished
    stages_of_a = ChannelStages("a", config_of(), split_of(Images()), finished[0], Watcher()).encoder
    result, labels = everything(learned)
    np.testing.assert_array_equal(labels, np.arange(IMAGES) % 5)
    from imagenet_repro.data.decode import decode

    images = jnp.asarray(np.stack([decode(Images()[i].image) for i in range(64)]))
    expected = quantisation.encode(stages_of_a.encode(images, learned.vocabulary), learned.quantiser)
    assert np.mean(np.asarray(expected) == result[:64]) > 0.99  # where two centres are equally near, rounding decides


def test_finished_stages_are_not_repeated(finished):
    directory, learned = finished
    watcher = Watcher()
    again = run(directory, watcher=watcher)
    assert not watcher.shown
    assert again.costs == learned.costs
    assert learned.costs.keys() == {"sample", "vocabulary", "quantiser", "codes"}
    assert all(cost.flops > 0 and cost.seconds > 0 for cost in learned.costs.values())


@pytest.mark.parametrize("looks", [0, 1, 6, 12, 15])
def test_a_call_after_a_stop_continues_to_the_same_codes(finished, tmp_path, monkeypatch, looks):
    monkeypatch.setattr(stages, "COMMIT_SECONDS", 0.0)
    with pytest.raises(StoppedError):
        run(tmp_path, watcher=Watcher(looks))
    settled = sum(json.loads(path.read_text())["images"] for path in tmp_path.rglob("codes.json"))
    watcher = Watcher()
    learned = run(tmp_path, watcher=watcher)
    np.testing.assert_array_equal(everything(learned)[0], everything(finished[1])[0])
    coded = [done for stage, done, _ in watcher.shown if stage == "a: codes"]
    assert coded[0] == settled + BATCH


@pytest.mark.parametrize(
    ("change", "vocabulary_kept"),
    [
        ({"config": {"step": 4}}, False),
        ({"config": {"quantise": 4}}, True),
        ({"config": {"code": {"name": "fisher", "components": 3, "iterations": 2}}}, False),
        ({"records": {"seed": 1}}, False),
        ({"records": {"count": IMAGES - 1}}, False),
    ],
)
def test_stages_with_other_dependencies_are_learned_again(finished, tmp_path, change, vocabulary_kept):
    def names(directory):
        return {path.name for path in directory.iterdir()}

    run(tmp_path, config_of(**change.get("config", {})), Images(**change.get("records", {})))
    before, after = names(finished[0]), names(tmp_path)
    assert {name for name in before & after if ".codes." in name} == set()
    assert bool({name for name in before & after if ".vocabulary." in name}) == vocabulary_kept


def test_other_source_has_another_key(finished, monkeypatch):
    before = {path.name for path in finished[0].iterdir()}
    monkeypatch.setattr(stage_key, "source_hash", lambda: "of another commit")
    stages_of_a = ChannelStages("a", config_of(), split_of(Images()), finished[0], Watcher())
    assert stages_of_a._codes_directory.name not in before
    assert stages_of_a._vocabulary_directory.name not in before


def test_other_classes_have_another_key(finished):
    split = split_of(Images())
    renamed = dataclasses.replace(split, class_names=split.class_names[::-1])
    keys = {stage_key.stage_key(config_of(), one, config_of().channels["a"], codes=0) for one in (split, renamed)}
    assert len(keys) == 2


DAMAGE = {
    "cut short": lambda content: content[:100],
    "a flipped bit": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "a flipped bit of the costs": lambda content: content.replace(b"costs.npy", b"cosds.npy", 1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_vocabulary_is_learned_again(finished, tmp_path, damage):
    directory = shutil.copytree(finished[0], tmp_path / "copy")
    (path,) = directory.rglob("vocabulary.npz")
    path.write_bytes(damage(path.read_bytes()))
    watcher = Watcher()
    learned = run(directory, watcher=watcher)
    assert f"{path} is damaged and is computed again" in watcher.said
    for name, value in finished[1].vocabulary.items():
        np.testing.assert_array_equal(learned.vocabulary[name], value)


def test_damaged_progress_of_codes_is_said_and_the_codes_are_computed_again(finished, tmp_path):
    directory = shutil.copytree(finished[0], tmp_path / "copy")
    (path,) = directory.rglob("codes.json")
    path.write_text(path.read_text().replace("seconds", "secomds"))
    watcher = Watcher()
    learned = run(directory, watcher=watcher)
    assert f"a: {path} is damaged; the codes are computed again" in watcher.said
    np.testing.assert_array_equal(everything(learned)[0], everything(finished[1])[0])


def test_records_that_cannot_be_decoded_are_named_and_marked(tmp_path):
    watcher = Watcher()
    learned = run(tmp_path, config_of(max_bad_share=0.02, sample=EVERY), Images(bad=(7, 11)), watcher)
    _, labels = everything(learned)
    np.testing.assert_array_equal(np.flatnonzero(labels == UNDECODABLE), [7, 11])
    assert sum("train/7" in line for line in watcher.said) == 1
    with pytest.raises(UserError, match=r"2 of the 300 records .* cannot be decoded"):
        run(tmp_path / "strict", config_of(sample=EVERY), Images(bad=(7, 11)))
    with pytest.raises(UserError, match=r"need as many images, .* provides 255"):
        run(tmp_path / "few", config_of(max_bad_share=0.02), Images(bad=(7,), count=256))


def test_codes_without_quantisation_are_float16(tmp_path):
    learned = run(tmp_path, config_of(quantise=0))
    result, _ = everything(learned)
    assert learned.quantiser is None
    assert result.dtype == np.float16
    assert result.shape == (IMAGES, 16)


def test_too_few_images_for_the_centres_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"config.channels.a.quantise: the 256 centres .* provides 100; raise config"):
        run(tmp_path, records=Images(count=100))


def test_more_gaussians_than_descriptors_are_refused(tmp_path):
    code = {"name": "fisher", "components": 500, "iterations": 2}
    with pytest.raises(UserError, match="500 clusters of 200 descriptors"):
        run(tmp_path, config_of(code=code))


def test_a_directory_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*config.cache_dir"):
        run(tmp_path / "file")


def test_devices_share_the_work(finished):
    assert jax.device_count() == 8  # and the tests above passed on them


def test_one_class_and_classes_of_one_image_have_codes(tmp_path):
    records = Images(count=256)
    one = dataclasses.replace(split_of(records), class_names=("only",))
    learned = ChannelStages("a", config_of(), one, tmp_path, Watcher()).run()
    assert learned.codes.is_complete
