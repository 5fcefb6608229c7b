"""Ridge regression on a few images of each class, as google-research/big_vision's `fewshot_lsr` evaluates.

Features are shifted and scaled by the mean and the standard deviation of the chosen images. A constant feature of 100
takes the place of a bias, which is thus almost unregularised. The targets are 1 for the class of an image and -1 for
every other, and the loss is the sum of squared errors plus l2 times the sum of squared weights.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from imagenet_repro.errors import UserError

BIAS = 100.0  # the constant feature
EPSILON = 1e-5  # added to every standard deviation


@dataclasses.dataclass(frozen=True)
class Ridge:
    """A fitted classifier.

    Attributes:
      mean: of the features of the chosen images.
      scale: their standard deviations and 1e-5.
      weight: [d + 1, c]; the last row belongs to the constant feature.
    """

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weight: Float[np.ndarray, "e c"]

    def scores(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Return the predicted targets, float32."""
        x = (features.astype(np.float32) - self.mean.astype(np.float32)) / self.scale.astype(np.float32)
        weight = self.weight.astype(np.float32)
        return x @ weight[:-1] + np.float32(BIAS) * weight[-1]


def fit(features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], num_classes: int, l2: float) -> Ridge:
    """Return the exact minimum, in float64, from the smaller of two systems: of features or of images."""
    from scipy import linalg

    x = features.astype(np.float64)
    mean, scale = x.mean(0), x.std(0) + EPSILON
    x = np.pad((x - mean) / scale, ((0, 0), (0, 1)), constant_values=BIAS)
    targets = 2.0 * np.eye(num_classes)[labels] - 1.0
    if len(x) >= x.shape[1]:
        weight = linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets, assume_a="pos")
    else:
        weight = x.T @ linalg.solve(x @ x.T + l2 * np.eye(len(x)), targets, assume_a="pos")
    return Ridge(mean, scale, weight)


def draw(labels: Int[np.ndarray, " n"], shots: int, seed: int, class_names: tuple[str, ...]) -> Int[np.ndarray, " m"]:
    """Return the positions of the images that a draw chooses: of each class the first of a random order.

    As in big_vision, one generator permutes the images of one class after another, so that a draw of more shots
    contains a draw of fewer; with the labels in the order of the same tfds split, these are its images.

    Raises:
      UserError: a class has fewer images.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for number, name in enumerate(class_names):
        places = rng.permutation(np.flatnonzero(labels == number))
        if len(places) < shots:
            raise UserError(
                f"--probe.fewshot.shots: class '{name}' has {len(places)} training image(s) with features, and {shots}"
                " are to be drawn; give fewer shots, such as --probe.fewshot.shots=1,5, or a larger data.train_split"
            )
        chosen.append(places[:shots])
    return np.concatenate(chosen)
