"""Tests of the web server of the labelling game."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time

import pytest

from imagenet_repro.data.examples import ClassExamples
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.human import server as server_module
from imagenet_repro.human.server import GameServer, _describe_classes
from tests.human import small_games


class Client:
    """A client that sends requests as a browser does."""

    def __init__(self, server):
        self.port, self.token = server.server_port, server.token

    def request(self, path, *, method="GET", body=None, token=None, headers=None):
        """Send a request; return the status, headers and content of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            target = f"/{self.token if token is None else token}/{path}"
            connection.request(method, target, body, {"Content-Type": "application/json"} | (headers or {}))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def json(self, path, **options):
        """Send a request; return the status of the response and the value of its JSON."""
        status, _, content = self.request(path, **options)
        return status, json.loads(content)

    def answer(self, position, guesses):
        return self.json("answer", method="POST", body=json.dumps({"position": position, "guesses": guesses}))


@contextlib.contextmanager
def serving(directory, n_images=3, *, finish=lambda: ["the end"], examples=None, **options):
    """Serve a game in a thread; yield a client and the server."""
    with GameServer(small_games.game(directory, n_images, **options), examples, 0, finish) as server:
        thread = server.thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Client(server), server
        finally:
            server.shutdown()
            thread.join()


def test_a_game_from_start_to_finish(tmp_path):
    ends = []
    with serving(tmp_path, finish=lambda: ends.append(1) or ["the end", "of it"]) as (client, server):
        assert client.json("state") == (200, {
            "position": 0, "images": 3, "seconds_left": None, "done": False, "summary": [],
        })  # fmt: skip
        levels = []
        for position in range(3):
            status, headers, jpeg = client.request(f"image/{position}")
            assert (status, headers["Content-Type"]) == (200, "image/jpeg")
            levels.append(small_games.level(jpeg))
            status, state = client.answer(position, [position, 5])
            assert (status, state["position"]) == (200, position + 1)
        assert state["done"]
        assert state["summary"] == ["the end", "of it"]
        server.thread.join(timeout=300)  # the last answer ends the server by itself
        assert not server.thread.is_alive()
    assert ends == [1]
    assert len(set(levels)) == 3
    assert small_games.game(tmp_path, 3).predictions().top5[:, :2].tolist() == [[0, 5], [1, 5], [2, 5]]


def test_nothing_is_served_without_the_token(tmp_path):
    with serving(tmp_path) as (client, server):
        assert len(client.token) >= 20
        for token in ("", "x", client.token[:-1], f"{client.token}x", client.token.swapcase()):
            for path in ("", "state", "image/0"):
                assert client.request(path, token=token)[0] == 404
            assert (
                client.request("answer", method="POST", token=token, body='{"position": 0, "guesses": [1]}')[0] == 404
            )
        assert server.game.position == 0


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1", 200), ("localhost:8000", 200), ("evil.example", 404), ("127.0.0.1.evil.example:80", 404), ("[", 404),
])  # fmt: skip
def test_the_server_must_be_addressed_by_this_machines_name(tmp_path, host, status):
    with serving(tmp_path) as (client, _):
        assert client.request("state", headers={"Host": host})[0] == status


