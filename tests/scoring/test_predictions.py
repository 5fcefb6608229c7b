import dataclasses
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.scoring import metrics, predictions
from imagenet_repro.scoring.predictions import Collector, Predictions


def make(images=20, classes=12, seed=0, prefix="image"):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    return Predictions(
        id=np.array([f"{prefix}_{i:04d}.JPEG" for i in range(images)]),
        label=rng.integers(0, classes, images).astype(np.int32),
        top5=np.asarray(metrics.top5(jnp.asarray(logits))),
        logits=predictions.to_float16(logits),
        provenance={"seed": seed, "model": "résnet", "config": {"budget": "1ep"}},
    )


def part(complete, rows):
    return Predictions(
        *(getattr(complete, name)[rows] for name in ("id", "label", "top5", "logits")), complete.provenance
    )


def assert_same(a, b):
    for name in ("id", "label", "top5", "logits"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype.kind == getattr(b, name).dtype.kind
    assert a.provenance == b.provenance


def test_saved_predictions_are_loaded_unchanged(tmp_path):
    complete = make()
    predictions.save(tmp_path / "new/folder/predictions.npz", complete)
    assert_same(predictions.load(tmp_path / "new/folder/predictions.npz"), complete)
    assert [p.name for p in (tmp_path / "new/folder").iterdir()] == ["predictions.npz"]


def test_numpy_alone_opens_the_documented_form(tmp_path):
    complete = make(classes=3)
    predictions.save(tmp_path / "p.npz", complete)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        assert sorted(file) == ["id", "label", "logits", "provenance", "top5"]
        assert (file["label"].dtype, file["top5"].dtype, file["logits"].dtype) == ("int32", "int32", "float16")
        assert file["top5"].shape == (20, 3)
        assert json.loads(str(file["provenance"])) == complete.provenance


def test_error_rates_from_the_file_are_the_counts_of_the_metric():
    rng = np.random.default_rng(1)
    # These scores are equal in float16; only the stored guesses have the order of float32.
    logits = (10 + rng.normal(size=(500, 12)) * 1e-3).astype(np.float32)
    labels = rng.integers(0, 12, 500).astype(np.int32)
    counts = metrics.correct_counts(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(500, jnp.float32))
    top5, half = np.asarray(metrics.top5(jnp.asarray(logits))), predictions.to_float16(logits)
    stored = Predictions(np.arange(500).astype(np.str_), labels, top5, half)
    assert stored.error_rates() == pytest.approx(metrics.ErrorRates.from_counts(counts), nan_ok=True)
    of_half = metrics.correct_counts(jnp.asarray(half, jnp.float32), jnp.asarray(labels), jnp.ones(500, jnp.float32))
    assert int(of_half["top1_correct"]) != int(counts["top1_correct"])


def test_images_without_labels_have_no_error_rate():
    complete = make()
    with pytest.raises(UserError, match="without labels"):
        Predictions(complete.id, np.full(20, -1, np.int32), complete.top5, complete.logits).error_rates()


def test_scores_beyond_float16_are_clipped_and_special_values_preserved():
    logits = np.array([[1e6, -1e6, 65519, 65535, np.inf, -np.inf, np.nan, 0.1]], np.float32)
    with np.errstate(all="raise"):
        half = predictions.to_float16(logits)[0].astype(np.float64)
    np.testing.assert_array_equal(half[:7], [65504, -65504, 65504, 65504, np.inf, -np.inf, np.nan])
    assert half[7] == pytest.approx(0.1, rel=2**-11)


def test_the_collector_drops_padding_and_keeps_the_order():
    complete = make(images=10)
    collector = Collector()
    for start in range(0, 10, 4):
        rows = part(complete, slice(start, start + 4))
        missing = 4 - len(rows)
        ids = [*rows.id.tolist(), *[""] * missing]
        columns = [np.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1)) for x in (rows.label, rows.top5, rows.logits)]
        collector.add(ids, *columns, np.array([1] * len(rows) + [0] * missing, np.float32))
    assert_same(collector.predictions(complete.provenance), complete)


