"""Counters of energy against trees of files and an NVML that are invented."""

import sys

import pytest

from imagenet_repro.training import energy_counters
from imagenet_repro.training.energy_counters import UnreadableError, find_counters, nvml_counters, rapl_counters
from tests.training import fake_energy
from tests.training.fake_energy import Card


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return the directory of a machine's zones, none yet, and let `find_counters` read it."""
    monkeypatch.setattr(energy_counters, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy_counters, "BOOT_ID", tmp_path / "boot_id")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # a plan for other devices hides this machine's
    (tmp_path / "boot_id").write_text("1234\n")
    return tmp_path


def test_packages_and_memory_count_once_each(machine):
    fake_energy.zone(machine, "intel-rapl:0", "package-0")
    fake_energy.zone(machine, "intel-rapl:0:0", "core")
    fake_energy.zone(machine, "intel-rapl:0:1", "dram")
    fake_energy.zone(machine, "intel-rapl:1", "package-1-die-0")
    fake_energy.zone(machine, "intel-rapl:2", "psys")
    fake_energy.zone(machine, "intel-rapl-mmio:0", "package-0")
    zones = rapl_counters()
    assert [(zone.id, zone.part) for zone in zones] == [
        ("1234 intel-rapl:0", "cpu"),
        ("1234 intel-rapl:0:1", "memory"),
        ("1234 intel-rapl:1", "cpu"),
    ]


def test_a_zone_counts_on_after_its_largest_value(machine):
    counter = fake_energy.zone(machine, "intel-rapl:0", "package-0", joules=990, largest=1000)
    (zone,) = rapl_counters()
    seen = []
    for value in (990, 999, 4, 4, 600, 1):
        fake_energy.write(counter, value)
        seen.append(zone.joules())
    assert seen == pytest.approx([0, 9, 14, 14, 610, 1011])


def test_a_zone_that_cannot_be_read_makes_its_part_unknown(machine, monkeypatch):
    assert "no counters of its processors" in find_counters("cpu", [0]).unknown["cpu"]
    counter = fake_energy.zone(machine, "intel-rapl:0", "package-0")
    counter.write_text("")
    assert "energy_uj cannot be read" in find_counters("cpu", [0]).unknown["cpu"]

    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    (machine / "boot_id").unlink()
    monkeypatch.setattr(type(counter), "read_text", refused)
    monkeypatch.setattr(energy_counters, "_part_of", lambda zone: "cpu")
    found = find_counters("cpu", [0])
    assert not found.counters
    assert "can be read by root alone; `chmod a+r" in found.unknown["cpu"]


def test_cards_count_joules_since_the_driver_was_loaded(machine, monkeypatch):
    card = Card("GPU-a", 5_000)
    monkeypatch.setitem(sys.modules, "pynvml", fake_energy.nvml(card))
    fake_energy.zone(machine, "intel-rapl:0", "package-0")
    found = find_counters("gpu", [0])
    assert [counter.part for counter in found.counters] == ["gpu", "cpu"]
    assert found.counters[0].joules() == 5.0
    card.millijoules = 7_500
    assert found.counters[0].joules() == 7.5
    card.millijoules = 100
    with pytest.raises(UnreadableError, match="started anew"):
        found.counters[0].joules()


CARDS = {"GPU-aa": "H200", "GPU-ab": "H200", "GPU-c": "H200"}


@pytest.mark.parametrize(
    ("environment", "used", "uuids"),
    [
        ({}, [0, 2], ["GPU-aa", "GPU-c"]),
        ({"CUDA_VISIBLE_DEVICES": "2, 0"}, [0, 1], ["GPU-c", "GPU-aa"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-aa"}, [1], ["GPU-aa"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab"}, [0], ["GPU-ab"]),
    ],
)
def test_cards_are_those_that_cuda_shows(environment, used, uuids, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_energy.nvml(*map(Card, CARDS)))
    assert [counter.id for counter in nvml_counters(used, environment)] == uuids


def _of_two_kinds():
    return fake_energy.nvml(Card("GPU-a", name="T4"), Card("GPU-b", name="H200"))


@pytest.mark.parametrize(
    ("module", "environment", "reason"),
    [
        (None, {}, r"nvidia-ml-py is not installed .*pip install \.\[energy\]"),
        (fake_energy.nvml(Card("GPU-a", None)), {}, "NVML cannot read the energy of GPU-a: Not Supported"),
        (fake_energy.nvml(Card("GPU-a", is_divided=True)), {}, "divided by MIG"),
        (fake_energy.nvml(Card("GPU-a")), {"CUDA_VISIBLE_DEVICES": "MIG-1"}, "part of a card"),
        (fake_energy.nvml(Card("GPU-a")), {"CUDA_VISIBLE_DEVICES": "GPU-b"}, "'GPU-b', which NVML does not show"),
        (fake_energy.nvml(), {}, "NVML shows 0 cards"),
        (_of_two_kinds(), {}, "several kinds.*CUDA_DEVICE_ORDER=PCI_BUS_ID"),
    ],
)
def test_cards_that_cannot_be_read_are_unknown(module, environment, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    with pytest.raises(UnreadableError, match=reason):
        nvml_counters([0], environment)


def test_cards_of_several_kinds_are_known_in_the_order_of_the_bus(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", _of_two_kinds())
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}
    assert [counter.id for counter in nvml_counters([0], environment)] == ["GPU-b"]


def test_a_tpu_is_unknown():
    assert "TPUs" in find_counters("tpu", [0]).unknown["tpu"]
