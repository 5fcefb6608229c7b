import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.errors import SaveError
from imagenet_repro.report import zoo_listing
from imagenet_repro.report.plots import history
from imagenet_repro.zoo.entries import ENTRIES
from imagenet_repro.zoo.published import network_facts, year
from tests.report import plot_helpers


@pytest.fixture
def figures(monkeypatch):
    drawn_figures = []
    monkeypatch.setattr(history, "write", lambda figure, *_: drawn_figures.append(figure) or [])
    return drawn_figures


def marks(panel, shapes=("o", "s", "^")):
    result = [line for line in panel.lines if line.get_marker() in shapes and len(line.get_xdata())]
    return [(float(x), float(y)) for line in result for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def two(**fields):
    systems = (
        plot_helpers.system("deep", plot_helpers.run(top5=120), network="resnet50"),
        plot_helpers.system(
            "vectors", plot_helpers.run(0, top5=300), plot_helpers.run(1, top5=320), network="xrce_2011"
        ),
    )
    return plot_helpers.comparison(*systems, **fields)


def test_years_are_those_of_networks_their_aliases_and_entries():
    assert year("resnet50") == network_facts("resnet50").year == 2015
    assert year(models.aliases()[0]) == network_facts(models.aliases()[0]).year
    assert year("nec_uiuc_2010") == 2010
    assert year("nobody_knows") is None


def test_entries_stand_at_their_years_and_the_person_is_a_line(tmp_path, figures):
    history.plot_history(two(), tmp_path / "h.png")
    panel = figures[0].axes[0]
    expected = {(entry.year, entry.top5) for entry in ENTRIES if "person" not in entry.who}
    assert set(marks(panel, "D")) == expected
    assert [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() not in ("-", "None")] == [5.1]
    texts = [text.get_text() for text in panel.texts]
    assert {"XRCE 25.8", "WMW 2.25", "VGG, second 7.3", "a person: 5.1 on 1,500 test images"} <= set(texts)
    hollow = next(line for line in panel.lines if line.get_label() == "other entry")
    assert sorted(hollow.get_ydata()) == [7.3, 11.7, 16.4]


def test_other_data_has_a_panel_of_its_own(tmp_path, figures):
    history.plot_history(two(), tmp_path / "h.png")
    challenge, ours = figures[0].axes
    assert marks(challenge) == []
    np.testing.assert_allclose(marks(ours), [(2015, 12), (2011, 31)])
    assert challenge.get_xlim() == ours.get_xlim()
    assert "folder:/flowers" in ours.get_title("left")
    assert "cannot be compared" in figures[0].get_supxlabel()


@pytest.mark.parametrize(
    ("scored", "panels"),
    [
        (("imagenet2012", "validation", 50), 1),
        (("imagenet2012_side400_q90:5.1.0", "validation", 50), 1),
        (("imagenet2012", "validation[:50%]", 50), 2),
        (("imagenet2012", "validation", 49), 2),
        (("imagenet_v2", "validation", 50), 2),
    ],
)
def test_only_all_of_imagenets_validation_set_shares_the_axis(figures, monkeypatch, scored, panels):
    data, split, images = scored
    monkeypatch.setattr(zoo_listing, "VALIDATION_IMAGES", 50)
    one = plot_helpers.system("net", plot_helpers.run(top1=20, top5=10, images=images))
    history.plot_history(plot_helpers.comparison(one, data=data, split=split), "h.png")
    assert len(figures[0].axes) == panels
    point = (2015, 100 * 10 / images)
    np.testing.assert_allclose([mark for mark in marks(figures[0].axes[-1]) if mark[0] == 2015], [point])


def test_a_network_of_unknown_year_is_left_out_and_named(tmp_path, figures):
    unknown = plot_helpers.system("mine", plot_helpers.run(), network="my_own")
    history.plot_history(plot_helpers.comparison(unknown, *two().systems), tmp_path / "h.png")
    assert len(marks(figures[0].axes[1])) == 2
    assert "Not shown (no known year): mine." in figures[0].get_supxlabel().replace("\n", " ")
    history.plot_history(plot_helpers.comparison(unknown), tmp_path / "h.png")
    assert len(figures[1].axes) == 1


@pytest.mark.parametrize(("systems", "seeds"), [(1, 1), (12, 3)])
def test_files_are_sound_and_name_every_known_system(tmp_path, systems, seeds):
    comparison = plot_helpers.plausible(systems, seeds, ", <a> & $b$")
    png, svg = history.plot_history(comparison, tmp_path / "new/h.png")
    assert (png, svg) == (tmp_path / "new/h.png", tmp_path / "new/h.svg")
    plot_helpers.check_svg(svg)
    known = [system.name for system in comparison.systems if year(system.network) is not None]
    assert len(known) >= systems - 1
    assert set(known) <= set(plot_helpers.words(svg))


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="history"):
        history.plot_history(two(), tmp_path / "file/h.png")
