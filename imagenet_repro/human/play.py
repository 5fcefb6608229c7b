"""Let a person guess images in a browser, and store the guesses as predictions."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from imagenet_repro.config import Config, Data, replace_keys
from imagenet_repro.data import sources
from imagenet_repro.data.examples import ClassExamples
from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, SaveError, UserError
from imagenet_repro.human.game import Game
from imagenet_repro.human.server import GameServer
from imagenet_repro.scoring import predictions
from imagenet_repro.scoring.people import PEOPLE
from imagenet_repro.storage import files
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
    """Serve a game until it is finished or stopped, store and score its guesses, and return the exit code.

    Args:
      data: keys of the section `data` and their values as text, including `name`; examples come from `train_split`.
      split: the split whose images are guessed.
      images: number of images.
      seed: seed of the draw of images.
      name: name of the player.
      workdir: directory of the game; a game in it is resumed.
      port: port of the page; 0 for any free port.
      finish: whether to store and score the existing guesses without serving the page.

    Raises:
      UserError: the split does not exist, has no labels or shares images with the training split, or the workdir
        holds something else.
      SaveError: guesses or predictions cannot be written.
    """
    if "name" not in data:
        raise UserError("which data set? --data.name=NAME, such as --data.name=imagenet2012")
    if not name.strip():
        raise UserError("--name is empty; tables need a name")
    data_config = replace_keys(Config(), {f"data.{key}": value for key, value in data.items()}).data
    guessed_split = sources.open_split(data_config, split)
    if guessed_split.records[0].label < 0:
        raise UserError(f"{guessed_split.name} {split} has no labels; guesses on it cannot be scored")
    directory = Workdir(workdir)
    if directory.is_started:
        raise UserError(f"--workdir={workdir} holds a training run; a game needs a separate directory")
    directory.lock()
    game = Game(guessed_split, directory.path, n_images=images, seed=seed, name=name)
    path = directory.predictions(data_config, split)
    files.require_writable_file(path, "the predictions")
    if finish or game.position == game.n_images:
        _store_predictions(game, path)
        return EXIT_FINISHED
    return _serve(game, _find_examples(data_config, split, directory.path), port, path)


def _find_examples(data: Data, split: str, directory: Path) -> ClassExamples | None:
    """Return example images from the training split; None if the training split does not exist."""
    try:
        train_split = sources.open_split(data, data.train_split, may_repeat=True)
    except UserError as error:
        print(f"the page has no example images of the classes: {error}")
        return None
    if sources.overlap(data, data.train_split, split):
        raise UserError(
            f"{data.train_split}, which provides example images of the classes, shares images with {split}, which"
            " is to be guessed; use disjoint parts, such as --split='train[90%:]' --data.train_split='train[:90%]'"
        )
    return ClassExamples(train_split, directory / "examples.json")


def _serve(game: Game, examples: ClassExamples | None, port: int, path: Path) -> int:
    with GameServer(game, examples, port, lambda: _store_predictions(game, path)) as server:
        if examples:
            examples.start()
        instruction = "open this address in a browser on this machine; Ctrl-C stops"
        print(f"image {game.position + 1} of {game.n_images}: {instruction}")
        print(server.url, flush=True)
        try:
            with _interruptible():
                server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print(f"\n{game.position} of {game.n_images} images guessed and saved; the same command resumes the game")
        finally:
            if examples:
                with contextlib.suppress(SaveError):  # they can be found again
                    examples.stop()
    if server.error:
        raise server.error
    if game.position < game.n_images:
        return EXIT_STOPPED
    return EXIT_FINISHED


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and Ctrl-C within the block.

    A script's shell starts background processes with Ctrl-C ignored, so its handler is installed as well.
    """
    numbers = signal.SIGTERM, signal.SIGINT
    handlers = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


def _store_predictions(game: Game, path: Path) -> list[str]:
    """Print the summary of a game, store its predictions, and return the lines of the summary.

    Raises:
      SaveError: the predictions cannot be stored; the guesses are safe, and `--finish` stores them later.
    """
    guesses = game.predictions()
    n_undecodable = game.position - game.n_guessed
    summary = [
        f"{game.name}, {game.split.name} {game.split.split}: {guesses.error_rates()}",
        *([f"{n_undecodable} images could not be decoded and are left out"] if n_undecodable else []),
        "For comparison, the study of 2014 on ImageNet's 1,000 classes:",
        *(f"  {person}" for person in PEOPLE),
    ]
    print("\n".join(summary), flush=True)
    predictions.save(path, guesses)
    print(f"predictions: {path}", flush=True)
    return [*summary, f"predictions: {path}"]
