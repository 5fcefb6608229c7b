import json

import numpy as np
import pytest

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.human import game as module
from imagenet_repro.human.game import LateError, RefusedError
from imagenet_repro.scoring import classification
from imagenet_repro.scoring import predictions as stored
from tests.human import small_games


def play(game, guesses):
    """Answers the next images; their levels."""
    seen = []
    for one in guesses:
        seen.append(small_games.level(game.image()))
        game.answer(game.position, one)
    return seen


def test_images_are_drawn_by_the_seed_without_replacement(tmp_path):
    seen = [play(small_games.game(tmp_path / str(seed), 20, seed=seed), [[0]] * 20) for seed in (0, 1)]
    assert all(sorted(one) == list(range(20)) for one in seen)
    assert seen[0] != seen[1]
    assert play(small_games.game(tmp_path / "again", 20, seed=0), [[0]] * 3) == seen[0][:3]


def test_a_game_goes_on_where_it_was_left_also_for_more_images(tmp_path):
    whole = play(small_games.game(tmp_path / "whole", 8), [[0]] * 8)
    first = play(small_games.game(tmp_path / "left", 5), [[0]] * 3)
    again = small_games.game(tmp_path / "left", 8)
    assert again.position == 3
    assert first + play(again, [[1, 2]] * 5) == whole
    assert again.position == again.images == 8
    assert again.image() == b""
    fewer = small_games.game(tmp_path / "left", 2)
    assert (fewer.position, fewer.guessed, len(fewer.predictions())) == (2, 2, 2)


def test_predictions_are_scored_like_any_others(tmp_path):
    game = small_games.game(tmp_path, 4)
    labels = [small_games.level(game.image()) % 7]
    game.answer(0, [labels[0]])  # right
    labels.append(small_games.level(game.image()) % 7)
    game.answer(1, [(labels[1] + 1) % 7, (labels[1] + 2) % 7, labels[1]])  # right by the third guess
    game.answer(2, [(small_games.level(game.image()) + k) % 7 for k in range(1, 6)])  # wrong
    found = game.predictions()
    stored.save(tmp_path / "p.npz", found)
    assert [one.wrong for one in classification.score(tmp_path / "p.npz").scores] == [2, 2, 1, 1, 1]
    assert (found.error_rates().top1_wrong, found.error_rates().top5_wrong) == (2, 1)
    loaded = stored.load(tmp_path / "p.npz")
    np.testing.assert_array_equal(loaded.top5[0], [labels[0], -1, -1, -1, -1])
    assert {key: loaded.provenance[key] for key in ("system", "name", "seed")} == {
        "system": "human", "name": "Ada", "seed": 0,
    }  # fmt: skip
    assert loaded.provenance["data"] == {"name": "photos", "version": "1.0.0", "split": "validation"}
    assert loaded.provenance["classes"] == list(small_games.NAMES)
    order = [(labels[1] + 1) % 7, (labels[1] + 2) % 7, labels[1]]
    np.testing.assert_array_equal(loaded.logits[1, order], [5, 4, 3])
    assert np.isneginf(np.delete(loaded.logits[1], order)).all()
    np.testing.assert_array_equal(np.argsort(-loaded.logits[2], kind="stable")[:5], loaded.top5[2])


def test_of_few_classes_no_more_guesses_than_classes(tmp_path):
    game = small_games.game(tmp_path, 1, names=("a", "b", "c"))
    with pytest.raises(RefusedError, match="one to 3 different classes"):
        game.answer(0, [0, 1, 2, 3])
    game.answer(0, [2, 1, 0])
    assert game.predictions().top5.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("guesses", [[], [7], [-1], [1, 1], [0, 1, 2, 3, 4, 5], ["1"], [1.0], [True]])
def test_guesses_that_are_none(tmp_path, guesses):
    game = small_games.game(tmp_path)
    with pytest.raises(RefusedError, match="one to 5 different classes are needed"):
        game.answer(0, guesses)
    assert game.position == 0


