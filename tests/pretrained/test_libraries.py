"""Tests that our logits equal those of the libraries whose files of random weights we load. Skipped without torch."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models, pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing

torch = pytest.importorskip("torch")


def images(size):
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


def theirs(network, size):
    with torch.no_grad():
        answer = network.eval()(torch.from_numpy(images(size).transpose(0, 3, 1, 2)))
    for attribute in ("logits", "pooler_output"):
        answer = getattr(answer, attribute, answer)
    return answer.numpy()


def ours(model, size):
    graphdef, state, rest = nnx.split(model.eval(), (nnx.Param, nnx.BatchStat), ...)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state, rest)(x))(state, images(size)))


def randomise(network):
    """Set weights that differ everywhere, so that exchanged tensors would be noticed."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if not tensor.dtype.is_floating_point:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(noise.abs() / 5 + 0.9 if name.endswith("running_var") else tensor + 0.05 * noise)
    return network


def assert_answers_are_the_same(network, name, path, size, **options):
    model = models.abstract(name, **options)
    report = pretrained.load(model, path)
    expected, result = theirs(network, size), ours(model, size)
    assert np.linalg.norm(result - expected) / np.linalg.norm(expected) < 1e-4
    return report


def save(network, path, wrap=dict):
    torch.save(wrap(network.state_dict()), path)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_pth_of_torchvision(legacy, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    network = randomise(torchvision.models.resnet18(num_classes=7))
    path = tmp_path / "resnet18.pth"
    torch.save({"model": network.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    assert_answers_are_the_same(network, "resnet18", path, 64, num_classes=7)


@pytest.mark.parametrize("kind", ["parameters", "bfloat16", "half", "double"])
def test_tensors_in_memory(kind):
    torchvision = pytest.importorskip("torchvision")
    network = randomise(torchvision.models.resnet18(num_classes=7))
    state = network.state_dict(keep_vars=True)
    assert state["fc.weight"].requires_grad
    if kind != "parameters":
        state = {name: tensor.to(getattr(torch, kind)) for name, tensor in state.items()}
    result = pretrained.to_torch(pretrained.load_torch(models.abstract("resnet18", 7), state))
    for name, array in result.items():
        np.testing.assert_array_equal(array, state[name].detach().float().numpy())
    with torch.no_grad():
        network.fc.bias.add_(1)
    if kind == "parameters":
        assert not np.array_equal(result["fc.bias"], network.fc.bias.detach().numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to("meta"), "is on the device 'meta'"),
        (lambda t: t.to_sparse(), "is sparse"),
        (lambda t: t.detach().to(torch.float8_e4m3fn), "is of the type float8_e4m3fn"),
        (lambda t: torch.quantize_per_tensor(t.detach(), 0.1, 0, torch.qint8), "is sparse or quantised"),
        (lambda t: t.to(torch.complex64), "is of the type complex64"),
    ],
)
def test_tensors_in_memory_without_plain_numbers_are_reported(change, message):
    torchvision = pytest.importorskip("torchvision")
    state = torchvision.models.resnet18(num_classes=7).state_dict(keep_vars=True)
    with pytest.raises(UserError, match=f"tensor 'fc.bias' {message}"):
        pretrained.load_torch(models.abstract("resnet18", 7), state | {"fc.bias": change(state["fc.bias"])})


def test_torchvision_loads_what_is_written(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    from safetensors.torch import load_file

    model = models.create("resnet18", 7)
    pretrained.write(model, tmp_path / "a.safetensors", preprocessing=Preprocessing())
    network = torchvision.models.resnet18(num_classes=7)
    network.load_state_dict(load_file(tmp_path / "a.safetensors"))
    np.testing.assert_allclose(ours(model, 64), theirs(network, 64), rtol=1e-4, atol=1e-5)


def test_timm_loads_what_is_written(tmp_path):
    timm = pytest.importorskip("timm")
    model = models.create("resnet18", 7)
    pretrained.write(model, tmp_path / "a.safetensors")
    network = timm.create_model("resnet18", num_classes=7, checkpoint_path=str(tmp_path / "a.safetensors"))
    np.testing.assert_allclose(ours(model, 64), theirs(network, 64), rtol=1e-4, atol=1e-5)


VIT = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 32,
    "patch_size": 16,
}
DINOV2 = {"hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6, "image_size": 28, "patch_size": 14}
TINY = {"depth": 2, "image_size": 32}
DINOV3 = {"hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6, "num_register_tokens": 4}
CLASSES = {"num_labels": 7}
HUGGINGFACE = {
    "vit_tiny_patch16": ("ViTForImageClassification", "ViTConfig", VIT | CLASSES, 32, TINY | {"num_classes": 7}),
    "deit_tiny_distilled_patch16": (
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        VIT | CLASSES,
        32,
        TINY | {"num_classes": 7},
    ),
    "vit_small_patch14_dinov2": (
        "Dinov2Model",
        "Dinov2Config",
        DINOV2,
        28,
        {"depth": 2, "image_size": 28, "num_classes": 0},
    ),
    "vit_small_patch14_reg4_dinov2": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        DINOV2,
        28,
        {"depth": 2, "image_size": 28, "num_classes": 0},
    ),
    "vit_small_patch16_dinov3": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        DINOV3 | {"intermediate_size": 1536},
        48,
        {"depth": 2, "num_classes": 0, "qkv_bias": True},
    ),
    "vit_small_plus_patch16_dinov3": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        DINOV3 | {"intermediate_size": 1536, "use_gated_mlp": True, "hidden_act": "silu"},
        48,
        {"depth": 2, "num_classes": 0, "qkv_bias": True},
    ),
    "convnext_tiny": ("ConvNextForImageClassification", "ConvNextConfig", CLASSES, 64, {"num_classes": 7}),
    "convnextv2_atto": (
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        CLASSES | {"hidden_sizes": [40, 80, 160, 320], "depths": [2, 2, 6, 2]},
        64,
        {"num_classes": 7},
    ),
    "resnet50": ("ResNetForImageClassification", "ResNetConfig", CLASSES, 64, {"num_classes": 7}),
    "resnet18": (
        "ResNetForImageClassification",
        "ResNetConfig",
        CLASSES | {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]},
        64,
        {"num_classes": 7},
    ),
}


