"""The game of `game.py` in a browser: one page, served to this machine alone.

Listens on 127.0.0.1. Whoever asks must know a random token, which is in the page's address, and must have asked for
127.0.0.1 or localhost by name: a page from elsewhere that has its own name resolve to this machine gets nothing.

| request                        | answer                                                                       |
|--------------------------------|------------------------------------------------------------------------------|
| GET /TOKEN/                    | the page                                                                     |
| GET /TOKEN/state               | JSON: `position`, `images`, `seconds_left`, `done`, `summary`                |
| GET /TOKEN/image/POSITION      | the image to be guessed, as JPEG; no other one                               |
| GET /TOKEN/examples/CLASS      | JSON: `images`, numbers of those found by now, and `complete`                |
| GET /TOKEN/example/CLASS/NUMBER | one of them, as JPEG                                                        |
| POST /TOKEN/answer             | takes JSON `position` and `guesses`, and answers with the state              |
"""

import hmac
import json
import re
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imagenet_repro.data import thumbnails
from imagenet_repro.data.examples import ClassExamples
from imagenet_repro.errors import UserError
from imagenet_repro.human.game import Game, LateError, RefusedError
from imagenet_repro.scoring import wordnet

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")  # with any port: it may be forwarded
PAGE = Path(__file__).parent / "game.html"
LARGEST = 4096  # bytes of an answer
SECONDS = 5  # after which a connection that asks nothing is closed


class GameServer(ThreadingHTTPServer):
    """Serves a game until all its images are guessed.

    Args:
      game: what is played.
      examples: images of every class, to be looked at; None: there are none.
      port: to listen on; 0: any free one.
      finish: called once all images are guessed; what it returns is shown, line by line.

    Raises:
      UserError: the port is taken.
    """

    daemon_threads = False  # so that the last answer is sent before the process ends

    def __init__(self, game: Game, examples: ClassExamples | None, port: int, finish: Callable[[], Sequence[str]]):
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(
                f"--port={port} cannot be listened on ({why}); without --port any free one is taken"
            ) from error
        self.game, self.examples, self.token = game, examples, secrets.token_urlsafe(16)
        self.error: UserError | None = None  # that ended the game
        self._finish = finish
        self.summary: list[str] = []  # once all images are guessed
        self._lock = threading.Lock()  # of the game
        self._page = PAGE.read_text().replace("{{data}}", _data(game, examples))

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def page(self, nonce: str) -> bytes:
        """The page, whose script and style are told by a number used once."""
        return self._page.replace("{{nonce}}", nonce).encode()

    def state(self) -> dict[str, Any]:
        """What the page shows beside the image."""
        with self._lock:
            return self._state()

    def image(self, position: int) -> bytes | None:
        """The image at a position, where it is the one to be guessed."""
        with self._lock:
            return (self.game.image() or None) if position == self.game.position else None

    def answer(self, position: int, guesses: list[Any]) -> dict[str, Any]:
        """Takes guesses, and ends the game after the last; raises as `Game.answer`."""
        with self._lock:
            self.game.answer(position, guesses)
            if self._done and not self.summary:
                self.summary = list(self._finish())
            return self._state()

    def stop(self) -> None:
        """Ends `serve_forever` soon."""
        threading.Thread(target=self.shutdown).start()  # it waits for the loop that this thread may have come from

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has gone away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def _done(self) -> bool:
        return self.game.position == self.game.images

    def _state(self) -> dict[str, Any]:
        game = self.game
        return {
            "position": game.position,
            "images": game.images,
            "seconds_left": game.seconds_left,
            "done": self._done,
            "summary": self.summary,
        }


class _Handler(BaseHTTPRequestHandler):
    server: GameServer
    timeout = SECONDS
    server_version, sys_version = "imagenet_repro", ""

    def do_GET(self) -> None:
        what, *numbers = self._path() or [None]
        handle = {
            "": self._page, "state": self._state, "image": self._image, "examples": self._examples,
            "example": self._example,
        }.get(what)  # fmt: skip
        expected = {"image": 1, "examples": 1, "example": 2}.get(what, 0)
        if handle is None or len(numbers) != expected or not all(re.fullmatch("[0-9]{1,9}", n) for n in numbers):
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        try:
            handle(*map(int, numbers))
        except UserError as error:  # the data set is damaged or gone
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def do_POST(self) -> None:
        if self._path() != ["answer"]:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        try:
            position, guesses = self._posted()
            self._json(self.server.answer(position, guesses))
        except LateError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except RefusedError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except UserError as error:  # the disk is full, the data set is gone
            self.server.error = error
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        if self.server.summary or self.server.error:
            self.server.stop()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal shows the game's own lines."""

    def _path(self) -> list[str] | None:
        """What follows the token; None without the right token, or under another name than this machine's."""
        token, *rest = self.path.partition("?")[0].removeprefix("/").split("/")
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        return rest if known and HOST.fullmatch(self.headers.get("Host", "")) else None

    def _posted(self) -> tuple[int, list[Any]]:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LARGEST:
            raise RefusedError(f"an answer has at most {LARGEST} bytes, and says how many")
        try:
            posted = json.loads(self.rfile.read(int(length)))
            position, guesses = posted["position"], posted["guesses"]
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError("an answer is a JSON object with 'position' and 'guesses'") from error
        if type(position) is not int or not isinstance(guesses, list):
            raise RefusedError("'position' is a number and 'guesses' are a list")
        return position, guesses

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}';"
            f" style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page(nonce), policy)

    def _state(self) -> None:
        self._json(self.server.state())

    def _image(self, position: int) -> None:
        self._jpeg(self.server.image(position))

    def _examples(self, label: int) -> None:
        examples = self.server.examples
        if examples is None or label >= self.server.game.split.num_classes:
            self._refuse(HTTPStatus.NOT_FOUND, "there are no examples")
            return
        complete = examples.is_complete(label)  # first: what is found afterwards is asked for again
        self._json({"images": list(range(len(examples.indices(label)))), "complete": complete})

    def _example(self, label: int, number: int) -> None:
        examples = self.server.examples
        known = examples is not None and label < self.server.game.split.num_classes
        found = examples.indices(label)[number : number + 1] if known else []
        self._jpeg(thumbnails.thumbnail(examples.record(found[0])) if found else None)

    def _json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _jpeg(self, content: bytes | None) -> None:
        if content is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such image")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", content)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._json({"error": why}, status)

    def _send(self, status: HTTPStatus, kind: str, content: bytes, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _data(game: Game, examples: ClassExamples | None) -> str:
    """What the page knows of the classes, as JSON that may stand in HTML."""
    value = {"classes": _classes(game.split.class_names), "examples": examples is not None, "who": game.name}
    return json.dumps(value).replace("<", "\\u003c")


def _classes(names: Sequence[str]) -> list[dict[str, str]]:
    """Of each class its words, its group and what it is a kind of; of classes without WordNet ids the name alone."""
    if not all(map(wordnet.known, names)):
        return [{"name": name, "group": "", "kinds": ""} for name in wordnet.readable(names)]
    above = [wordnet.ancestors(wnid) for wnid in names]
    usual = {one for one in set().union(*above) if sum(one in each for each in above) > len(names) / 2}
    return [
        {
            "name": name,
            "group": wordnet.super_class(wnid),
            "kinds": ", ".join(sorted(wordnet.words(one)[0] for one in each - usual)),
        }
        for wnid, name, each in zip(names, wordnet.readable(names), above, strict=True)
    ]
