"""Names without the parts that wrappers and training programs add."""

import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.pretrained import prefixes, tensors

NAMES = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias", "fc.weight")


def removed(names):
    """Return the names without prefixes, in their order, and the notes."""
    arrays = {name: np.array(index) for index, name in enumerate(names)}
    result, notes = prefixes.remove(arrays)
    assert [int(array) for array in result.values()] == list(range(len(names)))
    return tuple(result), notes


@pytest.mark.parametrize(
    "prefix",
    [
        *("model.", "backbone.", "module.", "encoder.", "_orig_mod.", "_fsdp_wrapped_module.", "network.", "net."),
        *("module.model.", "model._orig_mod.", "_orig_mod.module.", "module._orig_mod.backbone.", "model.model."),
        "_fsdp_wrapped_module._checkpoint_wrapped_module.model._orig_mod.",
    ],
)
def test_prefixes_of_every_name(prefix):
    names, notes = removed([prefix + name for name in NAMES])
    assert names == NAMES
    assert all(f"left '{part}.' out of every name" in notes for part in prefix.split(".")[:-1])


@pytest.mark.parametrize("part", prefixes.WRAPPERS)
def test_parts_within_names(part):
    names, notes = removed(["conv1.weight", f"layer1.{part}.0.{part}.conv1.weight", "layer1.0.bn1.bias", "fc.weight"])
    assert names == NAMES
    assert notes == [f"left '{part}.' out of 1 of 4 names"]


def test_a_backbone_beside_its_head():
    names, notes = removed([*(f"backbone.{name}" for name in NAMES[:3]), NAMES[3]])
    assert names == NAMES
    assert notes == ["left 'backbone.' out of 3 of 4 names"]


@pytest.mark.parametrize(
    "names",
    [
        ("encoder.pos_embedding", "encoder.ln.weight", "encoder.ln.bias", "class_token"),  # torchvision
        ("encoder.layer.0.a", "encoder.layer.0.b", "embeddings.patch_embeddings.projection.weight"),  # transformers
        ("student.conv1.weight", "teacher.conv1.weight"),
        ("model.conv1.weight", "model.fc.weight", "conv1.weight"),  # two would have one name
    ],
)
def test_names_that_stay(names):
    assert removed(names) == (names, [])


@pytest.mark.parametrize("network", ["resnet18", "vit_tiny_patch16", "convnext_tiny", "inception_v3", "alexnet"])
def test_our_own_names_stay(network):
    names = tuple(tensors.shapes(models.abstract(network, 10)))
    assert removed(names) == (names, [])


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"two tensors are 'a\.b'"):
        removed(["a.b", "a._orig_mod.b"])
