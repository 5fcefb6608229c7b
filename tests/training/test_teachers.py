import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from imagenet_repro import models, pretrained
from imagenet_repro.config import resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import teachers

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file with the weights of a LeNet of three classes."""
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    network = models.build("lenet5", rngs=nnx.Rngs(0), num_classes=len(NAMES))
    pretrained.write(network, path, class_names=NAMES)
    return path


def load(teacher, class_names=NAMES, **distill):
    settings = {"name": "hard", "teacher": str(teacher)} | distill
    config = resolve_config({"precision": "float32", "data": {"image_size": 32}, "distill": settings})
    return teachers.load(config, class_names)


def test_classes_are_brought_into_the_order_of_the_data(weights):
    teacher = load(weights, ("owl", "cat", "dog"))
    np.testing.assert_array_equal(teacher.classes, [2, 0, 1])
    assert teacher.names >= {"teacher.c1.weight", "teacher.output.bias"}
    assert "hard labels" in teacher.description


def test_a_teacher_of_more_classes_gives_scores_of_those_of_the_data(weights):
    np.testing.assert_array_equal(load(weights, ("owl", "cat")).classes, [2, 0])


def test_a_teacher_that_lacks_classes_of_the_data_is_an_error(weights):
    with pytest.raises(UserError, match=r"config\.distill\.teacher: .* has other classes: .*fox"):
        load(weights, ("cat", "dog", "fox"))
    with pytest.raises(UserError, match=r"config\.distill\.teacher: .* has other classes"):
        load(weights, ("0", "1", "2", "3"))


def test_a_missing_teacher_is_an_error(tmp_path):
    with pytest.raises(UserError, match="needs a teacher: the workdir of a finished run, or a file"):
        load("")
    with pytest.raises(UserError, match=r"none\.safetensors"):
        load(tmp_path / "none.safetensors")


def test_a_file_that_does_not_state_its_network_needs_its_name(weights, tmp_path):
    save_file(load_file(weights), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match=r"config\.distill\.model: .* does not state its network"):
        load(tmp_path / "plain.safetensors")
    assert load(tmp_path / "plain.safetensors", ("0", "1", "2"), model="lenet5").classes.tolist() == [0, 1, 2]


def test_a_resumed_run_refuses_another_teacher(weights, tmp_path):
    run = Workdir(str(tmp_path))
    teacher = load(weights)
    teachers.check_unchanged(teacher, run, is_new=True)
    teachers.check_unchanged(load(weights), run, is_new=False)
    teacher.params["c1.bias"] = teacher.params["c1.bias"] + 1
    with pytest.raises(UserError, match="its weights are not those that the run began with"):
        teachers.check_unchanged(teacher, run, is_new=False)
