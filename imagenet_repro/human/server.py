"""Web server of the labelling game (`game.py`): one page, served to browsers on this machine only.

The server listens on 127.0.0.1. A request must contain the random token of the page's address, and must address the
server as 127.0.0.1 or localhost, so that another site whose name resolves to this machine receives nothing.

| request                         | response                                                                   |
|---------------------------------|----------------------------------------------------------------------------|
| GET /TOKEN/                     | the page                                                                   |
| GET /TOKEN/state                | JSON: `position`, `images`, `seconds_left`, `done`, `summary`              |
| GET /TOKEN/image/POSITION       | the current image as JPEG; 404 for any other position                      |
| GET /TOKEN/examples/CLASS       | JSON: `images`, the numbers of the examples found so far, and `complete`   |
| GET /TOKEN/example/CLASS/NUMBER | one example as JPEG                                                        |
| POST /TOKEN/answer              | takes JSON with `position` and `guesses`, and returns the state            |
"""

import contextlib
import hmac
import json
import math
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import jinja2

from imagenet_repro.data import thumbnails
from imagenet_repro.data.examples import ClassExamples
from imagenet_repro.errors import UserError
from imagenet_repro.human.game import Game, InvalidAnswerError, StaleAnswerError
from imagenet_repro.scoring import wordnet

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")  # any port, since the port may be forwarded
PAGE = "game.html"
MAX_ANSWER_BYTES = 4096
TIMEOUT = 5  # seconds after which an idle connection is closed
MAX_SECONDS = 20.0  # seconds after which any connection is closed, such as one that sends a byte every few seconds
CLOSING_SECONDS = 1.0  # seconds that responses have when the game ends