def test_a_collector_of_nothing_but_padding_is_an_error():
    collector = Collector()
    with pytest.raises(UserError, match="no image was predicted"):
        collector.predictions({})
    collector.add([""], np.zeros(1, int), np.zeros((1, 2), int), np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(UserError, match="no image was predicted"):
        collector.predictions({})


@pytest.mark.parametrize("hosts", [1, 2, 3, 7])
def test_any_number_of_shares_merges_to_the_same(hosts):
    complete = make()
    shares = [part(complete, slice(host, None, hosts)) for host in range(hosts)]
    assert_same(predictions.merge(shares), complete)  # ids happen to be sorted
    order = np.random.default_rng(0).permutation(20)
    assert_same(predictions.merge(shares, ids=complete.id[order].tolist()), part(complete, order))


def test_merging_names_the_ids_that_are_twice_missing_or_unknown():
    complete = make()
    with pytest.raises(UserError, match=r"more than once: image_0003.JPEG, image_0004.JPEG$"):
        predictions.merge([part(complete, slice(0, 5)), part(complete, slice(3, 20))])
    with pytest.raises(UserError, match=r"15 images have no prediction: .* and 12 more"):
        predictions.merge([part(complete, slice(0, 5))], ids=complete.id.tolist())
    with pytest.raises(UserError, match="1 predictions are of images outside the split: image_0019"):
        predictions.merge([complete], ids=complete.id[:-1].tolist())
    with pytest.raises(UserError, match=r"different numbers of classes: \[12, 13\]"):
        predictions.merge([complete, make(classes=13, prefix="other")])


def test_a_full_disk_is_an_error_and_leaves_the_older_file(tmp_path):
    path = tmp_path / "p.npz"
    old, new = make(seed=1), make(images=400, seed=2)
    predictions.save(path, old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(SaveError, match="could not write predictions"):
            predictions.save(path, new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(predictions.load(path), old)
    assert [p.name for p in tmp_path.iterdir()] == ["p.npz"]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"file/p\.npz"):
        predictions.save(tmp_path / "file/p.npz", make())


def test_duplicate_ids_are_never_saved(tmp_path):
    with pytest.raises(UserError, match="more than once: image_0002"):
        predictions.save(tmp_path / "p.npz", part(make(), [0, 1, 2, 2]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "p.npz"
    predictions.save(path, make())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"p\.npz is truncated, damaged or not"):
        predictions.load(path)


def test_a_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "p.npz"
    predictions.save(path, make())
    content = bytearray(path.read_bytes())
    content[content.index(make().logits.tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        predictions.load(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        predictions.load(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="could not read"):
        predictions.load(tmp_path)
    (tmp_path / "text.npz").write_text("1 2 3\n")
    with pytest.raises(UserError, match=r"not an \.npz archive"):
        predictions.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", id=np.array(["a"]), label=np.zeros(1, int))
    with pytest.raises(UserError, match="lacks top5, logits, provenance"):
        predictions.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros(19, np.int32)}, "different numbers of images"),
        ({"label": np.zeros(20, np.float32)}, "'label' is float32"),
        ({"logits": np.zeros((20, 12), np.float32)}, "'logits' is float32"),
        ({"logits": np.zeros((20,), np.float16)}, "'logits' is float16 of shape"),
        ({"top5": np.zeros((20, 4), np.int32)}, "'top5' has 4 columns for 12 classes"),
        ({"top5": np.full((20, 5), 12, np.int32)}, "'top5' runs from 12 to 12"),
        ({"label": np.full(20, -2, np.int32)}, "'label' runs from -2"),
        ({"id": np.arange(20)}, "'id' is int64"),
        ({"id": np.array(["same"] * 20)}, "more than once: same"),
        ({"id": np.array([object()] * 20)}, "not an .npz archive"),
        ({"provenance": np.array("{")}, "not JSON"),
        ({"provenance": np.array("[1]")}, "not a JSON object"),
    ],
)
def test_a_wrong_member_is_named(tmp_path, change, message):
    complete = make()
    members = {name: getattr(complete, name) for name in ("id", "label", "top5", "logits")}
    np.savez(tmp_path / "p.npz", **(members | {"provenance": np.array("{}")} | change))
    with pytest.raises(UserError, match=message):
        predictions.load(tmp_path / "p.npz")


def test_a_file_without_images_is_refused(tmp_path):
    empty = part(make(), slice(0, 0))
    np.savez(tmp_path / "p.npz", **{k: getattr(empty, k) for k in ("id", "label", "top5", "logits")}, provenance="{}")
    with pytest.raises(UserError, match="holds no image"):
        predictions.load(tmp_path / "p.npz")


def test_guesses_are_those_of_the_file_ordered_by_id(tmp_path):
    complete = make()
    order = np.random.default_rng(0).permutation(20)
    predictions.save(tmp_path / "p.npz", part(complete, order))
    result = predictions.load_guesses(tmp_path / "p.npz")
    assert set(result) == {"id", "label", "top5"}
    for key, array in result.items():
        np.testing.assert_array_equal(array, getattr(complete, key))  # the ids are already sorted
        assert array.dtype == getattr(complete, key).dtype


def test_guesses_are_read_without_decoding_the_scores(tmp_path):
    path = tmp_path / "p.npz"
    predictions.save(path, make())
    content = bytearray(path.read_bytes())
    content[content.index(make().logits.tobytes())] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(predictions.load_guesses(path)["top5"], make().top5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros(19, np.int32)}, "different numbers of images"),
        ({"label": np.zeros(20, np.float32)}, "'label' is float32"),
        ({"label": np.full(20, -1, np.int32)}, "there are images without labels"),
        ({"label": np.array([0] * 19 + [-1], np.int32)}, "there are images without labels"),
        ({"top5": np.zeros(20, np.int32)}, "'top5' is int32 of shape"),
        ({"id": np.arange(20)}, "'id' is int64"),
        ({"id": np.array(["same"] * 20)}, "more than once: same"),
        ({"id": np.array([], str), "label": np.zeros(0, int), "top5": np.zeros((0, 5), int)}, "holds no image"),
    ],
)
def test_guesses_of_a_wrong_form_are_named(tmp_path, change, message):
    members = {name: getattr(make(), name) for name in ("id", "label", "top5", "logits")}
    np.savez(tmp_path / "p.npz", **(members | change))
    with pytest.raises(UserError, match=message):
        predictions.load_guesses(tmp_path / "p.npz")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_guesses_of_a_truncated_file_are_refused(tmp_path, share):
    path = tmp_path / "p.npz"
    predictions.save(path, make())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"p\.npz is truncated, damaged or not"):
        predictions.load_guesses(path)


