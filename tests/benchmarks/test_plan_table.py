import pytest

from benchmarks import plan_table
from benchmarks.plan_table import Case

CASE = Case("resnet50", "configs/resnet.py:50", "v5e:2x2", 256)
STATE = {"parameters": 10**8, "optimizer": 10**8, "average": 0, "statistics": 0, "batch": 10**6}


def plan(per_device, gigabytes, fits=True):
    return {
        "network": "resnet50", "topology": "v5e:2x2", "per_device": per_device, "batch_size": 4 * per_device,
        "devices": 4, "fits": fits, "needed_bytes": gigabytes * 1e9, "memory": 17e9, "arguments": STATE,
        "traffic_bytes": 5e10, "flops": 6e12, "images_per_second": 12_000.0, "limiter": "memory traffic",
        "estimated_seconds": 0.1, "remat": "none", "jax": "0.12.0.1", "commit": "abc",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("plans", "batches"),
    [
        ([], [256]),
        ([plan(256, 8)], [512]),  # 15.8 GB are expected, 16.5 allowed
        ([plan(256, 9)], []),  # 17.8 GB
        ([plan(256, 20, fits=False)], [128]),
        ([plan(256, 20, fits=False), plan(128, 8)], []),  # twice as much did not fit
        ([plan(4096, 1)], []),
    ],
)
def test_the_next_batch_follows_from_the_memory_of_the_last(plans, batches):
    assert list(plan_table._missing(CASE, plans)) == batches


def test_the_row_of_a_case_is_its_largest_batch_that_fits():
    row = plan_table._row(CASE, [plan(512, 20, fits=False), plan(256, 9.5), plan(128, 5)])
    assert row == "| resnet50 | v5e:2x2 | 256 | none | 9.5 | 17.0 | 50.0 | 6.0 | 3,000 | memory traffic | 2,560 |"
    assert "| 256 ⁺ |" in plan_table._row(CASE, [plan(256, 5)])
    assert "256 does not fit | none | 20.0 | 17.0" in plan_table._row(CASE, [plan(256, 20, fits=False)])
    assert "not compiled" in plan_table._row(CASE, [])


def test_the_table_has_ten_networks_on_four_topologies_and_two_large_ones():
    cases = plan_table._cases()
    assert len(cases) == len({(case.network, case.topology) for case in cases}) == 42