class GameServer(ThreadingHTTPServer):
    """A server of one game, which stops when all images are answered.

    Args:
      game: the game.
      examples: example images of every class; None if there are none to show.
      port: the port to listen on; 0 for any free port.
      finish: a function that is called once all images are answered; the page shows the lines that it returns.

    Attributes:
      summary: the lines of `finish`; empty until all images are answered.
      error: the error that ended the game, if any.

    Raises:
      UserError: the server cannot listen on the port.
    """

    daemon_threads = False  # so that the response to the last answer is sent before the process ends

    def __init__(self, game: Game, examples: ClassExamples | None, port: int, finish: Callable[[], Sequence[str]]):
        self._connections: dict[socket.socket, float] = {}  # the open ones, and when each was opened
        self._connections_lock = threading.Lock()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            message = f"cannot listen on --port={port} ({reason}); without --port any free port is used"
            raise UserError(message) from error
        self.game, self.examples, self.token = game, examples, secrets.token_urlsafe(16)
        self.summary: list[str] = []
        self.error: UserError | None = None
        self._finish = finish
        self._game_lock = threading.Lock()
        templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
        )
        self._template = templates.get_template(PAGE)
        self._page_data = {
            "classes": _describe_classes(game.split.class_names),
            "examples": examples is not None,
            "who": game.name,
        }

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def page(self, nonce: str) -> bytes:
        """Return the page, whose scripts and styles carry a number that is used once."""
        return self._template.render(nonce=nonce, data=self._page_data).encode()

    def state(self) -> dict[str, Any]:
        """Return the progress of the game, which the page shows beside the image."""
        with self._game_lock:
            return self._state()

    def image(self, position: int) -> bytes | None:
        """Return the image at a position if it is the current one."""
        with self._game_lock:
            return (self.game.current_image() or None) if position == self.game.position else None

    def answer(self, position: int, guesses: list[Any]) -> dict[str, Any]:
        """Record an answer, end the game after the last one, and return the state; raises as `Game.answer`."""
        with self._game_lock:
            self.game.answer(position, guesses)
            if self._is_finished and not self.summary:
                self.summary = list(self._finish())
            return self._state()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a new thread."""
        with self._connections_lock:
            self._connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        with self._connections_lock:
            self._connections.pop(request, None)
        super().close_request(request)

    def service_actions(self) -> None:
        """Close connections that take too long; called between two requests and while there are none."""
        self._shut_down_connections(opened_before=time.monotonic() - MAX_SECONDS)

    def server_close(self) -> None:
        """Close the server and its connections, after a moment for responses that are being sent."""
        until = time.monotonic() + CLOSING_SECONDS
        while self._connections and time.monotonic() < until:
            time.sleep(0.01)
        self._shut_down_connections()
        super().server_close()

    def _shut_down_connections(self, opened_before: float = math.inf) -> None:
        """End the connections, so that their threads, which wait for a client, end as well."""
        with self._connections_lock:
            for connection, opened in self._connections.items():
                if opened < opened_before:
                    with contextlib.suppress(OSError):  # the client has closed it
                        connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End `serve_forever` soon."""
        # In another thread, since `shutdown` waits for the loop from which this may have been called.
        threading.Thread(target=self.shutdown).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print errors, except those of a connection that the browser or this server has closed."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def _is_finished(self) -> bool:
        return self.game.position == self.game.n_images

    def _state(self) -> dict[str, Any]:
        return {
            "position": self.game.position,
            "images": self.game.n_images,
            "seconds_left": self.game.seconds_left,
            "done": self._is_finished,
            "summary": self.summary,
        }


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    server_version, sys_version = "imagenet_repro", ""

    @property
    def _game_server(self) -> GameServer:
        return cast(GameServer, self.server)

    def do_GET(self) -> None:
        name, *numbers = self._path() or ["no such request"]
        handlers: dict[str, Callable[..., None]] = {
            "": self._send_page,
            "state": self._send_state,
            "image": self._send_image,
            "examples": self._send_examples,
            "example": self._send_example,
        }
        n_numbers = {"image": 1, "examples": 1, "example": 2}.get(name, 0)
        are_numbers = all(re.fullmatch("[0-9]{1,9}", number) for number in numbers)
        if name not in handlers or len(numbers) != n_numbers or not are_numbers:
            self._send_error(HTTPStatus.NOT_FOUND, "there is no such page")
            return
        try:
            handlers[name](*map(int, numbers))
        except UserError as error:  # the data set is damaged or was removed
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def do_POST(self) -> None:
        if self._path() != ["answer"]:
            self._send_error(HTTPStatus.NOT_FOUND, "there is no such page")
            return
        server = self._game_server
        try:
            position, guesses = self._read_answer()
            self._send_json(server.answer(position, guesses))
        except StaleAnswerError as error:
            self._send_error(HTTPStatus.CONFLICT, str(error))
        except InvalidAnswerError as error:
            self._send_error(HTTPStatus.BAD_REQUEST, str(error))
        except UserError as error:  # the disk is full, or the data set was removed
            server.error = error
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        if server.summary or server.error:
            server.stop()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print no line for a request, because the terminal shows the game's own lines."""

    def _path(self) -> list[str] | None:
        """Return the parts of the path after the token; None without the right token and host name."""
        token, *parts = self.path.partition("?")[0].removeprefix("/").split("/")
        is_token_right = hmac.compare_digest(token.encode(), self._game_server.token.encode())
        return parts if is_token_right and HOST.fullmatch(self.headers.get("Host", "")) else None

    def _read_answer(self) -> tuple[int, list[Any]]:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_ANSWER_BYTES:
            raise InvalidAnswerError(f"an answer needs a Content-Length of at most {MAX_ANSWER_BYTES} bytes")
        try:
            answer = json.loads(self.rfile.read(int(length)))
            position, guesses = answer["position"], answer["guesses"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # the last one: deeply nested JSON
            raise InvalidAnswerError("an answer is a JSON object with 'position' and 'guesses'") from error
        if type(position) is not int or not isinstance(guesses, list):
            raise InvalidAnswerError("'position' must be a whole number and 'guesses' a list")
        return position, guesses

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{nonce}';"
            f" style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self._game_server.page(nonce), policy)

    def _send_state(self) -> None:
        self._send_json(self._game_server.state())

    def _send_image(self, position: int) -> None:
        self._send_jpeg(self._game_server.image(position))

    def _send_examples(self, label: int) -> None:
        examples = self._examples_of(label)
        if examples is None:
            self._send_error(HTTPStatus.NOT_FOUND, "there are no examples")
            return
        # Read before the indices: the page asks again for examples that are found in between.
        is_complete = examples.is_complete(label)
        self._send_json({"images": list(range(len(examples.indices(label)))), "complete": is_complete})

    def _send_example(self, label: int, number: int) -> None:
        examples = self._examples_of(label)
        indices = examples.indices(label)[number : number + 1] if examples else []
        self._send_jpeg(thumbnails.thumbnail(examples.record(indices[0])) if examples and indices else None)

    def _examples_of(self, label: int) -> ClassExamples | None:
        """Return the examples; None if there are none or there is no such class."""
        return self._game_server.examples if label < self._game_server.game.split.num_classes else None

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send_jpeg(self, content: bytes | None) -> None:
        if content is None:
            self._send_error(HTTPStatus.NOT_FOUND, "there is no such image")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", content)

    def _send_error(self, status: HTTPStatus, message: str) -> None:
        self._send_json({"error": message}, status)

    def _send(self, status: HTTPStatus, content_type: str, content: bytes, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": content_type,
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


def _describe_classes(names: Sequence[str]) -> list[dict[str, str]]:
    """Return the readable name, the group and the hypernyms of each class, for the search of the page.

    Classes without WordNet ids have a name only. Hypernyms of more than half of the classes are left out.
    """
    if not all(map(wordnet.is_wordnet_id, names)):
        return [{"name": name, "group": "", "kinds": ""} for name in wordnet.readable_names(names)]
    ancestors = [wordnet.ancestors(wnid) for wnid in names]
    common = {
        wnid for wnid in set().union(*ancestors) if sum(wnid in hypernyms for hypernyms in ancestors) > len(names) / 2
    }
    return [
        {
            "name": name,
            "group": wordnet.super_class(wnid),
            "kinds": ", ".join(sorted(wordnet.words(hypernym)[0] for hypernym in hypernyms - common)),
        }
        for wnid, name, hypernyms in zip(names, wordnet.readable_names(names), ancestors, strict=True)
    ]
