"""Kill and damage runs, and check that nothing is lost: the same command must end with the same bits.

    python benchmarks/faults.py                                all parts; the same command continues
    python benchmarks/faults.py --only=chosen,random --tries=9
    python benchmarks/faults.py --minutes=10                   begin no try after ten minutes
    python benchmarks/faults.py --table > results/faults.md    the table of the rows so far

Three kinds of runs are harmed: a network, a network with gradient accumulation, weight averaging and augmentation, and
a system of features. Each takes a few steps on a few drawn images, and is a fork of a process that has imported
everything. A library in C (fault_parts/killer.c, compiled with cc) counts the writes, renames, removals and fsyncs
below the workdir, and kills the run at one of them. A run survives if the same command, given again, ends with the
bits of an unharmed run (the last checkpoint, the predictions, the result and the rows of the log without times),
leaves no file that the unharmed run does not leave, and ends with no exit code but 0 and 75.

Each try is a line of `rows.jsonl` in `--out`, written when it is done. Runs that broke are kept there.
"""

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

TRIES = {"chosen": 60, "random": 40, "damage": 0, "loader": 6, "sweep": 10, "hosts": 2}  # 0: as many as there are


def main():
    """Run the parts, or print the table."""
    arguments = _arguments()
    from benchmarks.fault_parts import table, warm
    from benchmarks.fault_parts.bench import Bench

    folder = Path(arguments.out).absolute()
    bench = Bench(folder, folder / "rows.jsonl", 60 * arguments.minutes)
    if arguments.table:
        print(table.markdown(bench.rows))
        return
    warm.prepare(folder / "cache")
    parts = _parts()
    chosen = arguments.only.split(",") if arguments.only else list(parts)
    if unknown := set(chosen) - set(parts):
        sys.exit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    warm.import_everything()
    warm.prepare_data(bench.data)
    for name in chosen:
        parts[name](bench, arguments.tries or TRIES[name])
    print(table.markdown(bench.rows))


def _parts():
    from benchmarks.fault_parts import damages, hosts, kills, loaders, sweeps

    return {
        "chosen": kills.kill_at_chosen,
        "random": kills.kill_at_random,
        "damage": damages.damage_files,
        "loader": loaders.kill_loaders,
        "sweep": sweeps.kill_sweeps,
        "hosts": hosts.kill_hosts,
    }


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/faults", help="the directory of the runs and of rows.jsonl")
    parser.add_argument("--only", default="", metavar="PART,…", help=f"of {', '.join(TRIES)}")
    parser.add_argument("--tries", type=int, default=0, help="of each part; 0: all")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no try after so many")
    parser.add_argument("--table", action="store_true", help="print the table of the rows so far, and run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
