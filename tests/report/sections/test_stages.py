"""Tests of the table of stages."""

import io

from rich.console import Console

from imagenet_repro.report.sections import stages

COSTS = {
    "sift.quantiser": {"seconds": 30.0, "flops": 2e12, "bytes": 4_000_000},
    "sift.codes": {"seconds": 100.0, "flops": 3e12, "bytes": 20_000_000},
    "SVM": {"seconds": 70.0, "flops": 5e12, "bytes": 0},
}


def test_rows_are_shared_out_over_the_images_and_end_with_their_sum():
    assert stages.rows(COSTS, 10_000) == [
        ("sift.quantiser", "30", "3.00", "2.00", "4.0", ""),
        ("sift.codes", "100", "10.00", "3.00", "20.0", "2,000"),
        ("SVM", "70", "7.00", "5.00", "", ""),
        ("all", "200", "20.00", "10.00", "24.0", ""),
    ]


def test_markdown_and_terminal_show_the_same_cells():
    text = stages.markdown(COSTS, 10_000)
    assert text.splitlines()[3] == "| sift.codes | 100 | 10.00 | 3.00 | 20.0 | 2,000 |"
    console = Console(file=io.StringIO(), width=100)
    stages.show(COSTS, 10_000, console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["sift.codes", "100", "10.00", "3.00", "20.0", "2,000"] in lines
