"""The meter of energy against powers that a test sets, with pauses, resumptions and several processes."""

import pytest

from imagenet_repro.training import energy, hosts
from imagenet_repro.training.energy import EnergyMeter
from imagenet_repro.training.energy_counters import FoundCounters, UnreadableError
from tests.training.fake_energy import Clock


def meter(clock, device="cpu", before=None, unknown=None):
    """Return a meter of all the clock's counters, with two seconds of idle power measured."""
    found = FoundCounters(tuple(clock.counters.values()), unknown or {})
    return EnergyMeter(found, device, before, idle_seconds=2.0, clock=clock, sleep=clock.sleep)


def trained(clock, seconds, watts, **options):
    """Return the record of a meter that ran for some seconds."""
    one = meter(clock, **options)
    one.start()
    clock.sleep(seconds, **watts)
    one.stop()
    one.close()
    return one.record()


def test_energy_is_that_of_training_and_idle_power_is_measured_before_it():
    clock = Clock(cpu=30.0, memory=2.0)
    one = meter(clock)
    clock.sleep(50, cpu=400.0)  # compilation
    one.start()
    clock.sleep(10, cpu=100.0, memory=5.0)
    with one.paused():
        clock.sleep(100, cpu=70.0)
    clock.sleep(10, cpu=120.0)
    record = one.record()
    one.close()
    assert record["parts"] == {
        "cpu": {"joules": pytest.approx(2200.0), "idle_joules": pytest.approx(600.0)},
        "memory": {"joules": pytest.approx(70.0), "idle_joules": pytest.approx(40.0)},
    }
    assert (record["joules"], record["idle_joules"]) == pytest.approx((2270.0, 640.0))
    assert energy.joules_entry(record) == {"joules": pytest.approx(2270.0)}


def test_a_machine_without_counters_is_unknown_and_never_zero():
    record = EnergyMeter(FoundCounters((), {"cpu": "no counters"}), "cpu", None).record()
    assert record["joules"] is None
    assert record["unknown"] == {"cpu": "no counters"}
    assert EnergyMeter().record()["joules"] is None
    assert energy.joules_entry(record) == {}


def test_the_total_of_cards_is_unknown_if_processors_alone_are_known():
    record = trained(Clock(cpu=30.0), 10, {}, device="gpu", unknown={"gpu": "no NVML"})
    assert record["parts"]["cpu"]["joules"] == pytest.approx(300.0)
    assert record["joules"] is None
    known = trained(Clock(gpu=500.0), 10, {}, device="gpu", unknown={"cpu": "root alone"})
    assert known["joules"] == pytest.approx(5000.0)


def test_a_resumed_run_adds_to_what_it_had_used():
    first = trained(Clock(cpu=30.0), 10, {"cpu": 130.0})
    second = trained(Clock(cpu=20.0), 10, {"cpu": 70.0}, before=first)
    assert second["joules"] == pytest.approx(2000.0)
    assert second["idle_joules"] == pytest.approx(500.0)


@pytest.mark.parametrize("info", [{"steps": 7}, {"steps": 7, "energy": energy.unknown_so_far("it was not measured")}])
def test_a_run_whose_earlier_part_is_unknown_stays_unknown(info):
    record = trained(Clock(cpu=30.0), 10, {}, before=energy.restored(info))
    assert record["joules"] is None
    assert "not measured" in record["unknown"]["before"]
    again = trained(Clock(cpu=30.0), 10, {}, before=record)
    assert again["joules"] is None


def test_a_run_that_resumes_where_its_processors_are_unknown_is_unknown():
    first = trained(Clock(cpu=30.0), 10, {})
    second = EnergyMeter(FoundCounters((), {"cpu": "no counters"}), "cpu", first).record()
    assert second["joules"] is None
    assert second["unknown"]["cpu"] == "no counters"
    third = trained(Clock(cpu=30.0), 10, {}, before=second)
    assert third["joules"] is None


def test_a_run_that_moves_from_processors_to_a_card_has_both():
    first = trained(Clock(cpu=30.0), 10, {})
    second = trained(Clock(gpu=500.0, cpu=50.0), 10, {}, device="gpu", before=first)
    assert second["joules"] == pytest.approx(300.0 + 5000.0 + 500.0)


def test_memory_that_was_read_in_one_part_of_a_run_alone_is_unknown():
    first = trained(Clock(cpu=30.0), 10, {})
    second = trained(Clock(cpu=30.0, memory=5.0), 10, {}, before=first)
    assert second["joules"] == pytest.approx(600.0)
    assert "memory" in second["unknown"]


def test_a_counter_that_fails_makes_its_part_unknown():
    clock = Clock(cpu=30.0)
    one = meter(clock)
    one.start()
    clock.sleep(5)
    clock.counters["cpu"].error = UnreadableError("the counter started anew")
    one.stop()
    one.close()
    record = one.record()
    assert record["joules"] is None
    assert record["unknown"] == {"cpu": "the counter started anew"}


def test_processes_are_summed_and_a_shared_counter_counts_once(monkeypatch):
    def process(card, host):
        counters = [(card, "gpu", 100.0), (host, "cpu", 40.0)]
        return {
            "device": "gpu",
            "unknown": {},
            "counters": [{"id": id, "part": part, "joules": j, "idle_joules": j / 2} for id, part, j in counters],
        }

    processes = [process("GPU-a", "host 1"), process("GPU-b", "host 1"), process("GPU-c", "host 2")]
    monkeypatch.setattr(hosts, "gather", lambda own: processes)
    record = EnergyMeter().record()
    assert record["parts"]["gpu"]["joules"] == 300.0
    assert record["parts"]["cpu"]["joules"] == 80.0
    assert record["idle_joules"] == 190.0
    processes[1]["unknown"] = {"gpu": "no NVML"}
    record = EnergyMeter().record()
    assert record["joules"] is None
    assert record["unknown"] == {"gpu": "process 1: no NVML"}


def test_rows_have_energies_twice_a_second_at_most():
    clock = Clock(cpu=10.0)
    one = meter(clock)
    one.start()
    rows = []
    for _ in range(6):
        clock.sleep(0.2)
        rows.append(one.row())
    one.close()
    assert [row.get("joules") for row in rows] == [pytest.approx(2.0), None, None, pytest.approx(8.0), None, None]


def test_the_start_says_what_is_measured():
    one = meter(Clock(gpu=60.0, cpu=35.0), device="gpu")
    assert one.describe() == "energy is measured; idle power before the first step: cpu 35 W, gpu 60 W"
    one.close()
    assert EnergyMeter().describe() == ""
