from pathlib import Path

import pytest

from imagenet_repro.planning import hlo
from imagenet_repro.planning.collectives import Collective, Interconnect, find_collectives, summarise
from imagenet_repro.planning.traffic import count_traffic

PROGRAMS = Path(__file__).with_name("programs")
PARAMS, WHOLE = 2048 * 1024 * 4, 4096 * 1024 * 4


def found(name, devices=4):
    return find_collectives(hlo.parse((PROGRAMS / f"{name}.txt").read_text()), devices)


@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_messages_have_the_size_of_the_complete_array(kind):
    assert found(f"update_{kind}") == [Collective("all-reduce", PARAMS, 4, 1)]
    assert found(f"gather_{kind}") == [Collective("all-gather", WHOLE, 4, 1)]


def test_a_scatter_on_a_gpu():
    assert found("scatter_h100") == [Collective("reduce-scatter", WHOLE, 4, 1)]


def test_a_scatter_on_a_tpu_is_a_fusion_with_padding_that_is_moved_into_place():
    scatter, shift = found("scatter_v5e")
    assert (scatter.kind, scatter.devices) == ("reduce-scatter", 4)
    assert WHOLE <= scatter.bytes <= 1.04 * WHOLE
    assert shift.kind == "collective-permute"
    assert shift.bytes < 0.03 * WHOLE


def test_no_message_on_one_device():
    text = (PROGRAMS / "update_h100.txt").read_text().replace("'data'=4", "'data'=1")
    assert find_collectives(hlo.parse(text), 1) == []


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups={{0,1},{2,3}}", 2),
        ("replica_groups={}", 8),
        ("replica_groups=mesh['host'=2,'data'=4] {'host','data'}", 8),
    ],
)
def test_every_notation_of_groups(groups, devices):
    text = f"""HloModule step

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %sum = f32[8]{{0}} all-reduce(%x), channel_id=1, {groups}, to_apply=%add
}}
"""
    assert find_collectives(hlo.parse(text), 8) == [Collective("all-reduce", 32, devices, 1)]


@pytest.mark.parametrize(
    "start",
    [
        "((f32[8]{0}), f32[8]{0}) all-reduce-start(%x), replica_groups={}, to_apply=%add",
        "f32[8]{0} all-reduce-start(%x), replica_groups={}, to_apply=%add",
        "(f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
        "(f32[8]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={}",
    ],
)
def test_an_asynchronous_message_counts_once(start):
    module = hlo.parse(f"""HloModule step

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %start = {start}
  ROOT %done = f32[8]{{0}} all-reduce-done(%start)
}}
""")
    (message,) = find_collectives(module, 2)
    assert message.bytes == pytest.approx(32, abs=8)  # a context has four bytes
    assert count_traffic(module).total_bytes == pytest.approx(64, abs=8)


def test_the_summary_adds_up_what_runs_in_a_step():
    messages = [
        Collective("all-gather", 10, 4, 3),
        Collective("all-gather", 5, 4, 1),
        Collective("all-reduce", 2, 4, 1),
    ]
    assert summarise(messages) == {
        "all-gather": {"count": 4, "bytes": 35},
        "all-reduce": {"count": 1, "bytes": 2},
    }


def test_the_time_of_rings_in_one_host():
    links = Interconnect(bandwidth=100.0, host_devices=8)
    assert links.seconds(Collective("all-reduce", 800, 8, 1)) == pytest.approx(2 * 800 * 7 / 8 / 100)
    assert links.seconds(Collective("all-gather", 800, 8, 3)) == pytest.approx(3 * 800 * 7 / 8 / 100)


def test_the_time_over_the_network_is_that_of_each_devices_part():
    links = Interconnect(bandwidth=100.0, host_devices=8, network_bandwidth=10.0)
    inside, between = 2 * 800 * 7 / 8 / 100, 2 * (800 / 8) * 1 / 2 / 10
    assert links.seconds(Collective("all-reduce", 800, 16, 1)) == pytest.approx(inside + between)