@pytest.mark.parametrize("generation", ["saved", "in memory"])
@pytest.mark.parametrize("name", HUGGINGFACE)
def test_transformers(name, generation, tmp_path):
    transformers = pytest.importorskip("transformers")
    network, config, sizes, size, options = HUGGINGFACE[name]
    network = randomise(getattr(transformers, network)(getattr(transformers, config)(**sizes)))
    if generation == "saved":
        network.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = save(network, tmp_path / "model.bin")
    report = assert_answers_are_the_same(network, name, path, size, **options)
    assert "renamed from the names of transformers" in report.notes[0]


def test_swiglu_of_transformers_has_the_names_of_ours():
    transformers = pytest.importorskip("transformers")
    timm = pytest.importorskip("timm")
    from imagenet_repro.pretrained import names

    config = transformers.Dinov2Config(
        num_hidden_layers=1, hidden_size=1536, num_attention_heads=24, use_swiglu_ffn=True
    )
    with torch.device("meta"):
        network = transformers.Dinov2Model(config)
        reference = timm.create_model("vit_giant_patch14_dinov2", img_size=518, depth=1)
    shapes = {name: np.broadcast_to(np.float32(0), tuple(t.shape)) for name, t in network.state_dict().items()}
    given = {n: a.shape for n, a in names.convert(shapes).tensors.items()}
    expected = {n: tuple(t.shape) for n, t in reference.state_dict().items()}
    expected |= {"mask_token": (1, 1536), "pos_embed": given["pos_embed"]}
    assert given == expected


def test_vit_of_torchvision(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=7
    )
    path = save(randomise(network), tmp_path / "vit.pth")
    assert_answers_are_the_same(network, "vit_tiny_patch16", path, 32, **TINY, num_classes=7)


