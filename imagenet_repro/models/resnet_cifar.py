"""The ResNets for CIFAR-10: He et al., "Deep residual learning for image recognition", 2015 (arXiv 1512.03385).

Sec. 4.2: a 3x3 convolution and three stages of 2n convolutions with 16, 32 and 64 channels, 6n + 2 layers in all, and
shortcuts of option A, so that the network has as many parameters as its plain counterpart. No library has these
networks; names and initialisation are those of our other ResNets. The widely used files of
github.com/akamaster/pytorch_resnet_cifar10 are of `shortcut="A_symmetric"`, and those of
github.com/chenyaofo/pytorch-cifar-models of `shortcut="B"`.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imagenet_repro.models.nn.layers import BatchNorm, Linear, check_images, relu
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.nn.precision import widen
from imagenet_repro.models.resnet import BasicBlock, conv, make_stages
from imagenet_repro.models.spec import LEVELS, Preprocessing, Spec

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # of RGB over the training images; the paper subtracts a mean at each pixel
SCAN_FROM = 18  # blocks of a stage, from which compilation takes longer than stacking the parameters


class CifarResNet(Network):
    """A stem of one 3x3 convolution, three stages of `depth` blocks, global average pooling, one linear layer.

    The paper's images have 32 pixels; any size fits. `shortcut` is the paper's option A ("A_symmetric": with half of
    the new channels before the others), B or C; `drop_path` the last block's rate of stochastic depth (Huang et al.
    2016); `zero_init_last` starts every block as the identity. `scan` compiles a run of equal blocks once (None: from
    110 layers on), `remat` computes the inside of every block again in the backward pass (`Stack`). With
    `num_classes=0` the network returns the pooled features.
    """

    def __init__(
        self,
        depth: int,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 1000,
        dtype: DTypeLike = jnp.float32,
        zero_init_last: bool = False,
        shortcut: str = "A",
        drop_path: float = 0.0,
        scan: bool | None = None,
        remat: bool | None = None,
    ):
        self.conv1 = conv(3, 16, 3, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(16, dtype=dtype)
        self.layer1, self.layer2, self.layer3 = make_stages(
            BasicBlock,
            16,
            widths=(16, 32, 64),
            depths=(depth, depth, depth),
            drop_path=drop_path,
            shortcut=shortcut,
            last_scale=0.0 if zero_init_last else 1.0,
            scan=depth >= SCAN_FROM if scan is None else scan,
            remat=remat,
            rngs=rngs,
            dtype=dtype,
        )
        self.fc = Linear(64, num_classes, wide=True, dtype=dtype, rngs=rngs) if num_classes else None

    def features(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b oh ow 64"]:
        """Return the last stage's map. Raises UserError for images of another shape than [batch, height, width, 3]."""
        check_images("ResNet", images)
        x = relu(self.bn1(self.conv1(images)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return x

    def head(self, pooled: Float[Array, "b 64"]) -> Float[Array, "b classes"]:
        """Return float32 logits from the linear layer."""
        return widen(pooled if self.fc is None else self.fc(pooled))


def _spec(depth: int) -> Spec:
    return Spec(
        reference="paper",
        builder=CifarResNet,
        sizes=((depth - 2) // 6,),
        num_classes=10,
        preprocessing=Preprocessing(image_size=32, crop_ratio=1.0, mean=CIFAR10_MEAN, std=LEVELS),
    )


VARIANTS = {f"resnet{depth}_cifar": _spec(depth) for depth in (20, 32, 44, 56, 110, 1202)}
