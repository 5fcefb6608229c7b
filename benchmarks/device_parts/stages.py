"""The parts in their order: what matters most comes first, and what is compiled together is in one stage."""

import sys

from benchmarks.device_parts.bench import Bench, Part
from benchmarks.device_parts.decade import Decade
from benchmarks.device_parts.devices import Devices, Peaks, is_installed
from benchmarks.device_parts.errors import LeftOutError
from benchmarks.device_parts.features import FisherVectors
from benchmarks.device_parts.numerics import Numerics
from benchmarks.device_parts.peer import Peer
from benchmarks.device_parts.real_input import RealInput
from benchmarks.device_parts.spreads import Spreads
from benchmarks.device_parts.steps import DETERMINISTIC, FAST, AugmentationRates, NetworkRates, PeerRates


class StartPeer(Part):
    """PyTorch's process, started early since its imports take long. The parts that need it wait for it."""

    name, title = "pytorch", "the start of PyTorch's process"

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        return 1.0

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        if bench.options.peer_python == sys.executable and not is_installed("torch"):
            raise LeftOutError("torch is not installed; --peer_python names an interpreter that has it")
        bench.peer = Peer(bench.options.peer_python, bench.scratch / "pytorch")


def create() -> list[list[Part]]:
    """Return the stages."""
    return [
        [Devices(), Peaks(), StartPeer()],
        [
            Numerics("numerics_first", "a float32 step of small networks against the CPU's", lambda s: s.first),
            NetworkRates(
                "main", "the main network, fast and deterministic", lambda s: (s.main,), (FAST, DETERMINISTIC)
            ),
            PeerRates("main_pytorch", "the main network in PyTorch", lambda s: (s.main,), compiled=True),
            Numerics("numerics_second", "a float32 step of larger networks", lambda s: s.second),
        ],
        [
            NetworkRates(
                "others",
                "the next networks",
                lambda s: s.others,
                (FAST, DETERMINISTIC),
                both_attentions=True,
            ),
            PeerRates("others_pytorch", "the same in PyTorch, compiled", lambda s: s.others, compiled=True),
            NetworkRates("rest", "the rest of the ten", lambda s: s.rest),
            PeerRates("rest_pytorch", "the same in PyTorch, eager", lambda s: s.rest, compiled=False),
        ],
        [AugmentationRates(), RealInput(), Spreads(), FisherVectors()],
        [Decade()],
    ]
