"""Tests of evaluation sets: opened, evaluated and scored from data sets in the form of tfds' builders.

The system under test reads the number of each image from its colour."""

import dataclasses
import io
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from rich.console import Console

import main
from imagenet_repro.config import CenterCrop, Data, config_to_dict, replace_keys, resolve_config
from imagenet_repro.data import sources
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.errors import UserError
from imagenet_repro.inference import evaluation_sets, evaluator
from imagenet_repro.scoring import corruptions, sets
from imagenet_repro.scoring.predictions import save
from imagenet_repro.training import parallel, state
from tests.scoring import synthetic_sets
from tests.scoring.synthetic_sets import CLASSES, guesses, predictions

A_CLASSES = (6, 11, 13, 15, 17, 22, 23, 27)
FAVOURITE = 500  # the class with the highest score, which no image has
IMAGES = 21  # not a multiple of the batch size


def validation_id(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def expert(label, i):
    """Return expert labels of an image: every fourth image is problematic, every second one has an unclear label."""
    return {
        "original_label": label,
        "correct_multi_labels": [label],
        "wrong_multi_labels": [1, 2],
        "unclear_multi_labels": [(label + 2) % CLASSES] if i % 2 else [],
        "is_problematic": i % 4 == 0,
    }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    rows = [(f"{i:02d}.jpg", A_CLASSES[i % 8 if i % 3 else 0], {"label": A_CLASSES[i % 8]}) for i in range(IMAGES)]
    synthetic_sets.write(directory, "imagenet_a", "test", rows)
    labels = rng.integers(0, CLASSES, 30)
    real = [
        (
            validation_id(i + 1),
            int(label),
            {"original_label": int(label), "real_label": [] if i % 5 == 0 else [int(label), (int(label) + 1) % 1000]},
        )
        for i, label in enumerate(labels)
    ]
    synthetic_sets.write(
        directory, "imagenet2012_real", "validation", real, labels=("original_label",), several=("real_label",)
    )
    several = ("correct_multi_labels", "wrong_multi_labels", "unclear_multi_labels")
    multi = [(name, 0, expert(one["original_label"], i)) for i, (name, _, one) in enumerate(real)]
    synthetic_sets.write(
        directory,
        "imagenet2012_multilabel",
        "validation",
        multi,
        labels=("original_label",),
        several=several,
        flags=("is_problematic",),
    )
    return str(directory)


@pytest.fixture
def objectnet(tmp_path):
    """Write the unpacked download: three chairs, which are a class of ImageNet, and a spoon, which is not."""
    download = tmp_path / "objectnet-1.0"
    texts = {
        "folder_to_objectnet_label.json": json.dumps({"chair": "Chair", "spoon": "Spoon"}),
        "objectnet_to_imagenet_1k.json": json.dumps({"Chair": "folding chair; rocking chair"}),
        "pytorch_to_imagenet_2012_id.json": json.dumps({"559": 0, "765": 1}),
        "imagenet_to_label_2012_v2": "folding chair\nrocking chair\n",
    }
    (download / "mappings").mkdir(parents=True)
    for name, text in texts.items():
        (download / "mappings" / name).write_text(text)
    for i, (folder, number) in enumerate([("chair", 559)] * 3 + [("spoon", 1)]):
        (download / "images" / folder).mkdir(parents=True, exist_ok=True)
        (download / "images" / folder / f"{i}.png").write_bytes(synthetic_sets.picture(number))
    return download


def of_numbers(params, stats, images):
    """Return the scores of a system that reads the number in an image's colour and always scores one class higher."""
    middle = images[:, 4, 4].astype(jnp.int32)
    number = middle[:, 0] + 256 * middle[:, 1]
    scores = 3.0 * (jnp.arange(CLASSES) == number[:, None])
    return scores.at[:, FAVOURITE].set(5.0)


def configuration(data_dir, chosen, **data):
    base = resolve_config(
        {
            "batch_size": 8,
            "parallel": "shard_map",
            "precision": "float32",
            "data": {"data_dir": data_dir, "image_size": 8, "workers": 0, "threads": 1},
        }
    )
    return evaluation_sets.configure_for_set(
        replace_keys(base, {f"data.{k}": v for k, v in data.items()}), chosen, data
    )


def evaluated(config, evaluation_set):
    spread = parallel.create("shard_map", deterministic=True)
    part = evaluation_set.parts[0]
    on_split = evaluator.Evaluator(config, evaluation_set.score(of_numbers), spread, part.split)
    first = spread.put_state(state.create({}, {}, optax.identity(), ema=False, seed=0))
    return on_split.on(part.split, part.config.data, lambda images: None).predict(
        first, {"config": config_to_dict(part.config)}
    )


def test_guesses_on_a_are_among_its_classes_and_no_remainder_is_dropped(data_dir):
    config = configuration(data_dir, "a")
    evaluation_set = evaluation_sets.open_set(config, "a")
    assert np.flatnonzero(evaluation_set.scored).tolist() == sorted(A_CLASSES)
    rates, stored_predictions = evaluated(config, evaluation_set)
    right = sum(A_CLASSES[i % 8 if i % 3 else 0] == A_CLASSES[i % 8] for i in range(IMAGES))
    assert (rates.images, rates.top1_wrong) == (IMAGES, IMAGES - right)
    assert np.isfinite(rates.cross_entropy)
    assert set(np.unique(stored_predictions.top5)) <= set(A_CLASSES)
    assert np.isneginf(stored_predictions.logits[:, FAVOURITE]).all()
    assert stored_predictions.provenance["classes"] == list(sets.imagenet_wnids())
    unmasked, _ = evaluated(config, dataclasses.replace(evaluation_set, scored=None))
    assert unmasked.top1_wrong == IMAGES
    lines = evaluation_sets.describe_predictions(evaluation_set, stored_predictions)
    assert f"ImageNet-A: top-1 error {100 * (1 - right / IMAGES):.1f} %" in lines[0]
    assert any(
        "21 images instead of the 7,500 of the official set, 8 classes instead of 200" in line for line in lines
    )
    assert any(line.startswith("hierarchical cost (challenge of 2010): ") for line in lines)
    assert not any("a person" in line for line in lines)


def test_stored_predictions_of_a_are_masked_when_they_are_scored(data_dir, tmp_path, capsys):
    labels = [A_CLASSES[i % 8] for i in range(16)]
    top5 = np.array([[FAVOURITE, label, 1, 2, 3] for label in labels])
    save(tmp_path / "a.npz", predictions([f"{i}.jpg" for i in range(16)], labels, top5, data="imagenet_a"))
    evaluation_sets.score_stored(str(tmp_path / "a.npz"), "a")
    assert "ImageNet-A: top-1 error 0.0 %" in capsys.readouterr().out


def test_labels_of_other_people_come_from_their_data_sets(data_dir, tmp_path, capsys):
    data = Data(name="imagenet2012_real", data_dir=data_dir)
    result = sources.integers(data, "validation", sets.find_set("real").keys)
    assert len(result) == 30
    assert result[validation_id(6)]["real_label"] == ()
    label = result[validation_id(2)]["original_label"][0]
    assert result[validation_id(2)]["real_label"] == (label, (label + 1) % 1000)
    ids, labels = list(result), np.array([one["original_label"][0] for one in result.values()])
    top5 = guesses((labels + 1) % 1000, np.random.default_rng(1))
    save(tmp_path / "p.npz", predictions(ids, labels, top5, data="imagenet2012"))
    evaluation_sets.score_stored(str(tmp_path / "p.npz"), "real", data_dir=data_dir)
    printed = capsys.readouterr().out
    assert "ImageNet ReaL: top-1 error 0.0 %" in printed
    assert "(0 of 24 images wrong, 6 left out)" in printed
    assert "24 images instead of the 46,837 of the official set" in printed
    evaluation_sets.score_stored(str(tmp_path / "p.npz"), "multilabel", data_dir=data_dir)
    printed = capsys.readouterr().out
    assert "ImageNet multi-label: top-1 error 100.0 %" in printed
    assert "mean over" in printed
    assert "8 left out" in printed
    evaluation_sets.score_stored(str(tmp_path / "p.npz"), "imagenet", data_dir=data_dir)
    printed = capsys.readouterr().out
    assert "ImageNet validation: top-1 error 100.0 %" in printed
    assert "a person, after 500 images of practice: top-5 error 5.1 %, 95 % interval [4.1, 6.3]" in printed
    assert "a second person" in printed


def test_real_is_evaluated_with_the_challenges_label_beside_its_lists(data_dir):
    config = configuration(data_dir, "real")
    evaluation_set = evaluation_sets.open_set(config, "real")
    _, stored_predictions = evaluated(config, evaluation_set)
    assert len(stored_predictions) == 30
    (line, *_) = evaluation_sets.describe_predictions(evaluation_set, stored_predictions)
    assert line.startswith("ImageNet ReaL: top-1 error 100.0 %")  # the favourite class is in no list
    assert "6 left out" in line


def test_a_data_set_without_the_lists_is_an_error(data_dir):
    with pytest.raises(UserError, match="'imagenet_a' has no real_label"):
        sources.integers(Data(name="imagenet_a", data_dir=data_dir), "test", ("real_label",))


def test_objectnet_takes_its_labels_from_folders(objectnet, tmp_path, capsys):
    config, mappings = configuration(str(tmp_path), "objectnet"), str(objectnet / "mappings")
    with pytest.raises(UserError, match=r"prepare folder:objectnet-1\.0 --name=objectnet"):
        evaluation_sets.open_set(config, "objectnet", mappings)
    prepare_dataset(f"folder:{objectnet}", data_dir=str(tmp_path), as_name="objectnet")
    evaluation_set = evaluation_sets.open_set(config, "objectnet", mappings)
    record = evaluation_set.parts[0].split.records[0]
    assert (record.label, Image.open(io.BytesIO(record.image)).size) == (-1, (10, 8))
    _, stored_predictions = evaluated(config, evaluation_set)
    top1, top5, *_ = evaluation_sets.describe_predictions(evaluation_set, stored_predictions)
    assert "top-1 error 100.0 %" in top1
    assert "(0 of 3 images wrong, 1 left out)" in top5
    save(tmp_path / "p.npz", stored_predictions)
    evaluation_sets.score_stored(str(tmp_path / "p.npz"), "objectnet", mappings=mappings)
    assert top5 in capsys.readouterr().out


def test_cues_are_read_from_the_names_of_images(tmp_path, capsys):
    wnids = sets.imagenet_wnids()
    config = configuration(str(tmp_path), "cue_conflict")
    with pytest.raises(UserError, match="texture-vs-shape/stimuli"):
        evaluation_sets.open_set(config, "cue_conflict")
    stimuli = {"cat/cat1-dog1.png": "n02123045", "cat/cat2-dog1.png": "n02085782", "dog/dog1-dog2.png": "n02085782"}
    for name, wnid in stimuli.items():
        (tmp_path / "stimuli" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stimuli" / name).write_bytes(synthetic_sets.picture(wnids.index(wnid)))
    folder = f"folder:{tmp_path / 'stimuli'}"
    prepare_dataset(folder, data_dir=str(tmp_path), as_name="cue_conflict", holdout="0%")
    evaluation_set = evaluation_sets.open_set(config, "cue_conflict")
    assert evaluation_set.parts[0].split.records[0].label == -1
    of_images = dataclasses.replace(evaluation_set, scored=np.arange(CLASSES) != FAVOURITE)
    _, stored_predictions = evaluated(config, of_images)
    lines = evaluation_sets.describe_predictions(evaluation_set, stored_predictions)
    assert lines[0].startswith("Cue conflict: shape bias 50.0 %")
    assert "(1 by shape, 1 by texture, 0 by neither, of 2 images" in lines[0]
    save(tmp_path / "p.npz", stored_predictions)
    evaluation_sets.score_stored(str(tmp_path / "p.npz"), "cue_conflict")
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines


def test_all_parts_of_c_from_stored_predictions(tmp_path, capsys):
    ids = [validation_id(i + 1) for i in range(8)]
    for number, name in enumerate(corruptions.CONFIGS):
        labels = np.arange(8)
        best = np.where(
            labels < number % 5, labels + 1, labels
        )  # the number of wrong images is the severity minus one
        one = predictions(ids, labels, guesses(best, np.random.default_rng(0)), data=f"imagenet2012_corrupted/{name}")
        save(tmp_path / f"{name}.npz", one)
    save(tmp_path / "other.npz", predictions(ids, range(8), [range(5)] * 8, data="imagenet2012"))
    evaluation_sets.score_stored(str(tmp_path), "c")
    printed = capsys.readouterr().out
    expected = np.mean([0.25 / alexnet for alexnet in corruptions.ALEXNET.values()])
    assert f"ImageNet-C: mCE {100 * expected:.1f} %" in printed
    assert "mean top-1 error 25.0 %" in printed
    assert "jpeg compression" in printed
    last = tmp_path / f"{corruptions.CONFIGS[-1]}.npz"
    save(last, dataclasses.replace(one, provenance=one.provenance | {"step": 9}))
    with pytest.raises(UserError, match=r"brightness_1\.npz and .*_5\.npz are of different models; keep"):
        evaluation_sets.score_stored(str(tmp_path), "c")
    save(last, one)
    save(tmp_path / "again.npz", one)
    with pytest.raises(UserError, match="are both for jpeg_compression_5"):
        evaluation_sets.score_stored(str(tmp_path), "c")
    with pytest.raises(UserError, match="needs a directory"):
        evaluation_sets.score_stored(str(tmp_path / "again.npz"), "c")


def test_images_of_c_are_neither_resized_nor_cropped(data_dir):
    config = configuration(data_dir, "c", image_size="224")
    assert config.eval_crop == CenterCrop(ratio=1.0)
    with pytest.raises(UserError, match=r"(?s)75 of the 75 parts of ImageNet-C.*prepare imagenet2012_corrupted/gaus"):
        evaluation_sets.open_set(config, "c")
    rng = np.random.default_rng(0)
    wrong = {
        one: corruptions.CorruptedErrors(np.array(["a", "b", "c"]), rng.random(3) < 0.5) for one in corruptions.CONFIGS
    }
    result = corruptions.score_corruptions(wrong)
    larger = replace_keys(config, {"data.eval_image_size": "299"})
    assert not any("resized" in line for line in evaluation_sets.describe_corruptions(result, config))
    assert "resized to 299 px" in evaluation_sets.describe_corruptions(result, larger)[-1]


@pytest.mark.parametrize(
    ("name", "data", "mappings", "message"),
    [
        ("objectnet", {}, "", "--set=objectnet needs --mappings"),
        ("a", {}, "m", "--mappings belongs to --set=objectnet"),
        ("a", {"eval_split": "test[:9]"}, "", "--data.eval_split does not go with --set=a"),
        ("c", {"name": "mine"}, "", "--data.name does not go with --set=c"),
        ("w2", {}, "", "no such set; did you mean 'v2'"),
    ],
)
def test_contradictory_options_are_refused(name, data, mappings, message):
    with pytest.raises(UserError, match=message):
        evaluation_sets.check_options(name, data, mappings)


def test_a_smaller_copy_stands_for_a_set(data_dir):
    assert configuration(data_dir, "r", name="imagenet_r_side64_q90").data.name == "imagenet_r_side64_q90"
    assert configuration(data_dir, "v2").data == dataclasses.replace(
        configuration(data_dir, "r").data, name="imagenet_v2/matched-frequency"
    )


def test_unsuitable_stored_predictions_are_refused(tmp_path):
    with pytest.raises(UserError, match="--set=v2 needs a file of `evaluate`"):
        evaluation_sets.score_stored("guesses.txt", "v2")
    save(tmp_path / "p.npz", predictions(["a"], [0], [range(5)], classes=100, names=False))
    with pytest.raises(UserError, match="does not have ImageNet's 1,000 classes: it has 100 classes"):
        evaluation_sets.score_stored(str(tmp_path / "p.npz"), "v2")


def test_sentences_stay_in_one_line():
    console = Console(file=io.StringIO(), width=40)
    evaluation_sets.print_lines(["a [b] " * 20], console)
    assert console.file.getvalue() == "a [b] " * 20 + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=v2", "--guesses=3"], "--guesses do not go with --set"),
        (["--set=real", "--real=real.json"], "--labels, --real and"),
        (["--set=w2"], "no such set; did you mean 'v2'"),
        (["--mappings=m"], "--mappings and --data_dir belong to --set"),
    ],
)
def test_options_of_score_that_would_be_ignored_are_refused(arguments, message, capsys):
    assert main.main(["score", "--predictions=p.npz", *arguments]) == 2
    assert message in capsys.readouterr().err