def test_convnext_of_torchvision(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    network = randomise(torchvision.models.convnext_tiny(num_classes=7))
    path = save(network, tmp_path / "convnext.pth")
    assert_answers_are_the_same(network, "convnext_tiny", path, 64, num_classes=7)


def timm_network(name, **options):
    return randomise(pytest.importorskip("timm").create_model(name, num_classes=7, **options))


@pytest.mark.parametrize("name", ["deit3_small_patch16", "deit_tiny_distilled_patch16"])
def test_deit_of_its_authors(name, tmp_path):
    network = timm_network(f"{name}_224", depth=2, img_size=32)

    def originally(state):
        return {
            "model": {
                n.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): t for n, t in state.items()
            }
        }

    path = save(network, tmp_path / "deit.pth", originally)
    assert_answers_are_the_same(network, name, path, 32, **TINY, num_classes=7)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_atto"])
def test_convnext_of_its_authors(name, tmp_path):
    network = timm_network(name)

    def originally(state):
        renamed = {}
        for ours, tensor in state.items():
            name = ours
            for new, old in (
                ("mlp.grn.weight", "grn.gamma"),
                ("mlp.grn.bias", "grn.beta"),
                ("stem.", "downsample_layers.0."),
                (".blocks.", "."),
                (".conv_dw.", ".dwconv."),
                (".mlp.fc", ".pwconv"),
                ("head.norm.", "norm."),
                ("head.fc.", "head."),
            ):
                name = name.replace(new, old, 1)
            if ".downsample." in name:
                name = f"downsample_layers.{name[7]}{name[len('stages.1.downsample') :]}"
            renamed[name] = tensor.reshape(1, 1, 1, -1) if ".grn." in ours else tensor
        return {"model": renamed}

    path = save(network, tmp_path / "convnext.pth", originally)
    assert_answers_are_the_same(network, name, path, 64, num_classes=7)


def test_vgg_of_timm(tmp_path):
    network = timm_network("vgg11")
    path = save(network, tmp_path / "vgg.pth")
    assert_answers_are_the_same(network, "vgg11", path, 224, num_classes=7)


# Networks of timm, and what makes them small: arguments of timm's and options of ours.
_DEPTH = {"depth": 2}
_EVA02 = ({"img_size": 56} | _DEPTH, {"image_size": 56} | _DEPTH)
_TOKEN = {"global_pool": "token"} | _DEPTH
TIMM = {
    "convnextv2_atto": ("convnextv2_atto", 64, {}, {}),
    "eva02_tiny_patch14": ("eva02_tiny_patch14_336", 56, *_EVA02),
    "eva02_base_patch14": ("eva02_base_patch14_448", 56, *_EVA02),
    "vit_small_patch16_dinov3": ("vit_small_patch16_dinov3_qkvb", 48, _TOKEN, {"qkv_bias": True} | _DEPTH),
    "vit_small_plus_patch16_dinov3": ("vit_small_plus_patch16_dinov3", 48, _TOKEN, _DEPTH),
    "maxvit_tiny": ("maxvit_tiny_tf_224", 64, {"img_size": 64}, {"image_size": 64}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name, tmp_path):
    theirs, size, arguments, options = TIMM[name]
    network = timm_network(theirs, **arguments)
    path = tmp_path / "model.safetensors"
    pytest.importorskip("safetensors.torch").save_file(network.state_dict(), path)
    assert_answers_are_the_same(network, name, path, size, num_classes=7, **options)


def test_dinov3_of_its_authors(tmp_path):
    """Check that a file with the names that timm converts has the features of timm's network."""
    timm = pytest.importorskip("timm")
    name = "vit_small_plus_patch16_dinov3"
    network = randomise(timm.create_model(f"{name}_qkvb", num_classes=0, **_TOKEN))

    def originally(state):
        renamed = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
        for ours, tensor in state.items():
            old = re.sub(r"gamma_([12])", r"ls\1.gamma", ours).replace("reg_token", "storage_tokens")
            for new, part in (("fc1_g", "w1"), ("fc1_x", "w2"), ("fc2", "w3")):
                old = old.replace(f"mlp.{new}", f"mlp.{part}")
            renamed[old] = tensor
        for stem in [old.removesuffix("q_bias") for old in renamed if old.endswith("q_bias")]:
            q, v = renamed.pop(f"{stem}q_bias"), renamed.pop(f"{stem}v_bias")
            renamed[f"{stem}qkv.bias"] = torch.cat([q, torch.ones_like(q), v])  # that of the keys is masked
        return renamed

    path = save(network, tmp_path / "dinov3.pth", originally)
    converted = timm.models.eva.checkpoint_filter_fn(originally(network.state_dict()), network)
    assert converted.keys() == network.state_dict().keys()
    assert_answers_are_the_same(network, name, path, 48, num_classes=0, qkv_bias=True, **_DEPTH)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 160])
