"""The loss of each image."""

import optax
from jaxtyping import Array, Float

from imagenet_repro.config import Loss, SoftmaxLoss
from imagenet_repro.scoring import metrics


def per_image(spec: Loss, logits: Float[Array, "b c"], targets: Float[Array, "b c"]) -> Float[Array, " b"]:
    """Return the loss of each image in nats.

    Args:
      spec: the section `loss`.
      logits: of one head.
      targets: probabilities of the classes after augmentation, which may have mixed and smoothed them.

    Sources: `sigmoid` with the sum is big_vision's, which trained "How to train your ViT" (Steiner et al. 2021); with
    the mean and a threshold of 0.2 timm's, which trained "ResNet strikes back" (Wightman et al. 2021): a class whose
    target is above the threshold then has the target 1, and any other 0.
    """
    if isinstance(spec, SoftmaxLoss):
        return metrics.cross_entropy(logits, targets)
    if spec.threshold:
        targets = (targets > spec.threshold).astype(logits.dtype)
    losses = optax.sigmoid_binary_cross_entropy(logits, targets)
    return losses.mean(-1) if spec.reduction == "mean" else losses.sum(-1)
