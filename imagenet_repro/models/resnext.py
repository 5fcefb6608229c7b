"""ResNeXt and wide ResNet: ResNet's bottleneck with another 3x3 convolution.

Xie et al., "Aggregated residual transformations for deep neural networks", 2016 (arXiv 1611.05431): a grouped
convolution, form C of the paper's fig. 3. Zagoruyko & Komodakis, "Wide residual networks", 2016 (arXiv 1605.07146): a
wider convolution, while the input and output of a block stay as wide as in ResNet. Layers and names are torchvision's,
and timm's for `resnext101_32x4d`, which torchvision lacks; initialisation is torchvision's for all. The stride is in
the 3x3 convolution.

`wide_resnet68_2` stands for a network of the winner of 2016, who published no layout. The layout is our own choice:
68 layers are 22 bottlenecks, here 3, 4, 12 and 3 of them, between ResNet-50 and ResNet-101, widened like torchvision's
`wide_resnet50_2`.
"""

from functools import partial
from typing import Any

from imagenet_repro.models.resnet import Bottleneck, ResNet
from imagenet_repro.models.spec import Preprocessing, Spec

DEPTHS = {50: (3, 4, 6, 3), 68: (3, 4, 12, 3), 101: (3, 4, 23, 3)}


def _resnext(
    depth: int,
    groups: int,
    base_width: int,
    *,
    library: str = "torchvision",
    **preprocessing: Any,
) -> Spec:
    return Spec(
        reference=f"{library}:resnext{depth}_{groups}x{base_width}d",
        builder=ResNet,
        sizes=(partial(Bottleneck, groups=groups, base_width=base_width), DEPTHS[depth]),
        preprocessing=Preprocessing(**preprocessing),
    )


def _wide(depth: int, reference: str) -> Spec:
    return Spec(reference=reference, builder=ResNet, sizes=(partial(Bottleneck, base_width=128), DEPTHS[depth]))


VARIANTS = {
    "resnext50_32x4d": _resnext(50, 32, 4),
    "resnext101_32x4d": _resnext(101, 32, 4, library="timm", kernel="bicubic"),
    "resnext101_64x4d": _resnext(101, 64, 4, crop_ratio=224 / 232),
    "resnext101_32x8d": _resnext(101, 32, 8),  # not in the paper
    "wide_resnet50_2": _wide(50, "torchvision:wide_resnet50_2"),
    "wide_resnet101_2": _wide(101, "torchvision:wide_resnet101_2"),
    "wide_resnet68_2": _wide(68, "paper"),
}
