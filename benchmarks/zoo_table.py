"""Write a table of all networks: parameters, multiply-adds, and the error of their logits against the reference.

    python benchmarks/zoo_table.py --goldens=DIR --out=results/zoo.md

Count each network from its shapes and write the counts to imagenet_repro/zoo/sizes.csv, which `main.py models` prints,
and those of networks with two towers to imagenet_repro/zoo/two_towers.csv. Put the former beside the relative error
||ours - reference|| / ||reference|| of the logits for every golden in DIR (tests/goldens/README.md describes goldens).
All networks take some minutes. The section of networks with two towers keeps the distances that
`benchmarks/two_towers.py` measured.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.two_towers import measured, section  # noqa: E402  the path comes first
from imagenet_repro import models  # noqa: E402
from imagenet_repro.storage import provenance  # noqa: E402
from imagenet_repro.zoo import sizes, two_towers  # noqa: E402
from imagenet_repro.zoo.published import network_facts  # noqa: E402
from tests.models.test_goldens import relative_error  # noqa: E402


def main():
    """Count, compare and write."""
    arguments = _arguments()
    rows = []
    for name in models.published_names():
        rows.append(sizes.count(name) | {"golden": _golden(name, arguments.goldens)})
        print(rows[-1], file=sys.stderr, flush=True)
    with sizes.STORED.open("w", newline="", encoding="utf-8") as file:
        columns = ["name", "parameters", "image_size", "multiply_adds", "real_multiply_adds"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    two_towers.write()
    out = Path(arguments.out)
    distances = measured(out.read_text(encoding="utf-8")) if out.exists() else {}
    out.write_text(f"{_table(rows)}\n{section(distances)}", encoding="utf-8")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=Path, default=REPOSITORY / "tests" / "goldens", help="a folder of .npz")
    parser.add_argument("--out", default="results/zoo.md", help="Markdown file")
    return parser.parse_args()


def _golden(name, folder):
    path = folder / f"{name}.npz"
    return f"{relative_error(name, np.load(path)):.1e}" if path.exists() else ""


def _table(rows):
    source = provenance.collect()
    lines = [
        f"# All {len(rows)} networks",
        "",
        "Trainable parameters include the published head and auxiliary heads. Multiply-adds are for one image in"
        " evaluation. The relative error is that of the logits against stored outputs of the reference implementation,"
        f" in float32 on two CPU cores. jax {source['packages']['jax']}, commit {source['commit'][:12]}.",
        "",
        "| year | network | reference implementation | parameters | px | multiply-adds | relative error |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        spec = models.spec(row["name"])
        cells = (
            network_facts(row["name"]).year,
            row["name"],
            spec.reference,
            f"{row['parameters']:,}",
            row["image_size"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} | {row['multiply_adds']:,} | {row['golden']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
