"""Linear support vector machines, one class against the rest, all classes at once, by averaged stochastic descent.

For each class c, with y = 1 for its images and -1 for the others, the objective is

    lambda / 2 (|w_c|^2 + b_c^2) + mean over images of loss(y (w_c . x + bias b_c))

Steps shrink as in Bottou's `sgd` and `asgd` (Bottou 2010; Xu 2011, arXiv 1107.2490), to rate_0 / (1 + lambda rate_0
t)^power at step t, and what is kept is the average of the weights over the steps, as Lin et al. 2011 trained the entry
of 2010. Negatives may be sampled (Perronnin, Akata, Harchaoui & Schmid, "Towards good practice in large-scale learning
for image classification", 2012; Akata et al. 2014): an image then counts for its own class and for a few others.

`training/svm_step.py` has the step that is made of these parts.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from imagenet_repro.config import Svm


def scores(
    x: Float[Array, "n f"], weights: Float[Array, "f c"], bias: Float[Array, " c"], problem: Svm
) -> Float[Array, "n c"]:
    """Of every class, higher where it is likelier: they stand where a network has its logits."""
    return x @ weights + problem.bias * bias


def loss(
    found: Float[Array, "n c"], labels: Int[Array, " n"], key: Key[Array, ""], problem: Svm
) -> Float[Array, " n"]:
    """Of each image, summed over the classes that count for it.

    Args:
      found: scores.
      labels: class numbers.
      key: of the negatives that are sampled.
      problem: says which loss, and how many negatives.
    """
    signs = 2.0 * jax.nn.one_hot(labels, found.shape[-1]) - 1
    return jnp.sum(_counting(signs, key, problem.negatives) * _of_margins(signs * found, problem), axis=-1)


def rate(step: Int[Array, ""], problem: Svm) -> Float[Array, ""]:
    """The length of the step that follows `step` others."""
    return problem.rate / (1 + problem.regularisation * problem.rate * step) ** problem.power


def descended(
    value: Float[Array, "..."], gradient: Float[Array, "..."], length: Float[Array, ""], problem: Svm
) -> Float[Array, "..."]:
    """Weights or biases after a step along the gradient of the loss and of the regulariser."""
    return (1 - length * problem.regularisation) * value - length * gradient


def averaged(
    mean: Float[Array, "..."], value: Float[Array, "..."], step: Int[Array, ""], average_from: int
) -> Float[Array, "..."]:
    """The mean of the values after each step from number `average_from`, counted from 0, of which `step` is the last.

    Before `average_from` it is the value itself.
    """
    return mean + (value - mean) / jnp.maximum(step - average_from + 1, 1)


def objective(
    x: Float[Array, "n f"],
    labels: Int[Array, " n"],
    weights: Float[Array, "f c"],
    bias: Float[Array, " c"],
    problem: Svm,
) -> Float[Array, " c"]:
    """What is minimised, for each class; all classes count for every image."""
    signs = 2.0 * jax.nn.one_hot(labels, bias.shape[0]) - 1
    losses = jnp.mean(_of_margins(signs * scores(x, weights, bias, problem), problem), axis=0)
    return losses + 0.5 * problem.regularisation * (jnp.sum(weights**2, 0) + bias**2)


def _of_margins(margins: Float[Array, "n c"], problem: Svm) -> Float[Array, "n c"]:
    short = jax.nn.relu(1 - margins)
    return short**2 if problem.loss == "squared_hinge" else short


def _counting(signs: Float[Array, "n c"], key: Key[Array, ""], negatives: int) -> Float[Array, "n c"]:
    """1 for the classes for which an image counts."""
    classes = signs.shape[-1]
    if not negatives or negatives >= classes - 1:
        return jnp.ones_like(signs)
    drawn = jnp.where(signs > 0, -1.0, jax.random.uniform(key, signs.shape))
    _, chosen = jax.lax.top_k(drawn, negatives)
    return jnp.where(signs > 0, 1.0, jax.nn.one_hot(chosen, classes).sum(1))
