"""Traffic of programs that the compilers of a TPU and of a GPU wrote (make_programs.py), against their shapes."""

from pathlib import Path

import pytest

from imagenet_repro.planning import hlo
from imagenet_repro.planning.traffic import count_traffic

PROGRAMS = Path(__file__).with_name("programs")
MB = 2**20
X, WEIGHT = 8 * MB, 2 * MB  # bfloat16 [4096, 1024] and [1024, 1024]
SMALL = 1000  # bytes: counters of loops


def traffic(name):
    return count_traffic(hlo.parse((PROGRAMS / f"{name}.txt").read_text()))


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_a_product_reads_both_factors_and_writes_the_result_once(kind):
    assert traffic(f"product_{kind}").total_bytes == 2 * (4096 * 2048 + 2048 * 1024 + 4096 * 1024)


def test_a_loop_on_a_tpu_keeps_its_state_on_the_chip_and_reads_one_weight_in_each_iteration():
    assert traffic("layers_v5e").total_bytes == pytest.approx(X + 12 * WEIGHT + X, abs=SMALL)


def test_a_loop_on_a_gpu_copies_a_weight_and_its_state_in_each_iteration():
    # x is copied once before the loop. Then: a slice (read and written), a product, and a copy of the new state.
    each = 2 * WEIGHT + (X + WEIGHT + X) + 2 * X
    assert traffic("layers_h100").total_bytes == pytest.approx(2 * X + 12 * each, abs=SMALL)


def test_a_row_that_is_written_in_place_counts_alone():
    kernels = {kernel.instruction.name: kernel for kernel in traffic("inputs_of_layers_v5e").kernels}
    (written,) = [kernel for name, kernel in kernels.items() if "dynamic-update-slice" in name]
    assert (written.times, written.bytes) == (12, X)  # not the 12 rows of the result; its source is on the chip
    assert written.total_bytes == 12 * X


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_a_lookup_reads_the_rows_that_it_looks_up(kind):
    row, rows = 128 * 4, 512
    assert traffic(f"lookup_{kind}").total_bytes == pytest.approx(2 * rows * row, abs=3 * 4 * rows)


def test_an_update_with_a_mean_over_devices():
    params, gradients = 2048 * 1024 * 4, 4 * 2048 * 1024 * 4
    reduced = 2 * params  # the mean is written and read by the reduction
    assert traffic("update_h100").total_bytes == gradients + params + reduced + 3 * params
    assert traffic("update_v5e").total_bytes == pytest.approx(gradients + 2 * params, abs=SMALL)  # the mean: on chip


def test_the_largest_kernels_come_first():
    largest = traffic("layers_h100").largest(2)
    assert [kernel.total_bytes for kernel in largest] == [12 * (2 * X + WEIGHT), 12 * 2 * X]


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_loops_of_known_length_are_resolved(kind):
    assert traffic(f"layers_{kind}").unknown_loops == ()


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    text = (PROGRAMS / "layers_h100.txt").read_text().replace('"known_trip_count":{"n":"12"},', "")
    counted = count_traffic(hlo.parse(text.replace("direction=LT", "direction=NE")))
    assert counted.unknown_loops == ("while.8",)
    assert {kernel.times for kernel in counted.kernels} == {1}


CUDNN = """HloModule conv

ENTRY %main (x: bf16[8,4]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  ROOT %conv = (bf16[8,4]{1,0}, u8[4096]{0}) custom-call(%x), custom_call_target="TARGET"
}
"""


@pytest.mark.parametrize(("target", "size"), [("__cudnn$convForward", 128), ("other", 128 + 4096)])
def test_scratch_memory_of_a_library_is_not_traffic(target, size):
    assert count_traffic(hlo.parse(CUDNN.replace("TARGET", target))).total_bytes == size


BRANCHES = """HloModule branches

%small (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} negate(%x)
}

%large (x.1: f32[8]) -> f32[8] {
  %x.1 = f32[8]{0} parameter(0)
  %z = f32[8]{0} negate(%x.1)
  ROOT %y.1 = f32[8]{0} negate(%z)
}

ENTRY %main (p: pred[], x.2: f32[8]) -> f32[8] {
  %p = pred[] parameter(0)
  %x.2 = f32[8]{0} parameter(1)
  ROOT %out = f32[8]{0} conditional(%p, %x.2, %x.2), true_computation=%small, false_computation=%large
}
"""


def test_the_branch_with_the_most_traffic_counts():
    assert count_traffic(hlo.parse(BRANCHES)).total_bytes == 2 * 64
