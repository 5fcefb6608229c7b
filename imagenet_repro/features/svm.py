"""Linear support vector machines, one against the rest for all classes at once, by averaged stochastic descent.

For each class c, with y = 1 for its images and -1 for the others, the objective is

    lambda / 2 (|w_c|^2 + b_c^2) + mean over images of loss(y (w_c . x + bias b_c))

The learning rate falls as in Bottou's `sgd` and `asgd` (Bottou 2010; Xu 2011, arXiv 1107.2490): it is rate_0 / (1 +
lambda rate_0 t)^power at step t. The result is the average of the weights over the steps, as in the training of the
2010 entry (Lin et al. 2011). Negatives may be sampled (Perronnin, Akata, Harchaoui & Schmid, "Towards good practice in
large-scale learning for image classification", 2012; Akata et al. 2014): an image then counts for its own class and
for a few others.

`training/svm_step.py` combines these functions into a training step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from imagenet_repro.config import Svm


def scores(
    x: Float[Array, "n f"], weights: Float[Array, "f c"], bias: Float[Array, " c"], problem: Svm
) -> Float[Array, "n c"]:
    """Return the score of every class, higher for a likelier one; scores replace the logits of a network."""
    return x @ weights + problem.bias * bias


def loss(
    class_scores: Float[Array, "n c"], labels: Int[Array, " n"], key: Key[Array, ""], problem: Svm
) -> Float[Array, " n"]:
    """Return the loss of each image, summed over the classes that count for it.

    Args:
      class_scores: from `scores`.
      labels: class indices.
      key: of the sampled negatives.
      problem: loss and negatives are used.
    """
    signs = 2.0 * jax.nn.one_hot(labels, class_scores.shape[-1]) - 1
    margin_losses = _margin_loss(signs * class_scores, problem)
    return jnp.sum(_class_weights(signs, key, problem.negatives) * margin_losses, axis=-1)


def rate(step: Int[Array, ""], problem: Svm) -> Float[Array, ""]:
    """Return the learning rate of the step that follows `step` others."""
    return problem.rate / (1 + problem.regularisation * problem.rate * step) ** problem.power


def descend(
    value: Float[Array, "..."], gradient: Float[Array, "..."], length: Float[Array, ""], problem: Svm
) -> Float[Array, "..."]:
    """Return weights or biases after a descent step of the loss and the regulariser.

    Args:
      value: weights or biases.
      gradient: of the loss.
      length: the learning rate.
      problem: regularisation is used.
    """
    return (1 - length * problem.regularisation) * value - length * gradient


def update_average(
    mean: Float[Array, "..."], value: Float[Array, "..."], step: Int[Array, ""], average_from: int
) -> Float[Array, "..."]:
    """Return the mean of the values after the steps from `average_from` to `step`, both counted from 0.

    Before `average_from` the result is the value itself.

    Args:
      mean: of the values after the steps before this one.
      value: after this step.
      step: number of this step.
      average_from: number of the first step that counts.
    """
    return mean + (value - mean) / jnp.maximum(step - average_from + 1, 1)


def objective(
    x: Float[Array, "n f"],
    labels: Int[Array, " n"],
    weights: Float[Array, "f c"],
    bias: Float[Array, " c"],
    problem: Svm,
) -> Float[Array, " c"]:
    """Return the objective of each class, where all classes count for every image."""
    signs = 2.0 * jax.nn.one_hot(labels, bias.shape[0]) - 1
    losses = jnp.mean(_margin_loss(signs * scores(x, weights, bias, problem), problem), axis=0)
    return losses + 0.5 * problem.regularisation * (jnp.sum(weights**2, 0) + bias**2)


def _margin_loss(margins: Float[Array, "n c"], problem: Svm) -> Float[Array, "n c"]:
    hinge = jax.nn.relu(1 - margins)
    return hinge**2 if problem.loss == "squared_hinge" else hinge


def _class_weights(signs: Float[Array, "n c"], key: Key[Array, ""], negatives: int) -> Float[Array, "n c"]:
    """Return 1 for the classes for which an image counts, 0 for the others."""
    classes = signs.shape[-1]
    if not negatives or negatives >= classes - 1:
        return jnp.ones_like(signs)
    drawn = jnp.where(signs > 0, -1.0, jax.random.uniform(key, signs.shape))
    _, chosen = jax.lax.top_k(drawn, negatives)
    return jnp.where(signs > 0, 1.0, jax.nn.one_hot(chosen, classes).sum(1))
