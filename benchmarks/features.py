"""Images/s from pixels to Fisher vectors, against the same pipeline written with OpenCV and NumPy, in one run.

    python benchmarks/features.py --images=DIR

The pipeline is dense SIFT on a grid at four scales, 64 principal components, a mixture of 256 Gaussians, and improved
Fisher vectors of the complete image and of three strips. All implementations get the same uint8 images of 64 pixels,
points, PCA and mixture, and use all cores that they can use; the images are the files below DIR. All encode the same
batches and drop the vectors, half a megabyte for an image, as the compression that follows would. They alternate; the
table has the median rate of each, and the ratio of this package's rate to it.

OpenCV is called in two ways. "points of four sizes" is how dense SIFT is commonly written: one call on the image, with
keypoints as large as the patches. "resized images" calls it once for each scale on a resized image, which is less work
and gives the same vectors as this package; the last line gives their distance.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

SIZE = 64
BATCH = 8  # images at a time, few enough that intermediate results stay in the caches
SAMPLE, COMPARED = 256, 32  # images from which the model is learned; images whose vectors are compared
SCALES = (2**0.5, 1.0, 0.5**0.5, 0.5)
PATCH, STEP = 16, 4
COMPONENTS, GAUSSIANS = 64, 256
DIVISIONS = ((1, 1), (3, 1))


def main():
    """Fit the model once, then time all implementations in turns."""
    arguments = _arguments()
    images = _images(arguments.images, arguments.count)
    package = PackagePipeline(images)
    package(images[:BATCH])
    resized, common = ResizedPipeline(package), FourSizesPipeline(package)
    few = images[: arguments.peer_count]
    vectors = [np.concatenate(list(_batches(pipeline, few[:COMPARED]))) for pipeline in (package, resized)]
    turns = [[_rate(package, images), _rate(resized, few), _rate(common, few)] for _ in range(arguments.turns)]
    print(_table(np.median(turns, axis=0), _distance(*vectors), package, len(images)))


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="a folder with .jpg or .png files, at any depth")
    parser.add_argument("--count", type=int, default=1024, help="images of a turn")
    parser.add_argument("--peer_count", type=int, default=64, help="images of a turn of OpenCV")
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


def _images(folder, count):
    import cv2

    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:count]]
    images = (np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)) for path in chosen)
    return np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in images])


class PackagePipeline:
    """The pipeline of this package, compiled for JAX's default device.

    Args:
      images: uint8 [n, 64, 64, 3]; the model is learned from the first `sample` of them.
      sample: their number.
      model: a pipeline whose model is taken in place of a learned one.
    """

    def __init__(self, images, sample=SAMPLE, model=None):
        import jax

        from imagenet_repro.features.descriptors import grid, sift
        from imagenet_repro.features.encoding import fisher, pca, pyramid

        self.grid = grid.Grid(patch=PATCH, step=STEP, scales=SCALES)
        self.layout = pyramid.layout(pyramid.Pyramid(DIVISIONS).members(self.grid.places(SIZE, SIZE)))
        self.pca, self.mixture = (model.pca, model.mixture) if model else self._learn(images[:sample])

        @jax.jit
        def encode(batch):
            descriptors = pca.project(grid.describe(batch, self.grid, sift.sift, luma=True), self.pca)
            return fisher.encode(descriptors[:, self.layout.order], self.mixture, self.layout)

        self.encode = encode

    def _learn(self, images):
        """Return principal components and a mixture of Gaussians of the descriptors of images."""
        import jax
        import jax.numpy as jnp

        from imagenet_repro.features.descriptors import grid, sift
        from imagenet_repro.features.encoding import mixture, pca

        @jax.jit
        def describe(batch):
            return grid.describe(batch, self.grid, sift.sift, luma=True)

        batches = range(0, len(images), BATCH)
        sample = np.concatenate([np.asarray(describe(images[i : i + BATCH])) for i in batches])
        sample = sample.reshape(-1, sample.shape[-1])
        moments = pca.Moments(sample.shape[-1])
        moments.add(sample)
        projection = pca.fit(moments, COMPONENTS)
        projected = pca.project(jnp.asarray(sample[::3]), projection)
        return projection, mixture.fit(projected, GAUSSIANS, jax.random.key(0), iterations=10)

    def __call__(self, images):
        """Return Fisher vectors, [n, cells, numbers]."""
        return np.asarray(self.encode(images))


class OpenCVPipeline:
    """OpenCV's SIFT at the same points, and the rest in NumPy; subclasses call SIFT."""

    def __init__(self, package):
        import cv2

        self.cv2, self.grid, self.pca = cv2, package.grid, package.pca
        mixture = package.mixture
        self.weights, self.means, self.variances = map(np.asarray, (mixture.weights, mixture.means, mixture.variances))
        self.levels = self.grid.levels(SIZE, SIZE)
        from imagenet_repro.features.encoding.pyramid import Pyramid

        self.members = Pyramid(DIVISIONS).members(self.grid.places(SIZE, SIZE))
        self.sift = cv2.SIFT_create(sigma=0.5)  # pyright: ignore[reportAttributeAccessIssue]  # missing in the stubs
        self.points = [self._points(level) for level in self.levels]

    def _points(self, level, shrunk=1.0):
        """Return a level's keypoints on an image that is 1 / `shrunk` times as large."""
        places = [(x / shrunk, y / shrunk) for y in level.rows for x in level.columns]
        return [self.cv2.KeyPoint(float(x), float(y), PATCH / 4 / 1.5 / shrunk, 0.0, 1.0, 0) for x, y in places]

    def __call__(self, images):
        """Return Fisher vectors, [n, cells, numbers]."""
        return np.stack([self._one(image) for image in images])

    def _one(self, image):
        x = self._describe(self.cv2.cvtColor(image, self.cv2.COLOR_RGB2GRAY)) / 512
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-7)
        return self._fisher((x - self.pca.mean) @ self.pca.components.T)

    def _describe(self, grey):
        raise NotImplementedError

    def _fisher(self, x):
        w, mu, var = self.weights, self.means, self.variances
        logs = x**2 @ (1 / var).T - 2 * x @ (mu / var).T + (mu**2 / var).sum(1)
        logs = np.log(w) - 0.5 * (np.log(2 * np.pi * var).sum(1) + logs)
        gamma = np.exp(logs - logs.max(1, keepdims=True))
        gamma /= gamma.sum(1, keepdims=True)
        vectors = []
        for cell in self.members:
            g, v = gamma[cell], x[cell]
            zeroth, first, second = g.sum(0)[:, None], g.T @ v, g.T @ v**2
            scale = 1 / (max(len(v), 1) * np.sqrt(w))[:, None]
            of_means = scale * (first - zeroth * mu) / np.sqrt(var)
            of_sigmas = scale * ((second - 2 * first * mu + zeroth * mu**2) / var - zeroth) / np.sqrt(2)
            vector = np.concatenate([of_means.ravel(), of_sigmas.ravel()])
            vector = np.sign(vector) * np.sqrt(np.abs(vector))
            vectors.append(vector / max(np.linalg.norm(vector), 1e-12))
        return np.stack(vectors)