def test_an_answer_counts_once(tmp_path):
    game = small_games.game(tmp_path)
    game.answer(0, [1, 2])
    game.answer(0, [1, 2])
    assert game.position == 1
    for position in (0, 2, -1, 99):
        with pytest.raises(LateError, match="not the one to be guessed now"):
            game.answer(position, [3])
    assert (tmp_path / "answers.jsonl").read_text().count("\n") == 1


def test_images_that_cannot_be_decoded_are_passed_over(tmp_path):
    clean = play(small_games.game(tmp_path / "clean", 6), [[0]] * 6)
    broken = [clean[0], clean[3], clean[5]]
    game = small_games.game(tmp_path / "broken", 6, undecodable=broken)
    assert game.position == 1
    assert play(game, [[0]] * 3) == [clean[1], clean[2], clean[4]]
    assert game.position == game.images == 6
    assert game.guessed == len(game.predictions()) == 3
    assert small_games.game(tmp_path / "broken", 6, undecodable=broken).guessed == 3


def test_the_time_left_is_the_median_of_the_last_answers(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0] + 1000)
    game = small_games.game(tmp_path, 10)
    for seconds in (4, 6, 5000, 8):
        assert (game.seconds_left is None) == (game.position < 3)
        game.image()
        now[0] += seconds
        game.answer(game.position, [0])
    assert game.seconds_left == 7 * 6
    assert small_games.game(tmp_path, 10).seconds_left == 7 * 6


def test_a_line_that_was_cut_short_is_asked_again(tmp_path):
    game = small_games.game(tmp_path)
    play(game, [[0], [1], [2]])
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = small_games.game(tmp_path)
    assert again.position == 2
    play(again, [[5]])
    assert [json.loads(line)["guesses"] for line in path.read_text().splitlines()] == [[0], [1], [5]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is damaged"),
        ('{"position": 1, "id": "validation/3"}', "line 2 is damaged: 'guesses'"),
        ('{"position": 1, "id": "validation/3", "guesses": [9], "seconds": 1}', "line 2 is damaged: one to 5"),
        ('{"position": 2, "id": "validation/3", "guesses": [1], "seconds": 1}', "a line is missing or doubled"),
    ],
)
def test_damaged_answers(tmp_path, line, message):
    play(small_games.game(tmp_path), [[0]])
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        small_games.game(tmp_path)


def test_another_game_is_not_gone_on_with(tmp_path):
    small_games.game(tmp_path)
    for other in ({"seed": 1}, {"name": "Bob"}, {"part": "test"}, {"images": 6}):
        size = other.pop("images", 5)
        if size != 5:
            small_games.game(tmp_path, size)  # more images are no other game
            continue
        with pytest.raises(UserError, match=f"another game:\n  {'split' if 'part' in other else next(iter(other))}: "):
            small_games.game(tmp_path, **other)
    (tmp_path / "game.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read"):
        small_games.game(tmp_path)


@pytest.mark.parametrize("images", [0, 21])
def test_no_more_images_than_there_are(tmp_path, images):
    with pytest.raises(UserError, match="has 20 images"):
        small_games.game(tmp_path, images)


def test_nothing_guessed_or_other_images_than_were_guessed(tmp_path):
    with pytest.raises(UserError, match="nothing was guessed yet"):
        small_games.game(tmp_path).predictions()
    play(small_games.game(tmp_path), [[0]])
    path = tmp_path / "answers.jsonl"
    path.write_text(path.read_text().replace("validation/", "elsewhere/"))
    with pytest.raises(UserError, match=r"has elsewhere/.* where the data set now has validation/"):
        small_games.game(tmp_path).predictions()


def test_guesses_that_cannot_be_written_are_not_taken(tmp_path, monkeypatch):
    game = small_games.game(tmp_path)
    game.answer(0, [1])

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", full)
        with pytest.raises(SaveError, match="No space left"):
            game.answer(1, [2])
    assert game.position == 1
    game.answer(1, [3])
    assert small_games.game(tmp_path).position == 2
