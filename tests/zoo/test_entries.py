"""Tests of the challenge's entries."""

from imagenet_repro.zoo.entries import ENTRIES


def test_winners_errors_fall_every_year_and_pass_a_persons_in_2015():
    winners = [entry for entry in ENTRIES if "winner" in entry.who]
    assert [entry.year for entry in winners] == list(range(2010, 2018))
    errors = [entry.top5 for entry in winners]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)
    person = next(entry for entry in ENTRIES if entry.who == "a person")
    assert min(entry.year for entry in winners if entry.top5 < person.top5) == 2015