def test_the_server_listens_on_this_machine_only(tmp_path):
    with serving(tmp_path) as (_, server):
        assert server.server_address[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"


def test_repeated_answers_are_ignored_and_stale_ones_rejected(tmp_path):
    with serving(tmp_path) as (client, server):
        first = client.answer(0, [1, 2])
        assert client.answer(0, [1, 2]) == first
        status, response = client.answer(0, [2, 1])
        assert status == 409
        assert "is not the current image" in response["error"]
        assert client.answer(2, [1])[0] == 409
        assert server.game.position == 1


@pytest.mark.parametrize(("body", "message"), [
    ('{"position": 0, "guesses": [7]}', "one to 5 different classes"),
    ('{"position": 0, "guesses": ["dog"]}', "one to 5 different classes"),
    ('{"position": 0, "guesses": [1.0]}', "one to 5 different classes"),
    ('{"position": 0, "guesses": []}', "one to 5 different classes"),
    ('{"position": "0", "guesses": [1]}', "'position' must be a whole number"),
    ('{"position": true, "guesses": [1]}', "'position' must be a whole number"),
    ('{"position": 0}', "a JSON object with"),
    ("[0, [1]]", "a JSON object with"),
    ("\xff", "a JSON object with"),
    ("{" * 5000, "at most 4096 bytes"),
    ('{"position": 0, "guesses": ' + "[" * 4000, "a JSON object with"),
    ('{"a":' * 680 + "1" + "}" * 680, "a JSON object with"),
])  # fmt: skip
def test_invalid_answers_are_rejected(tmp_path, body, message):
    with serving(tmp_path) as (client, server):
        status, response = client.json("answer", method="POST", body=body.encode("latin-1"))
        assert status == 400
        assert message in response["error"]
        assert server.game.position == 0


@pytest.mark.parametrize("path", [
    "image/1", "image/x", "image", "image/-1", "image/0/0", "nothing", "../state", "state/", "answer",
    "examples/0", "example/0/0",
])  # fmt: skip
def test_other_paths_are_not_found(tmp_path, path):
    with serving(tmp_path) as (client, _):
        assert client.request(path)[0] == 404


def test_slow_connections_delay_the_end_for_a_moment_only(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "CLOSING_SECONDS", 0.2)
    ended = threading.Event()  # set by the test at its end, or by a timer if the server waits for the connections
    timer = threading.Timer(300, ended.set)
    timer.daemon = True
    timer.start()

    def send_slowly(connection):
        with contextlib.suppress(OSError):
            while not ended.wait(0.05):
                connection.sendall(b"x")

    with serving(tmp_path) as (client, server):
        connections = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(5)]
        threads = [threading.Thread(target=send_slowly, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        assert client.json("state")[0] == 200  # others are served meanwhile
    assert not ended.is_set()
    assert not server._connections
    timer.cancel()
    ended.set()
    for thread, connection in zip(threads, connections, strict=True):
        thread.join()
        connection.close()


def test_a_connection_that_takes_too_long_is_closed(tmp_path, monkeypatch):
    with serving(tmp_path) as (client, _), socket.create_connection(("127.0.0.1", client.port), timeout=300) as slow:
        slow.sendall(b"GET /")
        with monkeypatch.context() as context:
            context.setattr(server_module, "MAX_SECONDS", 0.2)
            assert slow.recv(1) == b""
        assert client.json("state")[0] == 200


def test_the_page_is_self_contained_and_escaped(tmp_path):
    with serving(tmp_path, name="</script><b>") as (client, _):
        status, headers, page = client.request("")
        text = page.decode()
        assert status == 200
        assert not re.search(r"https?://", text)
        assert "{{" not in text
        assert "</script><b>" not in text
        nonce = re.search(r"script-src 'nonce-([\w-]+)'", headers["Content-Security-Policy"])[1]
        assert text.count(f'nonce="{nonce}"') == 3
        assert nonce not in client.request("")[2].decode()
        assert headers["Referrer-Policy"] == "no-referrer"
        data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
        assert data["who"] == "</script><b>"
        assert [one["name"].split(",")[0] for one in data["classes"]] == [
            "dog", "cat", "bird", "fish", "car", "chair", "table",
        ]  # fmt: skip
        assert [one["group"] for one in data["classes"][:3]] == ["dog", "feline", "bird"]
        assert "canine" in data["classes"][0]["kinds"]
        assert "entity" not in data["classes"][0]["kinds"]  # a hypernym of all classes


def test_classes_without_wordnet_ids_have_only_names(tmp_path):
    assert _describe_classes(("b, c", "a")) == [
        {"name": "b, c", "group": "", "kinds": ""}, {"name": "a", "group": "", "kinds": ""},
    ]  # fmt: skip


def test_nothing_reveals_the_label(tmp_path):
    """Check that no response contains the name of the image."""
    with serving(tmp_path, 1) as (client, server):
        record = server.game.split.records[int(server.game._order[0])]
        responses = [client.request(path) for path in ("", "state", "image/0")]
        assert not any(record.id.encode() in content for _, _, content in responses)


def test_examples_of_a_class_are_served_as_they_are_found(tmp_path):
    examples = ClassExamples(small_games.split(200, part="train"), tmp_path / "examples.json")
    with serving(tmp_path, examples=examples) as (client, _):
        assert client.json("examples/3") == (200, {"images": [], "complete": False})
        assert client.request("example/3/0")[0] == 404
        examples.start()
        deadline = time.monotonic() + 300
        while not (response := client.json("examples/3")[1])["complete"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert response == {"images": list(range(13)), "complete": True}
        status, headers, jpeg = client.request("example/3/12")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert small_games.level(jpeg) % 7 == 3
        for path in ("examples/7", "example/7/0", "example/3/13"):
            assert client.request(path)[0] == 404
        examples.stop()


def test_a_full_disk_ends_the_game_with_a_message(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with serving(tmp_path) as (client, server):
        with monkeypatch.context() as patched:
            patched.setattr("imagenet_repro.human.game.os.fsync", full)
            status, response = client.answer(0, [1])
        assert status == 500
        assert "No space left" in response["error"]
        assert isinstance(server.error, SaveError)


def test_a_taken_port_is_reported(tmp_path):
    with serving(tmp_path) as (client, _), pytest.raises(UserError, match="cannot listen on"):
        GameServer(small_games.game(tmp_path, 3), None, client.port, list)
