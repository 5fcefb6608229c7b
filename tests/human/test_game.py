"""Tests of the labelling game: its images, answers, files and predictions."""

import json

import numpy as np
import pytest

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.human.game import InvalidAnswerError, StaleAnswerError
from imagenet_repro.scoring import classification
from imagenet_repro.scoring.predictions import load, save
from tests.human import small_games


def play(game, guesses):
    """Answer the next images with the given guesses, and return the images' grey levels."""
    levels = []
    for guess in guesses:
        levels.append(small_games.level(game.current_image()))
        game.answer(game.position, guess)
    return levels


def test_images_are_drawn_by_the_seed_without_replacement(tmp_path):
    seen = [play(small_games.game(tmp_path / str(seed), 20, seed=seed), [[0]] * 20) for seed in (0, 1)]
    assert all(sorted(levels) == list(range(20)) for levels in seen)
    assert seen[0] != seen[1]
    assert play(small_games.game(tmp_path / "again", 20, seed=0), [[0]] * 3) == seen[0][:3]


def test_a_game_resumes_also_with_more_or_fewer_images(tmp_path):
    uninterrupted = play(small_games.game(tmp_path / "uninterrupted", 8), [[0]] * 8)
    first = play(small_games.game(tmp_path / "resumed", 5), [[0]] * 3)
    again = small_games.game(tmp_path / "resumed", 8)
    assert again.position == 3
    assert first + play(again, [[1, 2]] * 5) == uninterrupted
    assert again.position == again.n_images == 8
    assert again.current_image() == b""
    fewer = small_games.game(tmp_path / "resumed", 2)
    assert (fewer.position, fewer.n_guessed, len(fewer.predictions())) == (2, 2, 2)


def test_predictions_are_scored_like_any_others(tmp_path):
    game = small_games.game(tmp_path, 4)
    labels = [small_games.level(game.current_image()) % 7]
    game.answer(0, [labels[0]])  # right
    labels.append(small_games.level(game.current_image()) % 7)
    game.answer(1, [(labels[1] + 1) % 7, (labels[1] + 2) % 7, labels[1]])  # right by the third guess
    game.answer(2, [(small_games.level(game.current_image()) + k) % 7 for k in range(1, 6)])  # wrong
    guesses = game.predictions()
    save(tmp_path / "p.npz", guesses)
    assert [score.wrong for score in classification.score(tmp_path / "p.npz").scores] == [2, 2, 1, 1, 1]
    assert (guesses.error_rates().top1_wrong, guesses.error_rates().top5_wrong) == (2, 1)
    loaded = load(tmp_path / "p.npz")
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


def test_there_are_at_most_as_many_guesses_as_classes(tmp_path):
    game = small_games.game(tmp_path, 1, names=("a", "b", "c"))
    with pytest.raises(InvalidAnswerError, match="one to 3 different classes"):
        game.answer(0, [0, 1, 2, 3])
    game.answer(0, [2, 1, 0])
    assert game.predictions().top5.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("guesses", [[], [7], [-1], [1, 1], [0, 1, 2, 3, 4, 5], ["1"], [1.0], [True]])
def test_invalid_guesses_are_rejected(tmp_path, guesses):
    game = small_games.game(tmp_path)
    with pytest.raises(InvalidAnswerError, match="one to 5 different classes are needed"):
        game.answer(0, guesses)
    assert game.position == 0


def test_an_answer_counts_once(tmp_path):
    game = small_games.game(tmp_path)
    game.answer(0, [1, 2])
    game.answer(0, [1, 2])
    assert game.position == 1
    for position in (0, 2, -1, 99):
        with pytest.raises(StaleAnswerError, match="is not the current image"):
            game.answer(position, [3])
    assert (tmp_path / "answers.jsonl").read_text().count("\n") == 1


def test_images_that_cannot_be_decoded_are_skipped(tmp_path):
    clean = play(small_games.game(tmp_path / "clean", 6), [[0]] * 6)
    broken = [clean[0], clean[3], clean[5]]
    game = small_games.game(tmp_path / "broken", 6, undecodable=broken)
    assert game.position == 1
    assert play(game, [[0]] * 3) == [clean[1], clean[2], clean[4]]
    assert game.position == game.n_images == 6
    assert game.n_guessed == len(game.predictions()) == 3
    assert small_games.game(tmp_path / "broken", 6, undecodable=broken).n_guessed == 3


def test_the_time_left_follows_from_the_median_of_recent_answers(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("imagenet_repro.human.game.time.monotonic", lambda: now[0] + 1000)
    game = small_games.game(tmp_path, 10)
    for seconds in (4, 6, 5000, 8):
        assert (game.seconds_left is None) == (game.position < 3)
        game.current_image()
        now[0] += seconds
        game.answer(game.position, [0])
    assert game.seconds_left == 7 * 6
    assert small_games.game(tmp_path, 10).seconds_left == 7 * 6


def test_an_image_with_an_incomplete_line_is_shown_again(tmp_path):
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
        ('{"position": 2, "id": "validation/3", "guesses": [1], "seconds": 1}', "a line is missing or duplicated"),
    ],
)
def test_damaged_answers_are_reported(tmp_path, line, message):
    play(small_games.game(tmp_path), [[0]])
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        small_games.game(tmp_path)


def test_another_game_is_refused(tmp_path):
    small_games.game(tmp_path)
    for other in ({"seed": 1}, {"name": "Bob"}, {"part": "test"}, {"images": 6}):
        size = other.pop("images", 5)
        if size != 5:
            small_games.game(tmp_path, size)  # the same game with more images
            continue
        with pytest.raises(UserError, match=f"another game:\n  {'split' if 'part' in other else next(iter(other))}: "):
            small_games.game(tmp_path, **other)
    (tmp_path / "game.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read"):
        small_games.game(tmp_path)


@pytest.mark.parametrize("images", [0, 21])
def test_the_number_of_images_is_limited_by_the_split(tmp_path, images):
    with pytest.raises(UserError, match="has 20 images"):
        small_games.game(tmp_path, images)


def test_predictions_need_guesses_on_the_images_of_the_data_set(tmp_path):
    with pytest.raises(UserError, match="there are no guesses yet"):
        small_games.game(tmp_path).predictions()
    play(small_games.game(tmp_path), [[0]])
    path = tmp_path / "answers.jsonl"
    path.write_text(path.read_text().replace("validation/", "elsewhere/"))
    with pytest.raises(UserError, match=r"has image elsewhere/.* where the data set now has validation/"):
        small_games.game(tmp_path).predictions()


def test_guesses_that_cannot_be_written_are_not_recorded(tmp_path, monkeypatch):
    game = small_games.game(tmp_path)
    game.answer(0, [1])

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("imagenet_repro.human.game.os.fsync", full)
        with pytest.raises(SaveError, match="No space left"):
            game.answer(1, [2])
    assert game.position == 1
    game.answer(1, [3])
    assert small_games.game(tmp_path).position == 2


def test_a_game_whose_classes_changed_is_refused(tmp_path):
    play(small_games.game(tmp_path), [[1]])
    assert small_games.game(tmp_path).position == 1
    with pytest.raises(UserError, match=r"has the classes of the game in .*game\.json in another order"):
        small_games.game(tmp_path, names=small_games.NAMES[::-1])
    with pytest.raises(UserError, match="only data set photos has 'n00000001'; only the game in"):
        small_games.game(tmp_path, names=("n00000001", *small_games.NAMES[1:]))
