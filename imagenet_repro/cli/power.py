"""`main.py power`: which differences an experiment of several seeds would find."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagenet_repro.cli.command import Command, Option
from imagenet_repro.errors import EXIT_FINISHED, UserError

if TYPE_CHECKING:
    from imagenet_repro.statistics.crossed_effects import Noise

SEED_SD = 0.2  # points
DISAGREEMENT = 10.0  # %
SEED_SHARE = 0.75  # of the disagreement of two systems, the disagreement of two seeds of one
FOUND = 0.8  # the wanted probability
MOST_SEEDS = 1_000

HELP = """Say how large a difference of recipes must be to be found, before anything is trained.

  python main.py power --systems=5 --seeds=3 --images=50000 --gap=0.3
  python main.py power --systems=5 --images=50000 --gap=0.3 --find_seeds
  python main.py power --systems=11 --seeds=3 --images=50000 --gap=0.3 --from=runs/decade

Prints the probability that `compare` calls two recipes different whose errors truly differ by the gap, and the
smallest gap that it would find 80 % of the time. The systems' seeds and the images are crossed effects, and all pairs
are compared at once.

How much seeds differ is an assumption unless finished runs are given with --from. The defaults lie in the middle of
what was simulated (results/statistics.md): errors of one recipe have a standard deviation of 0.2 points over seeds,
two systems disagree on 10 % of the images about being right, and two seeds of one system on three quarters of that.
"""


def run(
    *,
    systems: int,
    seeds: int | None,
    images: int,
    gap: float,
    seed_sd: float | None,
    disagreement: float | None,
    runs: Sequence[str],
    find_seeds: bool,
) -> int:
    """Print the power of a comparison; return the exit code."""
    if seeds is None and not find_seeds:
        raise UserError("--seeds=N is needed, or --find_seeds")
    if runs and not (seed_sd is None and disagreement is None):
        raise UserError("--from measures the noise; leave out --seed_sd and --disagreement")
    from imagenet_repro.statistics.crossed_effects import Noise, minimal_gap, power

    if runs:
        noise = _measured_noise(runs)
        source = f"measured on {', '.join(runs)}"
    else:
        share = (DISAGREEMENT if disagreement is None else disagreement) / 100
        noise = Noise((SEED_SD if seed_sd is None else seed_sd) / 100, share, SEED_SHARE * share)
        source = "assumed"
    print(
        f"noise, {source}: a standard deviation over seeds of {100 * noise.seed_deviation:.2g} points; two systems"
        f" disagree on {100 * noise.disagreement:.3g} % of the images, two seeds of one on"
        f" {100 * noise.seed_disagreement:.3g} %"
    )
    if seeds is not None:
        probability = power(systems, seeds, images, gap / 100, noise)
        smallest = 100 * minimal_gap(systems, seeds, images, noise, wanted=FOUND)
        print(f"{systems} systems, {seeds} seeds each, {images:,} images")
        print(f"a gap of {gap:g} points would be found {100 * probability:.0f} % of the time")
        if smallest <= 100:
            print(f"a gap of {smallest:.2f} points would be found {100 * FOUND:g} % of the time")
        else:
            print(f"no gap would be found {100 * FOUND:g} % of the time")
    if find_seeds:
        _print_seeds(systems, images, gap, noise)
    return EXIT_FINISHED


def _print_seeds(systems: int, images: int, gap: float, noise: "Noise") -> None:
    from imagenet_repro.statistics.crossed_effects import power

    def is_enough(seeds: int) -> bool:
        return power(systems, seeds, images, gap / 100, noise) >= FOUND

    purpose = f"to find a gap of {gap:g} points {100 * FOUND:g} % of the time"
    if not is_enough(MOST_SEEDS):
        print(f"{MOST_SEEDS:,} seeds of each of {systems} systems are too few {purpose}; more images are needed")
        return
    low, high = 1, MOST_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    print(f"{high:,} seeds of each of {systems} systems are needed {purpose}")


def _measured_noise(workdirs: Sequence[str]) -> "Noise":
    """Return the noise of finished runs, or of those of a sweep."""
    from imagenet_repro.statistics import crossed_effects
    from imagenet_repro.sweeps.compare import gather

    comparison = gather(workdirs, allow_mixed=False)
    if len(comparison.systems) < 2 or not comparison.has_several_seeds:
        raise UserError(
            f"--from: {', '.join(workdirs)} needs finished runs of two systems or more, and two seeds of one of them"
        )
    return crossed_effects.noise_of(crossed_effects.summarize(system.wrong(1) for system in comparison.systems))


COMMAND = Command(
    name="power",
    help=HELP,
    run=run,
    options=(
        Option("--systems", type=int, low=2, high=1000, required=True, metavar="N", help="systems that are compared"),
        Option("--seeds", type=int, low=2, high=1000, metavar="N", help="seeds of each system"),
        Option("--images", type=int, low=2, required=True, metavar="N", help="images of the scored split"),
        Option(
            "--gap", type=float, low=0, high=100, required=True, metavar="POINTS", help="true difference of errors"
        ),
        Option(
            "--seed_sd",
            type=float,
            low=0,
            high=50,
            metavar="POINTS",
            help=f"standard deviation of a recipe's error over seeds (default: {SEED_SD}, an assumption)",
        ),
        Option(
            "--disagreement",
            type=float,
            low=0,
            high=100,
            metavar="PERCENT",
            help=f"images on which one of two systems is right (default: {DISAGREEMENT:g}, an assumption)",
        ),
        Option(
            "--from",
            parameter="runs",
            nargs="+",
            default=(),
            metavar="DIR",
            help="take both from finished runs, or from those of a sweep",
        ),
        Option("--find_seeds", is_switch=True, help="find the number of seeds that finds the gap 80 %% of the time"),
    ),
)
