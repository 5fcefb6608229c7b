"""Tests of the condition under which a run continues to a larger budget."""

import dataclasses

import pytest

from imagenet_repro.config import (
    Amount,
    Config,
    ConstantSchedule,
    CooldownSchedule,
    CosineSchedule,
    PlateauSchedule,
    Progressive,
    StepSchedule,
)
from imagenet_repro.errors import UserError
from imagenet_repro.training import extension
from imagenet_repro.training.budget import Budget, Meter

METER = Meter(batch_size=8, num_examples=100, flops_per_step=1000)


def check(schedule, before, after, steps, *, later=None, seconds=0.0, **settings):
    old = Config(budget=before, schedule=schedule, **settings)
    new = dataclasses.replace(old, budget=after, schedule=later or schedule)
    budget = Budget(Amount.parse(after), METER)
    extension.check_same_rates(old, new, budget, METER.spent(steps, seconds))


@pytest.mark.parametrize(("before", "after"), [("100st", "130st"), ("8ep", "9.7ep"), ("1e5flop", "3e5flop")])
def test_a_constant_rate_can_be_extended(before, after):
    check(ConstantSchedule(), before, after, 100)
    check(CosineSchedule(final=1.0), before, after, 100)
    with pytest.raises(UserError, match=r"step 2 has .* of the peak learning rate"):
        check(CosineSchedule(), before, after, 100)
    with pytest.raises(UserError, match=r"smaller config\.schedule\.warmup keeps its length"):
        check(ConstantSchedule(warmup=0.1), before, after, 100)


def test_a_cooldown_that_has_not_begun_can_be_extended():
    schedule = CooldownSchedule(cooldown=0.2)
    check(schedule, "100st", "300st", 81)  # the first smaller rate is that of step 82
    with pytest.raises(UserError, match="step 82 has 1 of the peak learning rate"):
        check(schedule, "100st", "300st", 82)
    check(StepSchedule(boundaries=(0.5,)), "100st", "300st", 50)
    with pytest.raises(UserError, match="Only a constant rate"):
        check(StepSchedule(boundaries=(0.5,)), "100st", "300st", 60)


def test_a_warm_up_that_keeps_its_length_can_be_extended():
    before, after = CooldownSchedule(warmup=0.125), CooldownSchedule(warmup=0.0625)
    check(before, "100st", "200st", 80, later=after)
    with pytest.raises(UserError, match="step 2 has"):
        check(before, "100st", "200st", 80)


def test_seconds_are_compared_at_every_moment():
    check(ConstantSchedule(), "60s", "90s", 7, seconds=60.0)
    check(CooldownSchedule(cooldown=0.5), "60s", "90s", 7, seconds=29.9)
    with pytest.raises(UserError, match="a moment of training"):
        check(CooldownSchedule(cooldown=0.5), "60s", "90s", 7, seconds=31.0)


def test_a_plateau_is_extended_where_no_other_evaluation_has_counted():
    check(PlateauSchedule(), "100st", "200st", 100, evaluate_every="20st")
    check(PlateauSchedule(), "100st", "200st", 70, evaluate_every="30st")
    with pytest.raises(UserError, match="is not one of every 30st"):
        check(PlateauSchedule(), "100st", "200st", 100, evaluate_every="30st")


def test_stages_and_budgets_that_are_not_larger_are_refused():
    with pytest.raises(UserError, match=r"config\.progressive"):
        check(ConstantSchedule(), "100st", "200st", 100, progressive=Progressive(stages=2))
    extension.check_larger("10ep", "10.5ep")
    for other in ("9ep", "3600s"):
        with pytest.raises(UserError, match="--extend needs a budget"):
            extension.check_larger("10ep", other)
