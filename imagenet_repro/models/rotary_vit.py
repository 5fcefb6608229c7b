"""Vision transformers with rotary positions, which EVA-02 and DINOv3 share."""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from imagenet_repro.models.nn.attention import INIT, BlockInit
from imagenet_repro.models.nn.initialisers import parameter
from imagenet_repro.models.nn.rotary import Rotary, RotaryBlock
from imagenet_repro.models.nn.stack import Shared
from imagenet_repro.models.vit import Design, VisionTransformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryDesign(Design):
    """The layout of one variant; `gated` is a `GatedMlp`."""

    rotary: Rotary
    bias: bool = True  # whether queries and values have biases
    separate: bool = False  # whether queries, keys and values have a linear layer each
    packed: bool = False  # whether the gate and the values of a gated MLP share a linear layer
    sub_norm: bool = False  # whether a gated MLP has a norm inside


class RotaryTransformer(VisionTransformer):
    """A vision transformer whose queries and keys are turned by the positions of their patches.

    Learned positions may be added to the tokens as well (`positions` of `VisionTransformer`).
    """

    def __init__(self, design: RotaryDesign, *, rngs: nnx.Rngs, **options: Any):
        self.rotary, self.head_size = design.rotary, design.width // design.heads
        super().__init__(design, rngs=rngs, **options)

    @staticmethod
    def _init(number: int) -> BlockInit:
        """Return the initial weights of the block of a number from 0 on."""
        del number
        return BlockInit()

    @classmethod
    def _block(cls, design: RotaryDesign, number: int, **arguments: Any) -> nnx.Module:
        norm_epsilon = arguments["norm_epsilon"] if design.sub_norm else None
        return RotaryBlock(
            design.width,
            design.heads,
            design.hidden,
            attention={"pairs": design.rotary.pairs, "bias": design.bias, "separate": design.separate},
            gated={"packed": design.packed, "norm_epsilon": norm_epsilon} if design.gated else None,
            layer_scale=design.layer_scale,
            init=cls._init(number),
            **arguments,
        )

    @staticmethod
    def _token(width: int, number: int, rngs: nnx.Rngs) -> nnx.Param:
        return parameter(rngs, INIT, (1, number, width))

    def _shared(self, images: Float[Array, "b h w 3"]) -> Shared:
        grid = self._grid(images.shape[1], images.shape[2])
        return {"rotation": self.rotary.table(grid, self.head_size, self.prefix)}
