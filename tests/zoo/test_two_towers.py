"""The sizes of networks with two towers, against new counts and against open_clip's own profile of its networks."""

import pytest

from imagenet_repro.models.image_text import TWO_TOWERS
from imagenet_repro.zoo import two_towers
from imagenet_repro.zoo.two_towers import count, tower_sizes

# Millions of parameters of images and texts, and billions of operations (two for a multiply-add), from
# docs/model_profile.csv of open_clip 3.3.
PROFILE = {
    "clip_vit_base_patch32": (87.85, 63.43, 8.82, 5.96),
    "clip_vit_base_patch16": (86.19, 63.43, 35.13, 5.96),
    "clip_vit_large_patch14": (303.97, 123.65, 162.03, 13.3),
    "clip_vit_large_patch14_336": (304.29, 123.65, 381.92, 13.3),
    "clip_vit_huge_patch14": (632.08, 354.03, 334.59, 47.09),
    "clip_vit_huge_patch14_378": (632.68, 354.03, 1006.96, 47.09),
    "clip_vit_giant_patch14": (1012.65, 354.03, 534.06, 47.09),
    "clip_vit_gigantic_patch14": (1844.91, 694.66, 967.5, 97.86),
    "siglip_vit_base_patch16_224": (92.88, 110.27, 35.42, 11.02),
    "siglip_vit_base_patch16_256": (92.93, 110.27, 46.82, 11.02),
    "siglip_vit_base_patch16_384": (93.18, 110.27, 112.13, 11.02),
    "siglip_vit_base_patch16_512": (93.52, 110.27, 216.24, 11.02),
    "siglip_i18n_vit_base_patch16_256": (92.93, 277.7, 46.82, 11.02),
    "siglip_vit_large_patch16_256": (315.96, 336.19, 162.56, 39.06),
    "siglip_vit_large_patch16_384": (316.28, 336.19, 383.85, 39.06),
    "siglip_vit_so400m_patch14_224": (427.68, 449.68, 220.35, 13.19),
    "siglip_vit_so400m_patch14_384": (428.23, 449.73, 670.35, 53.13),
}


@pytest.mark.parametrize(("name", "expected"), PROFILE.items())
def test_sizes_are_those_of_open_clips_profile(name, expected):
    size = tower_sizes(name)
    counts = (size.image_parameters / 1e6, size.text_parameters / 1e6)
    operations = (2 * size.image_multiply_adds / 1e9, 2 * size.text_multiply_adds / 1e9)
    assert (*counts, *operations) == pytest.approx(expected, abs=0.006)


def test_the_sizes_of_every_network_are_stored():
    assert list(two_towers._stored()) == list(TWO_TOWERS)


SLOW = [name for name in TWO_TOWERS if name not in ("clip_vit_base_patch32", "ours_tiny_siglip")]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in TWO_TOWERS])
def test_stored_sizes_are_those_of_new_counts(name):
    assert tower_sizes(name) == count(name)
