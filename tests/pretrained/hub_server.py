"""A local server with the endpoints of the Hugging Face Hub that `huggingface_hub` uses for files of models.

Repositories live in memory: commits of files on branches. The library decides what it sends and where it stores what
it receives, so that its own cache and its own errors are tested.
"""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

import pytest

TOKEN = "hf_of_the_tests"


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """The repositories of a server, and the requests that it has received.

    `branches` has the commit of each branch by repository, `commits` the files of each commit, `large` what LFS holds.
    """

    def __init__(self):
        self.branches, self.commits, self.large, self.requests = {}, {}, {}, []
        self.private, self.gated, self.corrupt = set(), set(), set()

    def commit(self, name, files, branch="main"):
        """Add files to a branch, and return the commit."""
        branches = self.branches.setdefault(name, {})
        content = self.commits.get(branches.get(branch), {}) | files
        branches[branch] = hashlib.sha1(repr(sorted(content.items())).encode()).hexdigest()
        self.commits[branches[branch]] = content
        return branches[branch]

    def resolve(self, name, revision):
        commit = self.branches.get(name, {}).get(revision, revision)
        return commit if commit in self.commits else None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments):
        pass

    def reply(self, value, status=200, **headers):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), str(text))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_request(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        body = self.body() if self.command in ("POST", "PUT") else b""
        self.hub.requests.append((self.command, path))
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return answer(self, body, **match.groupdict())
        return self.reply({"error": "no such page"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    def readable(self, name):
        """Whether a repository may be read; otherwise the answer of the Hub is sent."""
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name in self.hub.gated:
            self.reply({"error": "gated"}, 403, X_Error_Code="GatedRepo")
        elif name not in self.hub.branches or (name in self.hub.private and not authorised):
            self.reply({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
        else:
            return True
        return False

    def info(self, body, name, revision="main"):
        if not self.readable(name):
            return
        commit = self.hub.resolve(name, revision)
        if commit is None:
            self.reply({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        else:
            files = [{"rfilename": path} for path in self.hub.commits[commit]]
            self.reply({"_id": "1", "id": name, "modelId": name, "sha": commit, "siblings": files})

    def tree(self, body, name, revision):
        entries = []
        for path, content in self.hub.commits[self.hub.resolve(name, revision)].items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if path.endswith((".safetensors", ".bin")):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.reply(entries)

    def file(self, body, name, revision, path):
        if not self.readable(name):
            return
        commit = self.hub.resolve(name, revision)
        content = self.hub.commits.get(commit, {}).get(path)
        if content is None:
            return self.reply({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        is_large = path.endswith((".safetensors", ".bin"))
        etag = hashlib.sha256(content).hexdigest() if is_large else git_hash(content)
        if path in self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        extra = {"X_Linked_Etag": f'"{etag}"', "X_Linked_Size": len(content)} if is_large else {}
        return self.reply(content, ETag=f'"{etag}"', X_Repo_Commit=commit, **extra)

    def create(self, body):
        asked = json.loads(body)
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply({"error": "Invalid username or password."}, 401)
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        if name not in self.hub.branches:
            self.hub.commit(name, {})
        return self.reply({"url": f"https://huggingface.co/{name}", "name": name, "id": "1"})

    def validate(self, body):
        import yaml

        try:
            is_valid = isinstance(yaml.safe_load(json.loads(body)["content"].split("---\n")[1]), dict)
        except (yaml.YAMLError, IndexError):
            is_valid = False
        self.reply({"errors": [] if is_valid else [{"message": "no YAML"}], "warnings": []}, 200 if is_valid else 400)

    def branch(self, body, name, branch):
        self.hub.branches[name].setdefault(branch, self.hub.branches[name]["main"])
        self.reply({})

    def preupload(self, body, name, revision):
        files = json.loads(body)["files"]
        modes = {True: "lfs", False: "regular"}
        answer = [
            {"path": f["path"], "uploadMode": modes[f["path"].endswith(".safetensors")], "shouldIgnore": False}
            for f in files
        ]
        self.reply({"files": answer})

    def lfs_batch(self, body, name):
        host = f"http://{self.headers['Host']}"
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{host}/lfs/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def lfs_upload(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.reply({})

    def make_commit(self, body, name, revision):
        import base64

        files = {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = self.hub.commit(name, files, revision)
        self.reply(
            {"success": True, "commitUrl": f"https://huggingface.co/{name}/commit/{commit}", "commitOid": commit}
        )


_NAME, _REVISION = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>[^/]+)"
_ROUTES = (
    (rf"GET /api/models/{_NAME}/revision/{_REVISION}", _Handler.info),
    (rf"GET /api/models/{_NAME}/tree/{_REVISION}", _Handler.tree),
    (rf"GET /api/models/{_NAME}", _Handler.info),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _Handler.file),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/branch/(?P<branch>[^/]+)", _Handler.branch),
    (rf"POST /api/models/{_NAME}/preupload/{_REVISION}", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"PUT /lfs/(?P<oid>\w+)", _Handler.lfs_upload),
    (rf"POST /api/models/{_NAME}/commit/{_REVISION}", _Handler.make_commit),
)


@contextlib.contextmanager
def library(directory, monkeypatch):
    """Yield a hub that the library takes for the real one, with a token and an empty cache below a directory."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    from imagenet_repro.pretrained.hub import download

    with serve() as (hub, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(directory / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(directory / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        download.cache_clear()
        yield hub
    download.cache_clear()
    huggingface_hub.close_session()


@contextlib.contextmanager
def serve():
    """Yield a hub and the address of its server."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
