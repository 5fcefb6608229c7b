import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from imagenet_repro.training import memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="proc(5) is Linux's")
def test_the_processs_peak_is_the_kernels_high_water_mark():
    lines = Path("/proc/self/status").read_text().splitlines()
    (mark,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    result = memory.peak()
    assert result["of"] == "process"
    assert abs(result["bytes"] - mark) < 2**24


def test_the_unit_is_that_of_the_system(monkeypatch):
    usage = SimpleNamespace(ru_maxrss=5_000_000)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert memory.peak()["bytes"] == 5_120_000_000
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.peak()["bytes"] == 5_000_000


def test_the_fullest_device_counts_where_devices_count(monkeypatch):
    stats = [{"peak_bytes_in_use": 5, "bytes_in_use": 9}, {"peak_bytes_in_use": 7}, None, {"bytes_in_use": 99}]
    devices = [SimpleNamespace(memory_stats=lambda one=one: one) for one in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory.peak() == {"bytes": 7, "of": "device"}
