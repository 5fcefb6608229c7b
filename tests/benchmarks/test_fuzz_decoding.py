"""Damaged images of every accepted format end in pixels or in a DecodeError, soon."""

import pytest

from benchmarks import fuzz_decoding


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as data/decode.py does outside of tests
@pytest.mark.parametrize("kind", fuzz_decoding.images())
def test_a_damaged_image_is_decoded_or_refused(kind):
    outcomes = fuzz_decoding.fuzz(kind, 12, seed=1)
    assert not outcomes.uncaught
    assert outcomes.decoded + outcomes.refused == 12
    assert max(outcomes.milliseconds) < fuzz_decoding.MAX_MILLISECONDS


def test_a_mutation_can_be_repeated_and_an_exception_is_reported():
    seen = []

    def decoder(image):
        seen.append(image)
        raise KeyError("unexpected")

    outcomes = [fuzz_decoding.fuzz("PNG", 3, seed=2, decoder=decoder) for _ in range(2)]
    assert seen[:3] == seen[3:]
    assert outcomes[0].uncaught == [f"PNG {number}: KeyError: 'unexpected'" for number in range(3)]
