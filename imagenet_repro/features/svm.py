"""Linear support vector machines, one class against the rest, all classes at once, by averaged stochastic descent.

For each class c, with y = 1 for its images and -1 for the others, the objective is

    lambda / 2 |w_c|^2 + mean over images of loss(y (w_c . x + b_c))

Steps shrink as in Bottou's `sgd` and `asgd` (Bottou 2010; Xu 2011, arXiv 1107.2490), to rate_0 / (1 + lambda rate_0
t)^power at step t, and what is kept is the average of the weights over the steps, as Lin et al. 2011 trained the entry
of 2010. Negatives may be sampled (Perronnin, Akata, Harchaoui & Schmid, "Towards good practice in large-scale learning
for image classification", 2012; Akata et al. 2014): an image then counts for its own class and for a few others.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Loss = Literal["hinge", "squared_hinge"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be minimised, and by which steps.

    Attributes:
      regularisation: lambda.
      loss: "hinge", max(0, 1 - margin), or "squared_hinge", its square.
      bias: value of a feature that all images have and whose weights are the biases, regularised as the others; 0:
        there are none.
      negatives: classes, drawn anew for each image and step, for which an image counts beside its own; 0: all.
      rate: the first step's length.
      power: of the schedule; 0: all steps are as long as the first.
      average_from: the step from which on weights are averaged.
    """

    regularisation: float = 1e-5
    loss: Loss = "hinge"
    bias: float = 1.0
    negatives: int = 0
    rate: float = 0.1
    power: float = 0.75
    average_from: int = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the descent is.

    Attributes:
      weights: [features, classes].
      bias: [classes]; the scores' constant is this times `Problem.bias`.
      mean_weights: averages of `weights` over the steps.
      mean_bias: averages of `bias`.
      step: how many steps there were.
    """

    weights: Float[Array, "f c"]
    bias: Float[Array, " c"]
    mean_weights: Float[Array, "f c"]
    mean_bias: Float[Array, " c"]
    step: Int[Array, ""]


def create(features: int, classes: int) -> State:
    """Weights of zero."""
    zeros = (jnp.zeros((features, classes)), jnp.zeros(classes))
    return State(*zeros, *map(jnp.copy, zeros), jnp.zeros((), jnp.int32))


def scores(x: Float[Array, "n f"], state: State, problem: Problem, *, averaged: bool = True) -> Float[Array, "n c"]:
    """Of every class, higher where it is likelier: they stand where a network has its logits."""
    weights, bias = (state.mean_weights, state.mean_bias) if averaged else (state.weights, state.bias)
    return x @ weights + problem.bias * bias


def update(
    state: State, x: Float[Array, "n f"], labels: Int[Array, " n"], key: Key[Array, ""], problem: Problem
) -> tuple[State, Float[Array, ""]]:
    """One step on a batch, and the batch's loss before it, summed over classes and averaged over images.

    Args:
      state: before the step.
      x: codes.
      labels: class numbers.
      key: of the negatives that are sampled; the number of the step is folded into it.
      problem: what is minimised.
    """
    signs = 2.0 * jax.nn.one_hot(labels, state.bias.shape[0]) - 1
    margins = signs * scores(x, state, problem, averaged=False)
    counts = _counting(labels, signs, jax.random.fold_in(key, state.step), problem.negatives)
    short = jnp.maximum(1 - margins, 0)
    squared = problem.loss == "squared_hinge"
    loss = jnp.sum(counts * (short**2 if squared else short)) / len(x)
    slope = -signs * counts * (2 * short if squared else (short > 0)) / len(x)
    rate = problem.rate / (1 + problem.regularisation * problem.rate * state.step) ** problem.power
    shrink = 1 - rate * problem.regularisation
    weights = shrink * state.weights - rate * (x.T @ slope)
    bias = shrink * state.bias - rate * problem.bias * slope.sum(0)
    share = 1 / jnp.maximum(state.step - problem.average_from + 1, 1)
    return State(
        weights,
        bias,
        state.mean_weights + share * (weights - state.mean_weights),
        state.mean_bias + share * (bias - state.mean_bias),
        state.step + 1,
    ), loss


def _counting(
    labels: Int[Array, " n"], signs: Float[Array, "n c"], key: Key[Array, ""], negatives: int
) -> Float[Array, "n c"]:
    """1 for the classes for which an image counts."""
    classes = signs.shape[-1]
    if not negatives or negatives >= classes - 1:
        return jnp.ones_like(signs)
    drawn = jnp.where(signs > 0, -1.0, jax.random.uniform(key, signs.shape))
    _, chosen = jax.lax.top_k(drawn, negatives)
    return jnp.where(signs > 0, 1.0, jax.nn.one_hot(chosen, classes).sum(1))


@functools.partial(jax.jit, static_argnames="problem")
def objective(x: Float[Array, "n f"], labels: Int[Array, " n"], state: State, problem: Problem) -> Float[Array, " c"]:
    """What is minimised, for each class, at the averaged weights; all classes count for every image."""
    signs = 2.0 * jax.nn.one_hot(labels, state.bias.shape[0]) - 1
    short = jnp.maximum(1 - signs * scores(x, state, problem), 0)
    losses = jnp.mean(short**2 if problem.loss == "squared_hinge" else short, axis=0)
    return losses + 0.5 * problem.regularisation * (jnp.sum(state.mean_weights**2, 0) + state.mean_bias**2)
