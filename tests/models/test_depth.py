import json
from pathlib import Path

import pytest

from imagenet_repro import models
from imagenet_repro.models import depth, parameter_names

# Scales of the rate by timm 1.0's param_groups_layer_decay with a decay of 0.75, by the name of the parameter.
GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "layer_decay.json").read_text())
QUICK = ("lenet5_1998", "vgg11_bn")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_scales_are_those_of_timm(name):
    network = models.abstract(name)
    layer = depth.layers(network)
    names = parameter_names.shapes(network)
    last = max(map(layer, names))
    scales = {name: 0.75 ** (last - layer(name)) for name in names}
    # The final norm is in the layer of the head, as in BEiT (Bao et al. 2021); in timm it is in the last block's.
    expected = GOLDEN[name] | ({"norm.weight": 1.0, "norm.bias": 1.0} if name.startswith("vit") else {})
    assert scales == pytest.approx(expected, rel=1e-6)


def check_layers(name):
    network = models.abstract(name)
    layer = depth.layers(network)
    layers = {parameter: layer(parameter) for parameter in parameter_names.shapes(network)}
    published = models.spec(name).layers is not None
    assert min(layers.values()) == 0
    if not published:  # ConvNeXt's authors leave numbers out
        assert set(layers.values()) == set(range(max(layers.values()) + 1))
    heads = parameter_names.head_names(network.known_origin)
    assert {layers[parameter] for parameter in heads} <= {max(layers.values())}
    # The numbers in names count upwards: blocks of one list never fall back.
    blocks = {}
    for parameter, number in layers.items():
        words = parameter.split(".")
        path = [int(word) if word.isdigit() else word for word in words]
        stem = tuple(word for word in path[:4] if isinstance(word, str))[:2]
        numbers = tuple(word for word in path[:4] if isinstance(word, int))
        if words[0] in ("blocks", "stages", "layer1", "layer2", "layer3", "layer4", "features", "repeat"):
            blocks.setdefault((words[0], len(numbers), stem[:1]), []).append((numbers[:2], number))
    for entries in blocks.values():
        in_order = [number for _, number in sorted(entries)]
        assert in_order == sorted(in_order), name


@pytest.mark.parametrize("name", QUICK)
def test_layers_cover_all_parameters_and_rise_with_depth(name):
    check_layers(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in models.names() if name not in QUICK])
def test_layers_cover_all_parameters_and_rise_with_depth_in_every_network(name):
    check_layers(name)
