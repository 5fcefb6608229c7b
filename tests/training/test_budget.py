"""Tests of amounts, of the cost of steps, and of progress."""

import pytest

from imagenet_repro.config.amount import Amount
from imagenet_repro.errors import UserError
from imagenet_repro.training.budget import Budget, Every, Meter

METER = Meter(batch_size=256, num_examples=1_281_167, flops_per_step=10**12)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("90ep", 90, "ep"), ("1.2e8img", 1.2e8, "img"), ("450000st", 450_000, "st"), ("2e18flop", 2e18, "flop"),
     ("3600s", 3600, "s"), (" 0.5 ep ", 0.5, "ep")],
)  # fmt: skip
def test_amounts_of_every_unit(text, value, unit):
    assert Amount.parse(text) == Amount(value, unit)


@pytest.mark.parametrize("text", ["90ep", "1.5e+08img", "0.1s", "123456789.5st"])
def test_an_amount_is_written_as_it_is_read(text):
    assert str(Amount.parse(text)) == text
    assert Amount.parse(str(Amount.parse(text))) == Amount.parse(text)


@pytest.mark.parametrize("text", ["", "90", "ep", "-3ep", "0ep", "1e999img", "90 epochs", "1.2.3s", "nanst"])
def test_what_is_no_amount_is_refused_by_its_key(text):
    with pytest.raises(UserError, match=r"config\.checkpoint\.every.*is not an amount"):
        Amount.parse(text, "checkpoint.every")


@pytest.mark.parametrize(
    ("text", "steps"),
    [("90ep", -(-90 * 1_281_167 // 256)), ("1.2e8img", 468_750), ("450000st", 450_000), ("2e18flop", 2_000_000)],
)
def test_units_that_count_end_at_the_step_that_reaches_the_amount(text, steps):
    budget = Budget(Amount.parse(text), METER)
    assert budget.total_steps == steps
    assert not budget.finished(METER.spent(steps - 1, 0.0))
    assert budget.finished(METER.spent(steps, 0.0))
    assert budget.progress(METER.spent(steps, 0.0)) == 1.0


def test_thirds_of_an_epoch_do_not_gain_a_step_by_rounding():
    meter = Meter(batch_size=1, num_examples=10, flops_per_step=1)
    assert [Budget(Amount.parse(f"{n / 10}ep"), meter).total_steps for n in range(1, 10)] == list(range(1, 10))


def test_seconds_end_by_the_clock():
    budget = Budget(Amount.parse("3600s"), METER)
    assert budget.total_steps is None
    assert budget.progress(METER.spent(7, 900.0)) == 0.25
    assert not budget.finished(METER.spent(10**9, 3599.9))
    assert budget.finished(METER.spent(1, 3600.0))


def test_two_batch_sizes_have_the_same_progress_after_the_same_images():
    small, large = (Budget(Amount.parse("9ep"), Meter(size, 1000, 1)) for size in (10, 100))
    for images in (0, 100, 4500, 9000):
        assert small.progress(small.meter.spent(images // 10, 0)) == large.progress(
            large.meter.spent(images // 100, 0)
        )


def test_every_fires_once_for_each_multiple_and_keeps_its_rhythm_over_a_resume():
    def steps_that_fire(first, last):
        every = Every(Amount.parse("0.5ep"))
        meter = Meter(batch_size=10, num_examples=100, flops_per_step=1)
        every.start(meter.spent(first, 0.0))
        return [step for step in range(first + 1, last) if every.due(meter.spent(step, 0.0))]

    assert steps_that_fire(0, 22) == [5, 10, 15, 20]
    assert steps_that_fire(7, 22) == [10, 15, 20]
