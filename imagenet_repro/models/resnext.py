"""ResNeXt and wide ResNet: ResNet's bottleneck with another 3x3 convolution.

Xie et al., "Aggregated residual transformations for deep neural networks", 2016 (arXiv 1611.05431): a grouped one,
form C of the paper's fig. 3. Zagoruyko & Komodakis, "Wide residual networks", 2016 (arXiv 1605.07146): a wider one,
while what enters and leaves a block stays as wide as in ResNet. Layers and names are torchvision's, and timm's for
`resnext101_32x4d`, which torchvision lacks; initialisation is torchvision's throughout. The stride is in the 3x3
convolution.

`wide_resnet68_2` stands for a network of the winner of 2016, who published no layout. The layout is our own choice:
68 layers are 22 bottlenecks, here 3, 4, 12 and 3 of them, between ResNet-50 and ResNet-101, widened as torchvision's
`wide_resnet50_2` is.
"""

from functools import partial

from imagenet_repro.models.resnet import CENTRE, Bottleneck, ResNet
from imagenet_repro.models.spec import Preprocessing, Published, Spec

DEPTHS = {50: (3, 4, 6, 3), 68: (3, 4, 12, 3), 101: (3, 4, 23, 3)}
RUNNER_UP = "ResNeXt, runner-up 2016 classification"
XIE = "facebookresearch/ResNeXt"
BOTH = f"top-1 {XIE}, top-5 Hu et al. 2017"


def _resnext(depth: int, groups: int, base_width: int, *published: Published, **more) -> Spec:
    block = partial(Bottleneck, groups=groups, base_width=base_width)
    row = {
        "year": 2016,
        "title": f"ResNeXt-{depth} {groups}x{base_width}d",
        "paper": "Xie et al. 2016, arXiv 1611.05431",
        "reference": f"torchvision:resnext{depth}_{groups}x{base_width}d",
        "builder": ResNet,
        "sizes": (block, DEPTHS[depth]),
        "published": published,
    }
    return Spec(**row | more)


def _wide(depth: int, reference: str, entry: str = "") -> Spec:
    return Spec(
        year=2016,
        title=f"Wide ResNet-{depth}-2",
        paper="Zagoruyko & Komodakis 2016, arXiv 1605.07146",
        reference=reference,
        builder=ResNet,
        sizes=(partial(Bottleneck, base_width=128), DEPTHS[depth]),
        entry=entry,
    )


VARIANTS = {
    "resnext50_32x4d": _resnext(50, 32, 4, Published(22.2, None, CENTRE, XIE), entry=RUNNER_UP),
    "resnext101_32x4d": _resnext(
        101,
        32,
        4,
        Published(21.2, 5.6, CENTRE, BOTH),
        entry=RUNNER_UP,
        reference="timm:resnext101_32x4d",
        preprocessing=Preprocessing(kernel="bicubic"),
    ),
    "resnext101_64x4d": _resnext(
        101,
        64,
        4,
        Published(20.4, 5.3, CENTRE, BOTH),
        Published(19.1, 4.4, "val, centre 320", "Hu et al. 2017, table 8"),
        entry=RUNNER_UP,
        preprocessing=Preprocessing(crop_ratio=224 / 232),
    ),
    "resnext101_32x8d": _resnext(101, 32, 8),  # not in the paper
    "wide_resnet50_2": _wide(50, "torchvision:wide_resnet50_2"),
    "wide_resnet101_2": _wide(101, "torchvision:wide_resnet101_2"),
    "wide_resnet68_2": _wide(
        68, "paper", entry="Trimps-Soushen, winner 2016 classification (one of the fused networks)"
    ),
}
