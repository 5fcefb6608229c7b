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


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Return a directory in the place of the system's, with 8 GB available."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    (tmp_path / "meminfo").write_text("MemTotal:  16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n")
    return tmp_path


def limit(group, names, limit, used, cache):
    group.mkdir(parents=True)
    for name, value in zip(names, (limit, used), strict=True):
        (group / name).write_text(f"{value}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\nactive_file 1000\n")


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


def test_what_is_free_is_what_the_machine_has_available(host):
    assert memory.free_on_host() == 8_192_000_000
    (host / "cgroup").write_text("0::/\n")
    limit(host / "groups", V2, "max", 5, 0)
    assert memory.free_on_host() == 8_192_000_000
    (host / "meminfo").unlink()
    assert memory.free_on_host() is None


@pytest.mark.parametrize(("lines", "folder", "names"), [("0::/a/b", "", V2), ("1:cpu:/\n4:memory:/a/b", "memory", V1)])
def test_the_tightest_control_group_limits_what_is_free(host, lines, folder, names):
    (host / "cgroup").write_text(f"{lines}\n")
    limit(host / "groups" / folder / "a/b", names, 3_000_000_000, 1_000_000, 200)
    assert memory.free_on_host() == 3_000_000_000 - 1_000_000 + 1200
    for name, value in zip(names, (1_000_000, 900_000), strict=True):  # of the group around it
        (host / "groups" / folder / "a" / name).write_text(f"{value}\n")
    assert memory.free_on_host() == 100_000


def test_in_a_container_the_group_is_the_mount_itself(host):
    (host / "cgroup").write_text("0::/machine/that/is/not/mounted\n")
    limit(host / "groups", V2, 2_000_000_000, 500_000_000, 0)
    assert memory.free_on_host() == 1_500_001_000


def test_devices_say_what_is_free_on_them(monkeypatch):
    stats = [{"bytes_limit": 100, "bytes_in_use": 40}, {"bytes_limit": 100, "bytes_in_use": 70}]
    devices = [SimpleNamespace(platform="gpu", memory_stats=lambda one=one: one) for one in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory.free() == 30
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform="gpu", memory_stats=lambda: None)])
    assert memory.free() is None
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(platform="cpu")] * 4)
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    monkeypatch.setattr(memory, "free_on_host", lambda: 100)
    assert memory.free() == 25