def test_biases_for_another_window_are_those_of_timm(size, tmp_path):
    network = timm_network("maxvit_tiny_tf_224", img_size=96)
    path = save(network, tmp_path / "maxvit.pth")
    network.set_input_size((size, size))
    options = {"num_classes": 7, "image_size": size}
    report = assert_answers_are_the_same(network, "maxvit_tiny", path, size, **options)
    assert any("from windows of 3 x 3" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva02_tiny_patch14", "vit_small_patch16_dinov3"])
def test_images_of_other_sizes_and_sides_as_timm_takes_them(name):
    timm = pytest.importorskip("timm")
    theirs, _, arguments, options = TIMM[name]
    side = {"img_size": (56, 84)} if "img_size" in arguments else {}
    network = randomise(timm.create_model(theirs, num_classes=7, **arguments | side)).eval()
    state = {n: t.numpy() for n, t in network.state_dict().items()}
    state = {re.sub(r"gamma_([12])", r"ls\1.gamma", n): array for n, array in state.items()}
    model = models.abstract(name, 7, **options)
    if side:  # positions of 4 x 6 patches; interpolation is tested in test_vit.py
        model.grid = (4, 6)
        model.pos_embed.set_value(jax.ShapeDtypeStruct((1, 25, 192), "float32"))
    pretrained.load_torch(model, state)
    height, width = (56, 84) if side else (48, 80)
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
    graphdef, state, rest = nnx.split(model.eval(), nnx.Param, ...)
    result = np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state, rest)(x))(state, x))
    assert np.linalg.norm(result - expected) / np.linalg.norm(expected) < 1e-4


@pytest.mark.parametrize("prefix", ["", "opt/target/", "params/"])
def test_npz_of_the_original_vit_releases(prefix, tmp_path):
    """Check that timm reads such a file too, with the same logits as ours."""
    path = tmp_path / "vit.npz"
    np.savez(path, **flax_vit(prefix))
    network = pytest.importorskip("timm").create_model("vit_tiny_patch16_224", num_classes=7, depth=2, img_size=32)
    network.load_pretrained(str(path))
    report = assert_answers_are_the_same(network, "vit_tiny_patch16", path, 32, **TINY, num_classes=7)
    assert report.notes == ("renamed from the names of the original ViT releases",)


def flax_vit(prefix):
    """Return random tensors under the names of google-research/vision_transformer, or of big_vision."""
    rng = np.random.default_rng(0)
    big_vision = prefix == "params/"
    attention, mlp, norm = (0, 0, 1) if big_vision else (1, 3, 2)
    shapes = {
        "cls": (1, 1, 192),
        "embedding/kernel": (16, 16, 3, 192),
        "embedding/bias": (192,),
        "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding": (1, 5, 192),
        "Transformer/encoder_norm/scale": (192,),
        "Transformer/encoder_norm/bias": (192,),
        "head/kernel": (192, 7),
        "head/bias": (7,),
    }
    for block in range(2):
        name = f"Transformer/encoderblock_{block}/"
        for number in (0, norm):
            shapes |= {f"{name}LayerNorm_{number}/{part}": (192,) for part in ("scale", "bias")}
        for part in ("query", "key", "value"):
            shapes[f"{name}MultiHeadDotProductAttention_{attention}/{part}/kernel"] = (192, 3, 64)
            shapes[f"{name}MultiHeadDotProductAttention_{attention}/{part}/bias"] = (3, 64)
        shapes |= {
            f"{name}MultiHeadDotProductAttention_{attention}/out/kernel": (3, 64, 192),
            f"{name}MultiHeadDotProductAttention_{attention}/out/bias": (192,),
            f"{name}MlpBlock_{mlp}/Dense_0/kernel": (192, 768),
            f"{name}MlpBlock_{mlp}/Dense_0/bias": (768,),
            f"{name}MlpBlock_{mlp}/Dense_1/kernel": (768, 192),
            f"{name}MlpBlock_{mlp}/Dense_1/bias": (192,),
        }
    return {prefix + name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
