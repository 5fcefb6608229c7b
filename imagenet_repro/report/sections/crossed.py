"""Networks crossed with recipes: the parts of a difference that come from the architecture and from training."""

import numpy as np

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.tables import MISSING, Table


def crossed(comparison: Comparison) -> Table | None:
    """Return the top-1 errors of every network under every recipe, or None if nothing is crossed.

    The last column is the range of each network's errors over recipes. The row "best to worst network" is the range
    of each recipe's errors over networks. The row "mean over networks" averages the last column over the networks
    that have all recipes.
    """
    recipes = list(dict.fromkeys(system.recipe for system in comparison.systems if system.recipe))
    errors = {(one.network, one.recipe): 100 * one.mean_error(1) for one in comparison.systems if one.recipe}
    networks = list(dict.fromkeys(network for network, _ in errors))
    if len(recipes) < 2 or len(errors) < 3:
        return None
    rows = [_network_row(network, [errors.get((network, recipe)) for recipe in recipes]) for network in networks]
    by_recipe = [
        [errors[network, recipe] for network in networks if (network, recipe) in errors] for recipe in recipes
    ]
    rows.append(("best to worst network", *(f"{max(each) - min(each):.1f}" for each in by_recipe), MISSING))
    complete = [network for network in networks if all((network, recipe) in errors for recipe in recipes)]
    if complete:
        ranges = np.ptp([[errors[network, recipe] for recipe in recipes] for network in complete], axis=1)
        rows.append(("mean over networks", *([MISSING] * len(recipes)), f"{ranges.mean():.1f}"))
    caption = (
        "Top-1 error in percent by network and recipe, means over seeds, in the order given. The last column is the"
        " range over recipes for one network; the row below the networks is the range over networks under one recipe."
    )
    headings = ("network", *(f"{recipe} recipe" for recipe in recipes), "range over recipes, points")
    return Table("crossed", headings, tuple(rows), caption)


def _network_row(network: str, errors: list[float | None]) -> tuple[str, ...]:
    known = [error for error in errors if error is not None]
    error_range = f"{max(known) - min(known):.1f}" if len(known) == len(errors) else MISSING
    return (network, *(MISSING if error is None else f"{error:.1f}" for error in errors), error_range)
