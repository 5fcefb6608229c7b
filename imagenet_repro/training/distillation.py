"""Learning from a teacher's scores: Hinton et al. 2015 (arXiv 1503.02531), Touvron et al. 2020 (arXiv 2012.12877).

The teacher is a network in evaluation mode. It sees the same augmented images as the student, normalised as its own
were, and its operations count as a part of the step. In a run's state its tensors are beside the student's, and their
names have a prefix; no step changes them, and no checkpoint holds them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int32

from imagenet_repro.config import Augment, HardDistillation, SoftDistillation
from imagenet_repro.scoring import metrics
from imagenet_repro.training.functional import FunctionalNetwork, Tensors
from imagenet_repro.training.state import TEACHER, is_teachers


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as compilation caches want it
class Teacher:
    """A trained network that gives labels.

    Attributes:
      network: the network.
      params: its parameters by name, on the host.
      stats: its running statistics by name, on the host.
      classes: its class for each class of the run.
      mean: of RGB in [0, 1], by which its images are normalised.
      std: likewise.
      description: a sentence for a person.
    """

    network: FunctionalNetwork
    params: Tensors
    stats: Tensors
    classes: Int32[np.ndarray, " c"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    description: str

    @property
    def names(self) -> frozenset[str]:
        """The names of its tensors in a run's state."""
        return frozenset(TEACHER + name for name in (*self.params, *self.stats))

    def tensors(self) -> tuple[Tensors, Tensors]:
        """Return parameters and statistics under their names in a run's state."""
        params, stats = ({TEACHER + name: x for name, x in part.items()} for part in (self.params, self.stats))
        return params, stats

    def logits(
        self, params: Tensors, stats: Tensors, images: Float[Array, "b h w 3"], colour: Augment
    ) -> Float[Array, "b c"]:
        """Return the logits of the run's classes.

        Args:
          params: parameters of a run's state; those of the student are not read.
          stats: statistics of a run's state.
          images: augmented, normalised for the student.
          colour: the section `augment`, with the student's mean and standard deviation.
        """
        own, own_stats = (
            {n.removeprefix(TEACHER): x for n, x in part.items() if is_teachers(n)} for part in (params, stats)
        )
        logits = self.network.evaluate(own, own_stats, self._normalised(images, colour))
        return lax.stop_gradient(logits[:, jnp.asarray(self.classes)])

    def _normalised(self, images: Float[Array, "b h w 3"], colour: Augment) -> Float[Array, "b h w 3"]:
        if (colour.mean, colour.std) == (self.mean, self.std):
            return images
        mean, std, own_mean, own_std = (
            jnp.asarray(x, images.dtype) for x in (colour.mean, colour.std, self.mean, self.std)
        )
        return (images * std + mean - own_mean) / own_std


def per_image(
    spec: HardDistillation | SoftDistillation, logits: Float[Array, "b c"], teacher: Float[Array, "b c"]
) -> Float[Array, " b"]:
    """Return the loss of each image against the teacher, in nats.

    Args:
      spec: the section `distill`.
      logits: of the student, from the head that learns from the teacher.
      teacher: logits of the teacher.

    Sources: Touvron et al. 2020, eq. 3, cross-entropy with the teacher's most likely class, which is not smoothed; eq.
    2, T^2 KL(softmax(teacher / T), softmax(logits / T)). The authors' code also divides the second by the number of
    classes, which the paper does not.
    """
    if isinstance(spec, HardDistillation):
        return metrics.cross_entropy(logits, jax.nn.one_hot(teacher.argmax(-1), logits.shape[-1]))
    log_q, log_p = (jax.nn.log_softmax(x / spec.temperature) for x in (logits, teacher))
    return spec.temperature**2 * optax.losses.kl_divergence_with_log_targets(log_q, log_p)
