"""Let a person guess images in a browser, and store the guesses as predictions."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from imagenet_repro.config import Data, parse_literal, resolve_config
from imagenet_repro.data import sources
from imagenet_repro.data.examples import ClassExamples
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, UserError
from imagenet_repro.human.game import Game
from imagenet_repro.human.server import GameServer
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.people import PEOPLE
from imagenet_repro.storage.workdir import Workdir


def play(
    data: dict[str, str],
    *,
    split: str,
    images: int,
    seed: int,
    name: str,
    workdir: str,
    port: int = 0,
    finish: bool = False,
) -> int:
    """Serves the game until it is played or stopped, stores and scores the guesses; returns the exit code.

    Args:
      data: keys of the section `data` as texts, `name` among them; examples come from its `train_split`.
      split: of the images.
      images: how many.
      seed: draws them.
      name: of the person.
      workdir: keeps the game; the same one goes on with it.
      port: of the page; 0: any free one.
      finish: store and score what was guessed so far, without serving anything.

    Raises:
      UserError: the split is missing, has no labels or shares images with the training split; the workdir holds
        something else.
      SaveError: guesses or predictions cannot be written.
    """
    if "name" not in data:
        raise UserError("which data set? --data.name=NAME, such as --data.name=imagenet2012")
    if not name.strip():
        raise UserError("--name is empty; it stands in tables")
    config = resolve_config({"data": {key: parse_literal(value) for key, value in data.items()}}).data
    shown = sources.open_split(config, split)
    if shown.records[0].label < 0:
        raise UserError(f"{shown.name} {split} has no labels; guesses on it cannot be scored")
    place = Workdir(workdir)
    if place.begun:
        raise UserError(f"--workdir={workdir} holds a training run; a game needs one of its own")
    place.claim()
    game = Game(shown, place.path, images=images, seed=seed, name=name)
    path = place.predictions(config, split)
    if finish or game.position == game.images:
        print("\n".join(_finish(game, path)))
        return EXIT_FINISHED
    return _serve(game, _examples(config, split, place.path), port, path)


def _examples(data: Data, split: str, place: Path) -> ClassExamples | None:
    """Of the training split, where it is there."""
    try:
        trained: Split = sources.open_split(data, data.train_split)
    except UserError as error:
        print(f"no images of classes can be shown: {error}")
        return None
    if sources.overlap(data, data.train_split, split):
        raise UserError(
            f"{data.train_split}, from which examples of the classes are shown, holds images of {split}, which are to"
            " be guessed; name parts that share none, such as --split='train[90%:]' --data.train_split='train[:90%]'"
        )
    return ClassExamples(trained, place / "examples.json")


def _serve(game: Game, examples: ClassExamples | None, port: int, path: Path) -> int:
    with GameServer(game, examples, port, lambda: _finish(game, path)) as server:
        if examples:
            examples.start()
        where = "open this address in a browser on this machine; Ctrl-C stops"
        print(f"image {game.position + 1} of {game.images}: {where}")
        print(server.url, flush=True)
        try:
            with _stoppable():
                server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print(f"\n{game.position} of {game.images} images guessed and kept; the same command goes on")
        finally:
            if examples:
                examples.stop()
    if server.error:
        raise server.error
    if game.position < game.images:
        return EXIT_STOPPED
    print("\n".join(server.summary))
    return EXIT_FINISHED


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise KeyboardInterrupt, also where a script's shell started the process deaf to Ctrl-C."""
    stops = signal.SIGTERM, signal.SIGINT
    before = [signal.signal(one, signal.default_int_handler) for one in stops]
    try:
        yield
    finally:
        for one, handler in zip(stops, before, strict=True):
            signal.signal(one, handler)


def _finish(game: Game, path: Path) -> list[str]:
    """Stores the predictions; what they come to, line by line."""
    found = game.predictions()
    predictions.save(path, found)
    passed = game.position - game.guessed
    return [
        f"{game.name}, {game.split.name} {game.split.split}: {found.error_rates()}",
        *([f"{passed} images could not be decoded and are left out"] if passed else []),
        "In the study of 2014, on ImageNet's 1,000 classes:",
        *(f"  {person}" for person in PEOPLE),
        f"predictions: {path}",
    ]