def test_guesses_of_a_missing_file_are_reported(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        predictions.load_guesses(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", id=np.array(["a"]))
    with pytest.raises(UserError, match="lacks label, top5"):
        predictions.load_guesses(tmp_path / "other.npz")


# --- classes and data sets --------------------------------------------------------------------------------------

NAMES = tuple("abcdefghijkl")


def reordered(one, order):
    """Return the same predictions as a system would store them whose class i is class `order[i]` here."""
    place = np.argsort(order)
    label, top5 = (np.where(part < 0, part, place[part]).astype(np.int32) for part in (one.label, one.top5))
    names = [NAMES[number] for number in order]
    return Predictions(one.id, label, top5, one.logits[:, order], one.provenance | {"classes": names})


@pytest.mark.parametrize("seed", range(3))
def test_classes_in_another_order_are_aligned_by_name(seed):
    first = dataclasses.replace(make(), provenance={"classes": list(NAMES)})
    other = reordered(make(), np.random.default_rng(seed).permutation(12))
    other.label[3] = other.top5[5, 2] = -1
    notes = []
    aligned = predictions.align_classes(first, "first", other, "other", notes.append)
    assert (aligned.label[3], aligned.top5[5, 2]) == (-1, -1)
    aligned.label[3], aligned.top5[5, 2] = first.label[3], first.top5[5, 2]
    assert_same(dataclasses.replace(aligned, provenance=first.provenance), first)
    assert aligned.provenance["classes"] == list(NAMES)
    assert notes[0].startswith("other has the classes of first in another order: index ")


def test_other_classes_are_never_aligned():
    first, other = (dataclasses.replace(make(), provenance={"classes": [*"abcdefghijk", name]}) for name in "lm")
    with pytest.raises(
        UserError, match="other and first do not have the same classes: only other has 'm'; only first"
    ):
        predictions.align(first, "first", other, "other")


def test_classes_without_names_are_aligned_by_number_and_said(capsys):
    named = dataclasses.replace(make(), provenance={"classes": list(NAMES)})
    assert predictions.align(named, "first", make(), "other").provenance == make().provenance
    assert capsys.readouterr().out == (
        "other and first have 12 classes each; whether these are the same, in the same order, was not checked: other"
        " has no names for its classes\n"
    )


@pytest.mark.parametrize(
    ("ids", "other_data", "is_other"),
    [
        ("cat/{}.jpg", "pets", True),
        ("validation/{}", "pets", True),
        ("cat/{}.jpg", "photos_side64_q90:1.2.0", False),
        ("cat/{}.jpg", "photos/small", False),
        ("cat/{}.jpg", "", False),
        ("ILSVRC2012_val_{:08d}.JPEG", "imagenet2012_real", False),
    ],
)
def test_equal_names_of_images_in_two_data_sets_are_not_the_same_images(ids, other_data, is_other):
    first, other = (
        dataclasses.replace(
            make(),
            id=np.array([ids.format(number) for number in range(20)]),
            provenance={"classes": list(NAMES), "config": {"data": {"name": data}}},
        )
        for data in ("photos", other_data)
    )
    assert predictions.are_of_other_data(first.id, first.provenance, other.provenance) == is_other
    if is_other:
        predictions.check_disjoint(first, other, "weights are found")
        with pytest.raises(
            UserError, match="first and other are of the data sets photos and pets: names of images suc"
        ):
            predictions.align(first, "first", other, "other")
    else:
        predictions.align(first, "first", other, "other")
        with pytest.raises(UserError, match="20 of the scored images are among those"):
            predictions.check_disjoint(first, other, "weights are found")