class ResizedPipeline(OpenCVPipeline):
    """One call of SIFT for each scale, on a resized image."""

    def _describe(self, grey):
        cv2, descriptors = self.cv2, []
        for level, points in zip(self.levels, self.points, strict=True):
            method = cv2.INTER_AREA if level.height < SIZE else cv2.INTER_LINEAR
            resized = cv2.resize(grey, (level.width, level.height), interpolation=method)
            descriptors.append(self.sift.compute(resized, points)[1])
        return np.concatenate(descriptors)


class FourSizesPipeline(OpenCVPipeline):
    """One call of SIFT, with keypoints of four sizes."""

    def __init__(self, package):
        super().__init__(package)
        self.all_points = [point for level in self.levels for point in self._points(level, level.height / SIZE)]

    def _describe(self, grey):
        return self.sift.compute(grey, self.all_points)[1]


def _distance(one, other):
    """Return the median over images of one minus the cosine."""
    one, other = (x.reshape(len(x), -1) for x in (one, other))
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return float(np.median(1 - cosines))


def _batches(pipeline, images):
    return (pipeline(images[i : i + BATCH]) for i in range(0, len(images), BATCH))


def _rate(pipeline, images):
    began = time.perf_counter()
    for _ in _batches(pipeline, images):
        pass
    return len(images) / (time.perf_counter() - began)


def _table(rates, distance, package, count):
    from imagenet_repro.storage import provenance

    source = provenance.collect()
    points = len(package.grid.places(SIZE, SIZE))
    names = ("this package", "OpenCV and NumPy, resized images", "OpenCV and NumPy, points of four sizes")
    return "\n".join(
        [
            f"{count} images of {SIZE} px, {points} points, {COMPONENTS} components, {GAUSSIANS} Gaussians;"
            f" devices {source['devices']}; jax {source['packages']['jax']}; commit {source['commit'][:12]}",
            "",
            "| | images/s | ratio |",
            "|---|---:|---:|",
            *(f"| {name} | {rate:,.1f} | {rates[0] / rate:.1f} |" for name, rate in zip(names, rates, strict=True)),
            "",
            f"One minus the cosine between the vectors of this package and those of resized images: {distance:.1e}"
            " (the two resize and round differently).",
        ]
    )


if __name__ == "__main__":
    main()
