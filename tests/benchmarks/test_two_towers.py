"""The table of networks with two towers in results/zoo.md: its rows, and what is kept when it is written again."""

from pathlib import Path

import numpy as np

from benchmarks import two_towers
from imagenet_repro.models import image_text

ZOO = Path(__file__).parents[2] / "results" / "zoo.md"


def test_the_stored_table_has_the_counts_of_every_network():
    text = ZOO.read_text(encoding="utf-8")
    assert set(two_towers.measured(text)) <= set(two_towers.REFERENCES)
    assert text.endswith(two_towers.section(two_towers.measured(text)))


def test_every_published_network_has_a_reference_of_its_own():
    published = [name for name, design in image_text.TWO_TOWERS.items() if design.source != "ours"]
    assert list(two_towers.REFERENCES) == published
    assert len(set(two_towers.REFERENCES.values())) == len(published)


def test_writing_keeps_the_page_and_earlier_measurements(tmp_path):
    page = tmp_path / "zoo.md"
    page.write_text("# All networks\n\n| year |\n|---|\n| 1998 |\n", encoding="utf-8")
    first, second = ("1.0e-06", "2.0e-06", "a"), ("3.0e-06", "4.0e-06", "b")
    two_towers.write_section(page, {"clip_vit_base_patch32": first})
    two_towers.write_section(page, {"siglip_vit_base_patch16_224": second})
    text = page.read_text(encoding="utf-8")
    assert two_towers.measured(text) == {"clip_vit_base_patch32": first, "siglip_vit_base_patch16_224": second}
    assert text.startswith("# All networks\n\n| year |\n|---|\n| 1998 |\n\n## Networks with two towers\n")
    two_towers.write_section(page, {})
    assert page.read_text(encoding="utf-8") == text


def test_texts_end_with_the_highest_token():
    tokens = two_towers.token_rows(100, 8)
    np.testing.assert_array_equal(tokens.argmax(1), [4, 7])
    assert tokens.max() == 99
    assert (tokens[0, 5:] == 0).all()
