"""Codes against plain transcriptions, descriptor by descriptor, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.features.encoding import codebook_codes
from imagenet_repro.features.encoding.pyramid import Pyramid, layout

N, T, D, K = 2, 60, 7, 12


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    x, codebook = rng.normal(size=(N, T, D)).astype(np.float32), rng.normal(size=(K, D)).astype(np.float32)
    members = Pyramid(((1, 1), (2, 2))).members(rng.uniform(size=(T, 2)))
    where = layout(members)
    return x, codebook, members, where, jnp.asarray(x[:, where.order])


def distances(vector, codebook):
    return ((vector.astype(np.float64) - codebook) ** 2).sum(1)


def test_hard_bags_are_histograms_of_nearest_words(case):
    x, codebook, members, where, ordered = case
    result = np.asarray(codebook_codes.bag(codebook_codes.hard(ordered, jnp.asarray(codebook)), where))
    for image, cells in zip(x, result, strict=True):
        words = np.array([distances(v, codebook).argmin() for v in image])
        for cell, histogram in zip(members, cells, strict=True):
            np.testing.assert_allclose(histogram, np.bincount(words[cell], minlength=K) / cell.sum(), atol=1e-6)


def test_soft_codes_are_gaussians_of_the_distance(case):
    x, codebook, _, _, _ = case
    result = np.asarray(codebook_codes.soft(jnp.asarray(x), jnp.asarray(codebook), sigma=0.7))
    for image, codes in zip(x, result, strict=True):
        for vector, code in zip(image, codes, strict=True):
            kernel = np.exp(-distances(vector, codebook) / (2 * 0.7**2))
            np.testing.assert_allclose(code, kernel / kernel.sum(), atol=1e-5)


def llc_code(vector, codebook, neighbours=5, regularisation=1e-4):
    """Minimise ||x - B c||^2 over the nearest words, coefficients of sum 1, with a Lagrange multiplier (Wang 2010)."""
    near = np.argsort(distances(vector, codebook))[:neighbours]
    words = codebook[near].astype(np.float64)
    z = words - vector
    c = z @ z.T
    c += np.eye(neighbours) * regularisation * np.trace(c)
    system = np.block([[2 * c, np.ones((neighbours, 1))], [np.ones((1, neighbours)), np.zeros((1, 1))]])
    code = np.zeros(len(codebook))
    code[near] = np.linalg.solve(system, np.r_[np.zeros(neighbours), 1])[:neighbours]
    return code


def test_llc_is_the_constrained_minimum_and_its_pool_the_largest(case):
    x, codebook, members, where, ordered = case
    result = np.asarray(codebook_codes.llc(ordered, jnp.asarray(codebook), where))
    for image, cells in zip(x, result, strict=True):
        codes = np.array([llc_code(v, codebook) for v in image])
        np.testing.assert_allclose(codes.sum(1), 1)
        for cell, pooled in zip(members, cells, strict=True):
            np.testing.assert_allclose(pooled, np.maximum(codes[cell].max(0), 0), atol=1e-3)


def test_a_descriptor_that_is_a_word_has_the_code_of_that_word():
    codebook = jnp.asarray(np.random.default_rng(1).normal(size=(K, D)), jnp.float32)
    numbers, weights = codebook_codes.llc_coefficients(
        codebook[None, 3:4], codebook, neighbours=5, regularisation=1e-4
    )
    assert int(numbers[0, 0, 0]) == 3
    np.testing.assert_allclose(weights[0, 0], [1, 0, 0, 0, 0], atol=1e-2)


def test_identical_words_give_finite_codes():
    result = codebook_codes.llc(jnp.ones((1, 4, D)), jnp.ones((6, D)), layout(np.ones((1, 4), bool)))
    assert np.isfinite(result).all()


def test_super_vectors_are_the_papers_sum(case):
    x, codebook, members, where, ordered = case
    result = np.asarray(codebook_codes.super_vector(ordered, jnp.asarray(codebook), where, constant=0.5))
    for image, cells in zip(x, result, strict=True):
        words = np.array([distances(v, codebook).argmin() for v in image])
        for cell, code in zip(members, cells, strict=True):
            expected = np.zeros((K, D + 1))
            for word in set(words[cell]):
                own = image[cell & (words == word)]
                share = len(own) / cell.sum()
                for vector in own:
                    expected[word] += np.r_[0.5, vector - codebook[word]] / (cell.sum() * np.sqrt(share))
            np.testing.assert_allclose(code.reshape(K, D + 1), expected, atol=1e-5)
