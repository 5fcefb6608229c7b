import importlib.util

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.planning import topology
from imagenet_repro.planning.facts import all_devices
from imagenet_repro.planning.topology import Topology, open_topology, parse_topology


@pytest.mark.parametrize(
    ("name", "sides"),
    [("v5e:4x4", (4, 4)), ("v5p:2x2x1", (2, 2, 1)), ("h200:1", (1, 1)), ("h100:8", (1, 8)), ("h100:2x8", (2, 8))],
)
def test_names(name, sides):
    facts, parsed = parse_topology(name)
    assert (facts.kind, parsed) == (name.partition(":")[0], sides)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h300:8", "no device is called 'h300': did you mean"),
        ("v5e", "a size is needed after the colon"),
        ("v5e:0x4", "a size is needed"),
        ("h100:8:1", "a size is needed"),
        ("v5p:2x2", r"a slice of TPU v5p has 3 numbers, as v5p:2x2x1"),
        ("h100:2x2x2", "hosts and GPUs of each: h100:2x8"),
    ],
)
def test_names_that_are_not_valid(name, message):
    with pytest.raises(UserError, match=message):
        parse_topology(name)


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x2", "plan-tpu"), ("h200:1", "plan-gpu")])
def test_without_the_compiler_a_message_names_the_command_that_installs_it(monkeypatch, name, extra):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda module: None if module in ("libtpu", "jax_cuda13_plugin") else find_spec(module),
    )
    with pytest.raises(UserError, match=rf"pip install 'imagenet_repro\[{extra}\]'.*requirements/{extra}.txt"):
        open_topology(name)


def test_the_facts_of_every_device_are_complete():
    for facts in all_devices().values():
        assert facts.platform in ("tpu", "gpu")
        assert facts.source
        assert facts.peak("bfloat16") > facts.peak("float32") > 0
        assert facts.bandwidth > 0 < facts.memory
        assert bool(facts.network_bandwidth) == (facts.platform == "gpu")


@pytest.mark.parametrize(
    ("name", "links"), [("v5e:1x1", 0), ("v5e:2x2", 2), ("v5e:4x4", 4), ("v5e:1x4", 2), ("v5p:4x4x4", 6)]
)
def test_a_tpu_sends_over_the_links_of_its_slice(name, links):
    facts, sides = parse_topology(name)
    assert Topology(name, facts, [None] * 4, sides).interconnect.bandwidth == links * facts.link_bandwidth


def test_a_gpu_reaches_other_hosts_over_the_network():
    facts, sides = parse_topology("h100:2x8")
    links = Topology("h100:2x8", facts, [None] * 16, sides).interconnect
    assert (links.host_devices, links.bandwidth, links.network_bandwidth) == (8, 450e9, 50e9)


def test_a_gpus_memory_counts_by_the_share_that_jax_reserves(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    h200, v5e = (Topology(name, *_with_devices(name)) for name in ("h200:1", "v5e:1x1"))
    assert (h200.usable_memory, v5e.usable_memory) == (0.75 * 141e9, 15.75 * 2**30)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert h200.usable_memory == pytest.approx(0.9 * 141e9)


def _with_devices(name):
    facts, sides = parse_topology(name)
    return facts, [None], sides


def test_silence_leaves_what_the_user_set(monkeypatch):
    environment = {"TPU_STDERR_LOG_LEVEL": "0"}
    monkeypatch.setattr(topology.os, "environ", environment)
    topology.silence()
    assert environment["TPU_STDERR_LOG_LEVEL"] == "0"
    assert environment["TPU_SKIP_MDS_QUERY"] == "1"
