import re
from collections import Counter

import numpy as np
import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.report import audit_page
from imagenet_repro.report.audit_page import AuditedSystem, LabelAudit
from imagenet_repro.scoring import label_audit
from imagenet_repro.scoring.label_audit import Suspects, Verdict
from tests.report.test_comparison_page import HOSTILE, Document, sections

IDS = np.array([f"image{i}" for i in range(10)])
LABELS = np.arange(10, dtype=np.int32) % 5
NAMES = ("bee, Apis", "crane", HOSTILE, "tabby", "plate")


def guessing(wrong, second=()):
    """Return guesses that miss the images `wrong` and have the label of the images `second` as the second guess."""
    top5 = np.stack([LABELS, (LABELS + 1) % 5], 1)
    top5[list(wrong)] = np.stack([LABELS + 2, LABELS + 3], 1)[list(wrong)] % 5
    top5[list(second)] = top5[list(second), ::-1]
    return top5


def audit(suspected=(3, 7, 8), verdicts=None, names=("a", "b")):
    image = np.array(suspected, np.int32)
    given = LABELS[image]
    shares = np.linspace(0.1, 0.3, len(image)).astype(np.float32)
    result = Suspects(image, given, (given + 1) % 5, shares, 1 - shares, 0.25)
    truths = [label_audit.given_labels(LABELS), label_audit.without_suspects(LABELS, result)]
    if verdicts:
        truths.append(label_audit.corrected_by_verdicts(IDS, LABELS, verdicts))
    a, b = AuditedSystem(names[0], guessing((3, 7, 8, 0), (1,))), AuditedSystem(names[1], guessing((3, 5)))
    return LabelAudit(
        "photos validation",
        NAMES,
        IDS,
        result,
        (a,),
        (a, b),
        tuple(truths),
        Counter(one.verdict for one in (verdicts or {}).values()),
        0.0583,
    )


def test_every_rate_with_and_without_the_suspects():
    one = audit(verdicts={"image0": Verdict("suggested", 2), "image3": Verdict("neither", 0)})
    table = audit_page.rates(one)
    cells = {(row[0], row[1]): (row[6], row[2], row[4]) for row in table.rows}
    assert cells == {
        ("a", "labels as given"): ("10", "50.0", "40.0"),
        ("a", "without suspects"): ("7", "28.6", "14.3"),
        ("a", "by verdicts"): ("9", "33.3", "22.2"),
        ("b", "labels as given"): ("10", "20.0", "20.0"),
        ("b", "without suspects"): ("7", "14.3", "14.3"),
        ("b", "by verdicts"): ("9", "22.2", "22.2"),
    }
    people = "People checked 2 images: 0 keep, 1 suggested, 0 both, 1 neither."
    assert audit_page.verdict(one).splitlines()[2:] == [people, "By verdicts, its top-1 error is 33.3 %, not 50.0 %."]
    assert table.rows[0][3] == "[23.7, 76.3]"  # Wilson's interval of 5 of 10, from a table


def test_differences_with_and_without_the_suspects():
    rows = audit_page.differences(audit()).rows
    assert [row[:5] for row in rows] == [
        ("a", "b", "1", "labels as given", "+30.0"),
        ("a", "b", "1", "without suspects", "+14.3"),
        ("a", "b", "5", "labels as given", "+20.0"),
        ("a", "b", "5", "without suspects", "0.0"),
    ]
    assert rows[0][6] == "0.219"  # mid-p of 4 against 1: 2 (6/32 - 5/64)


def test_the_effect_of_wrong_labels_on_a_pair():
    (one, five) = audit_page.noise_of_pairs(audit()).rows
    # Only a is wrong on 4 images, only b on 1, both on 1: a difference of 30 points, ± twice 5.83.
    assert one == ("a", "b", "1", "+30.0", "[18.3, 41.7]", "+32.36")
    assert five[:5] == ("a", "b", "5", "+20.0", "[8.3, 31.7]")


def test_a_single_system_has_no_differences():
    one = audit()
    alone = LabelAudit(one.setting, NAMES, IDS, one.suspects, one.auditors, (), one.truths, {}, 0.0583)
    assert audit_page.differences(alone) is None
    assert audit_page.noise_of_pairs(alone) is None
    assert audit_page.noise(alone).rows[1] == ("1.0", "[−10.7, 12.7]", "1.08")


def test_suspects_by_class_and_as_a_table_for_people():
    one = audit(suspected=(3, 8, 0))
    assert audit_page.pairs_of_classes(one).rows == (("tabby", "plate", "2"), ("bee", "crane", "1"))
    rows = audit_page.suspects(one).rows
    assert rows[0] == ("1", "image3", "3", "4", "tabby", "plate", "0.1000", "0.9000")
    assert [row[0] for row in rows] == ["1", "2", "3"]


def test_the_page_shows_what_the_tables_say(tmp_path):
    one = audit(suspected=(2, 7, 8))
    page = audit_page.write(one, tmp_path / "out", lambda ids: {"image2": b"\xff\xd8jpeg"})
    document = Document(page.read_text())
    assert sections(document) == ["rates", "differences", "noise", "suspects", "pairs"]
    assert document.tables["table-error_rates_restated"][1][:3] == ["a", "labels as given", "50.0"]
    assert "3 of 10 labels (30.0 %) are suspect." in document.text
    assert "Without suspects, its top-1 error is 42.9 %, not 50.0 %." in document.text
    assert "anywhere from −10.7 to 12.7 points, and on average for 1.08" in document.text
    images = [result for result in document.attributes("img") if result["src"].startswith("data:image/jpeg")]
    assert [result["alt"] for result in images] == ["suspect 1: image2"]
    assert HOSTILE not in page.read_text()
    assert HOSTILE in document.text
    verdicts = label_audit.read_verdicts(_with_verdicts(tmp_path / "out/suspects.csv"), NAMES)
    assert verdicts["image2"] == Verdict("both", 3)
    assert sorted(path.stem for path in (tmp_path / "out/tables").glob("*.csv")) == sorted(
        re.findall(r'id="table-(\w+)"', page.read_text())
    )


def _with_verdicts(path):
    heading, *lines = path.read_text().splitlines()
    checked = path.with_name("checked.csv")
    checked.write_text("\n".join([f"{heading},verdict", *(f"{line},both" for line in lines)]))
    return checked


def test_without_suspects_or_images_of_them(tmp_path):
    page = audit_page.write(audit(suspected=()), tmp_path, None)
    document = Document(page.read_text())
    assert "a finds none of 10 labels suspect." in document.text
    assert sections(document) == ["rates", "differences", "noise"]
    assert (tmp_path / "suspects.csv").read_text().count("\n") == 1
    assert not Document(audit_page.write(audit(), tmp_path, None).read_text()).attributes("img")


def test_a_page_where_all_images_are_suspects(tmp_path):
    table = audit_page.rates(audit(suspected=range(10)))
    assert table.rows[1] == ("a", "without suspects", *["–"] * 4, "0")
    assert audit_page.write(audit(suspected=range(10)), tmp_path, None).exists()


def test_a_path_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="could not write"):
        audit_page.write(audit(), tmp_path / "file", None)
