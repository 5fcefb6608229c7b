"""Published facts of accelerators: memory, arithmetic, bandwidth and links of one device (devices.csv)."""

import csv
import dataclasses
import functools
from pathlib import Path

CSV = Path(__file__).with_name("devices.csv")
FLOAT32_PASSES = 6  # a TPU computes a float32 product of JAX's precision "highest" as six bfloat16 products


@dataclasses.dataclass(frozen=True)
class DeviceFacts:
    """The abilities of a device, as its vendor publishes them.

    Attributes:
      kind: the name in topologies, such as "v5e".
      name: the product's.
      platform: "tpu" or "gpu".
      memory: bytes of main memory.
      peak_bf16: dense bfloat16 FLOP/s.
      peak_float32: float32 FLOP/s; for a TPU, a sixth of `peak_bf16`.
      bandwidth: of main memory, bytes/s.
      links: the number of links to other devices of a slice (TPU), or one to the switch of a host (GPU).
      link_bandwidth: of each link in one direction, bytes/s.
      network_bandwidth: a GPU's share of its host's network in one direction, bytes/s; 0 for a TPU.
      clock: of a TPU's cores in Hz, as it follows from `peak_bf16` and the multiply-adds of a cycle; 0 for a GPU.
      source: of all of these.
    """

    kind: str
    name: str
    platform: str
    memory: float
    peak_bf16: float
    peak_float32: float
    bandwidth: float
    links: int
    link_bandwidth: float
    network_bandwidth: float
    clock: float
    source: str

    def peak(self, precision: str) -> float:
        """Return the FLOP/s for `config.precision`: "bfloat16" or "float32"."""
        return {"bfloat16": self.peak_bf16, "float32": self.peak_float32}[precision]


@functools.cache
def all_devices() -> dict[str, DeviceFacts]:
    """Return the facts of every known device by its kind."""
    with CSV.open(newline="", encoding="utf-8") as file:
        return {row["kind"]: _facts(row) for row in csv.DictReader(file)}


def _facts(row: dict[str, str]) -> DeviceFacts:
    peak_bf16 = float(row["peak_bf16"])
    return DeviceFacts(
        kind=row["kind"],
        name=row["name"],
        platform=row["platform"],
        memory=float(row["memory"]),
        peak_bf16=peak_bf16,
        peak_float32=float(row["peak_float32"] or peak_bf16 / FLOAT32_PASSES),
        bandwidth=float(row["bandwidth"]),
        links=int(row["links"]),
        link_bandwidth=float(row["link_bandwidth"]),
        network_bandwidth=float(row["network_bandwidth"] or 0),
        clock=float(row["clock"] or 0),
        source=row["source"],
    )
