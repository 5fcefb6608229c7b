import dataclasses
import io

import pytest
from rich.console import Console

from imagenet_repro.report import result_table
from imagenet_repro.report.result_table import ResultRow
from imagenet_repro.scoring.metrics import ErrorRates

ALEXNET = ResultRow("AlexNet", 61_100_840, 714_188_480, 38_400, 61.23, ErrorRates(2000, 764, 300))
RESNET = ResultRow("ResNet-50", 25_557_032, 4_089_184_256, 115_305_030, 112_320.4, ErrorRates(50_000, 11_906, 3_500))


def printed(rows, width, *, terminal=True):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    result_table.show(rows, console)
    return console.file.getvalue()


def test_markdown_is_the_table_of_the_issue():
    lines = result_table.markdown([ALEXNET, RESNET]).splitlines()
    assert lines[0] == (
        "| system | params | multiply-adds | images seen | training seconds "
        "| top-1 error % | 95 % interval, new images, these checkpoints "
        "| top-5 error % | 95 % interval, new images, these checkpoints |"
    )
    assert lines[2] == "| AlexNet | 61.1 M | 714 M | 38.4 k | 61.2 | 38.2 | [36.1, 40.4] | 15.0 | [13.5, 16.6] |"
    assert lines[3] == (
        "| ResNet-50 | 25.6 M | 4.09 G | 115 M | 112,320 | 23.81 | [23.44, 24.19] | 7.00 | [6.78, 7.23] |"
    )
    assert lines[-1] == ("Intervals are Wilson's over 2,000 or 50,000 scored images: new images, these checkpoints.")


def test_records_left_out_are_noted_below_the_table():
    rows = [ALEXNET, dataclasses.replace(RESNET, left_out=1234)]
    note = "Left out because they cannot be decoded: 1,234 records."
    assert result_table.markdown(rows).splitlines()[-1].endswith(f"these checkpoints. {note}")
    assert "Left out" not in result_table.markdown([ALEXNET])


def test_a_name_with_a_bar_does_not_break_the_markdown():
    row = ResultRow("a|b", 1, 1, 1, 1.0, ErrorRates(10, 5, 1))
    assert result_table.markdown([row]).splitlines()[2].startswith(r"| a\|b | 1 |")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_the_terminal_without_breaking_numbers(width):
    lines = printed([ALEXNET, RESNET], width).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for number in ("61.1 M", "4.09 G", "38.4 k", "112,320", "[36.1, 40.4]", "[23.44, 24.19]", "7.00"):
        assert number in text


def test_each_system_is_one_line_in_a_wide_terminal():
    (line,) = [line for line in printed([ALEXNET, RESNET], 100).splitlines() if "ResNet-50" in line]
    assert line.split() == [
        "ResNet-50", "25.6", "M", "4.09", "G", "115", "M", "112,320",
        "23.81", "[23.44,", "24.19]", "7.00", "[6.78,", "7.23]",
    ]  # fmt: skip


def test_names_in_a_file_are_complete_and_not_markup():
    name = "[bold]a system[/bold] whose name is rather long"
    row = ResultRow(name, 1, 1, 1, 1.0, ErrorRates(10, 5, 1))
    assert name in printed([row], 80, terminal=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (9_996, "10.0 k"), (99_951, "100 k"), (999_499, "999 k"),
        (999_501, "1.00 M"), (60_965_224, "61.0 M"), (714_188_480, "714 M"), (4.0892e9, "4.09 G"), (2e12, "2.00 T"),
        (9.996e14, "1.00 P"), (2.5e18, "2.50 E"),
    ],
)  # fmt: skip
def test_quantities_have_three_digits_and_a_unit(value, text):
    assert result_table.quantity(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0.0"), (9.96, "10.0"), (99.96, "100"), (86_400, "86,400")])
def test_seconds(value, text):
    assert result_table.seconds(value) == text


@pytest.mark.parametrize(("data", "shown"), [("imagenet2012", True), ("imagenet_v2/matched-frequency", False)])
def test_people_are_listed_below_errors_on_imagenet_only(data, shown):
    text = result_table.markdown([dataclasses.replace(RESNET, data=data)])
    assert ("a person, after 500 images of practice: top-5 error 5.1 %, 95 % interval [4.1, 6.3]" in text) == shown
    assert ("a second person, after 100 images of practice: top-5 error 12.0 %" in text) == shown
