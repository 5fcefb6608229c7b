"""Networks crossed with recipes: how much of the difference between years is architecture, and how much training."""

import numpy as np

from imagenet_repro.report.records import Comparison
from imagenet_repro.report.tables import MISSING, Table


def crossed(comparison: Comparison) -> Table | None:
    """Top-1 errors of every network by recipe, and how far either lie apart; None where nothing is crossed.

    The last rows have, for each recipe, the distance between its best and its worst network, and for each network the
    distance between recipes stands in the last column: what architecture changes under one recipe, and what the
    recipe changes for one architecture.
    """
    recipes = list(dict.fromkeys(system.recipe for system in comparison.systems if system.recipe))
    errors = {(one.network, one.recipe): 100 * one.mean_error(1) for one in comparison.systems if one.recipe}
    networks = list(dict.fromkeys(network for network, _ in errors))
    if len(recipes) < 2 or len(errors) < 3:
        return None
    rows = [_row(network, [errors.get((network, recipe)) for recipe in recipes]) for network in networks]
    by_recipe = [
        [errors[network, recipe] for network in networks if (network, recipe) in errors] for recipe in recipes
    ]
    rows.append(("best to worst network", *(f"{max(each) - min(each):.1f}" for each in by_recipe), MISSING))
    both = [network for network in networks if all((network, recipe) in errors for recipe in recipes)]
    if both:
        of_recipe = np.ptp([[errors[network, recipe] for recipe in recipes] for network in both], axis=1).mean()
        rows.append(("mean over networks", *([MISSING] * len(recipes)), f"{of_recipe:.1f}"))
    caption = (
        "Top-1 error in percent, means over seeds, by network and recipe, in the order given. The last column is the"
        " distance between recipes for one network, the row below the networks that between networks under one recipe."
    )
    headings = ("network", *(f"{recipe} recipe" for recipe in recipes), "between recipes, points")
    return Table("crossed", headings, tuple(rows), caption)


def _row(network: str, found: list[float | None]) -> tuple[str, ...]:
    known = [error for error in found if error is not None]
    apart = f"{max(known) - min(known):.1f}" if len(known) == len(found) else MISSING
    return (network, *(MISSING if error is None else f"{error:.1f}" for error in found), apart)
