"""Loading weights into a model with other classes, positions or heads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from imagenet_repro import models, pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Origin, Preprocessing
from imagenet_repro.pretrained import Weights, tensors
from imagenet_repro.scoring import sets, wordnet


def weights(name, num_classes, seed=0, **options):
    """Return random weights as if read from a file."""
    shapes = tensors.shapes(models.abstract(name, num_classes, **options))
    rng = np.random.default_rng(seed)
    return Weights(Path("file"), {n: rng.random(shape, np.float32) for n, shape in shapes.items()})


def create(name, num_classes, **options):
    """Return a network with other weights than the file, without compiling an initialisation."""
    own = weights(name, num_classes, seed=1, **options)
    return pretrained.load_torch(models.abstract(name, num_classes, **options), own.tensors)


def assert_loaded(model, given, but=()):
    result = pretrained.to_torch(model)
    for name, array in result.items():
        if name not in but:
            np.testing.assert_array_equal(array, given.tensors[name], err_msg=name)


@pytest.mark.parametrize(
    ("name", "heads", "options"),
    [
        ("resnet18", ["fc.bias", "fc.weight"], {}),
        ("inception_v3", ["AuxLogits.fc.bias", "AuxLogits.fc.weight", "fc.bias", "fc.weight"], {}),
        (
            "deit_small_distilled_patch16",
            ["head.bias", "head.weight", "head_dist.bias", "head_dist.weight"],
            {"depth": 1},
        ),
    ],
)
def test_all_heads_keep_initial_values_where_the_classes_differ(name, heads, options):
    model = create(name, 10, **options)
    before = pretrained.to_torch(model, heads)
    given = weights(name, 12, **options)
    report = pretrained.load(model, given)
    assert list(report.replaced) == heads
    assert any("has 12 classes and the model 10" in note for note in report.notes)
    assert_loaded(model, given, but=heads)
    for head, array in pretrained.to_torch(model, heads).items():
        np.testing.assert_array_equal(array, before[head])


def test_a_file_without_a_head_keeps_the_models_head():
    model = create("resnet18", 10)
    report = pretrained.load(model, weights("resnet18", 0))
    assert report.replaced == ("fc.bias", "fc.weight")
    assert any("has no head" in note for note in report.notes)


def test_half_a_head_is_a_missing_tensor():
    given = weights("resnet18", 10)
    del given.tensors["fc.weight"]
    with pytest.raises(UserError, match=r"^file: the weights lack the tensor 'fc\.weight'"):
        pretrained.load(create("resnet18", 10), given)


def test_a_model_without_a_head_leaves_out_the_files_head():
    model = create("resnet18", 0)
    given = weights("resnet18", 7)
    report = pretrained.load(model, given)
    assert set(report.left_out) == {"fc.weight", "fc.bias"}
    assert_loaded(model, given)


def test_an_abstract_model_loads_a_complete_file_but_keeps_no_head():
    pretrained.load(models.abstract("resnet18", 10), weights("resnet18", 10))
    with pytest.raises(UserError, match=r"make it with models\.create"):
        pretrained.load(models.abstract("resnet18", 10), weights("resnet18", 12))


def test_the_background_class_is_dropped_only_on_request():
    given = weights("resnet18", 11)
    model = create("resnet18", 10)
    report = pretrained.load(model, given, drop_background=True)
    head = pretrained.to_torch(model, ["fc.weight", "fc.bias"])
    np.testing.assert_array_equal(head["fc.weight"], given.tensors["fc.weight"][1:])
    np.testing.assert_array_equal(head["fc.bias"], given.tensors["fc.bias"][1:])
    assert not report.replaced
    assert pretrained.load(model, given).replaced == ("fc.bias", "fc.weight")
    with pytest.raises(UserError, match=r"one class more than the model's 10; the shape of its 'fc\.\w+' is \(10"):
        pretrained.load(model, weights("resnet18", 10), drop_background=True)


@pytest.mark.parametrize("scalar", ["fc.weight", "fc.bias"])
def test_a_scalar_head_is_refused(scalar):
    given = weights("resnet18", 12)
    given.tensors[scalar] = np.array(1, np.float32)
    with pytest.raises(UserError, match=r"tensor 'fc\.\w+' has the shape"):
        pretrained.load(create("resnet18", 10), given)


def test_auxiliary_heads_of_a_file_are_left_out_and_missing_ones_reported():
    model = create("googlenet_bn", 10, auxiliary=False)
    given = weights("googlenet_bn", 10)
    report = pretrained.load(model, given)
    assert report.left_out
    assert all(name.startswith("aux") for name in report.left_out)
    assert_loaded(model, given)
    with pytest.raises(UserError, match=r"file has no auxiliary heads .* auxiliary=False"):
        pretrained.load(create("googlenet_bn", 10), weights("googlenet_bn", 10, auxiliary=False))


def test_positions_of_another_grid_are_interpolated():
    model = create("vit_tiny_patch16", 10, depth=1, image_size=48)
    given = weights("vit_tiny_patch16", 10, depth=1, image_size=32)
    report = pretrained.load(model, given)
    assert report.notes == ("interpolated the positions from 2 x 2 patches to 3 x 3",)
    assert_loaded(model, given, but=["pos_embed"])
    result = pretrained.to_torch(model, ["pos_embed"])["pos_embed"]
    assert result.shape == (1, 10, 192)
    np.testing.assert_array_equal(result[:, 0], given.tensors["pos_embed"][:, 0])


@pytest.mark.parametrize("shape", [(3, 5, 192), (0, 5, 192), (5, 192), (1, 5, 3), (1, 6, 192), (192,), ()])
def test_positions_of_an_impossible_shape_are_reported(shape):
    given = weights("vit_tiny_patch16", 10, depth=1, image_size=32)
    given.tensors["pos_embed"] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match="tensor 'pos_embed' has the shape"):
        pretrained.load(create("vit_tiny_patch16", 10, depth=1, image_size=48), given)


@pytest.mark.parametrize(("scale", "shape"), [((64, 64, 3, 3, 1, 1), None), ((64, 1, 64, 3, 3), "mis-shaped")])
def test_axes_of_one_at_the_end_do_not_matter(scale, shape):
    given = weights("resnet18", 10)
    name = "layer1.0.conv1.weight"
    other = dataclasses.replace(given, tensors=given.tensors | {name: given.tensors[name].reshape(scale)})
    model = create("resnet18", 10)
    if shape is None:
        pretrained.load(model, other)
        assert_loaded(model, given)
    else:
        with pytest.raises(UserError, match=f"tensor '{name}' has the shape"):
            pretrained.load(model, other)


def test_weights_that_do_not_load_are_described():
    model, given = models.abstract("resnet20_cifar", 10), weights("resnet20_cifar", 10)
    for number, dtype in ((np.nan, np.float32), (-np.inf, np.float32), (1e300, np.float64)):
        given.tensors["fc.bias"] = np.array([0] * 8 + [number] * 2, dtype)
        with pytest.raises(UserError, match=r"^file: 2 numbers of tensor 'fc\.bias' are NaN or infinite"):
            pretrained.load(model, given)
    del given.tensors["fc.bias"]
    given = dataclasses.replace(given, notes=("took 'model_ema' and left model", "left 'module.' out of every name"))
    with pytest.raises(
        UserError, match=r"lack the tensor 'fc\.bias'.* read so: took 'model_ema' and left model; left"
    ):
        pretrained.load(model, given)


@pytest.fixture
def few_networks(monkeypatch):
    """Compare fewer networks, because all of them take seconds."""
    monkeypatch.setattr(models, "names", lambda: ("alexnet_owt", "resnet18", "resnet34"))


@pytest.mark.usefixtures("few_networks")
def test_weights_of_another_network_are_recognised():
    model = create("resnet18", 1000)
    before = pretrained.to_torch(model)
    with pytest.raises(UserError, match=r"most like those of resnet34 \(100 % have its names and shapes\)"):
        pretrained.load(model, weights("resnet34", 1000))
    for name, array in pretrained.to_torch(model).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.usefixtures("few_networks")
def test_weights_of_no_network_are_reported():
    with pytest.raises(UserError, match="No network here has tensors like those"):
        pretrained.load(models.abstract("resnet18"), Weights(Path("file"), {"strange": np.zeros(3, np.float32)}))


def stating(given, name, num_classes=10, **options):
    return dataclasses.replace(given, origin=Origin(name, num_classes, options))


def test_a_file_that_states_another_network_is_refused_although_its_tensors_fit():
    given = weights("resnet18", 10)
    with pytest.raises(
        UserError, match=r"^file says that it is of resnet34, and the model is resnet18: build resnet34"
    ):
        pretrained.load(models.abstract("resnet18", 10), stating(given, "resnet34"))
    pretrained.load(models.abstract("resnet18", 10), dataclasses.replace(stating(given, "resnet34"), origin=None))


def test_differing_options_and_unknown_names_of_a_file_are_reported():
    given = weights("resnet20_cifar", 10)
    report = pretrained.load(models.abstract("resnet20_cifar", 10), stating(given, "mine"))
    assert report.notes == ("the file says that it is of 'mine', which is not a network here",)
    given = weights("alexnet_owt", 10)
    model = models.abstract("alexnet", 10, dropout=0.1)
    assert pretrained.load(model, stating(given, "alexnet", dropout=0.5)).notes == ()
    stated = stating(given, "alexnet", stem="small")
    assert pretrained.load(model, stated).notes[0].startswith("the file is of stem='small' and the model of stem=")


def test_the_stated_preprocessing_of_a_file_is_written_again(tmp_path):
    stated = Preprocessing(48, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), crop="squash")
    model = models.abstract("resnet20_cifar", 10, shortcut="A")
    pretrained.load(model, dataclasses.replace(weights("resnet20_cifar", 10), preprocessing=stated))
    pretrained.write(model, tmp_path / "a.safetensors")
    assert pretrained.read(tmp_path / "a.safetensors").preprocessing == stated
    pretrained.load(model, weights("resnet20_cifar", 10))
    pretrained.write(model, tmp_path / "b.safetensors")
    assert pretrained.read(tmp_path / "b.safetensors").preprocessing is None


# --- names of classes -------------------------------------------------------------------------------------------


def named(names, **options):
    """Return random weights of LeNet-5 as if read from a file that names its classes."""
    return dataclasses.replace(weights("lenet5", len(names), **options), class_names=tuple(names))


def test_the_head_of_classes_in_another_order_is_permuted():
    given, model = named("abcd"), create("lenet5", 4)
    report = pretrained.load(model, given, class_names=tuple("dbca"))
    assert not report.replaced
    assert report.notes == (
        "the data has the classes of the file in another order: index 0 is 'd' and not 'a'; they are aligned by name",
    )
    heads = [name for name, array in given.tensors.items() if len(array) == 4]
    assert heads
    for name, array in pretrained.to_torch(model, heads).items():
        np.testing.assert_array_equal(array, given.tensors[name][[3, 1, 2, 0]])
    assert_loaded(model, given, but=heads)
    assert model.class_names == tuple("dbca")


def test_the_head_of_other_classes_is_replaced():
    given, model = named("abcd"), create("lenet5", 4)
    before = pretrained.to_torch(model)
    report = pretrained.load(model, given, class_names=tuple("abcx"))
    assert "the file has other classes (" in report.notes[-1]
    assert "only the data has 'x'; only the file has 'd'" in report.notes[-1]
    assert_loaded(model, given, but=report.replaced)
    for name, array in pretrained.to_torch(model, report.replaced).items():
        np.testing.assert_array_equal(array, before[name])
    assert model.class_names == ()


def test_a_head_without_names_is_kept_and_said():
    model = create("lenet5", 4)
    report = pretrained.load(model, weights("lenet5", 4), class_names=tuple("abcd"))
    assert not report.replaced
    assert report.notes[0].endswith("was not checked: the file has no names for its classes")


def test_a_thousand_classes_without_names_are_taken_to_be_imagenets():
    model, given, wnids = create("lenet5", 1_000), weights("lenet5", 1_000), sets.imagenet_wnids()
    report = pretrained.load(model, given, class_names=wnids)
    assert (report.notes, report.replaced) == ((pretrained.IMAGENET_ORDER,), ())
    assert_loaded(model, given)
    report = pretrained.load(model, given, class_names=wordnet.readable_names(wnids)[::-1])
    assert (
        "another order: index 0 is 'toilet tissue, toilet paper, bathroom tissue' and not 'n01440764'"
        in report.notes[1]
    )
    head = max(given.tensors, key=lambda name: (len(given.tensors[name]) == 1_000, given.tensors[name].ndim))
    np.testing.assert_array_equal(pretrained.to_torch(model, [head])[head], given.tensors[head][::-1])
    report = pretrained.load(model, given, class_names=[f"street {number}" for number in range(1_000)])
    assert report.replaced
