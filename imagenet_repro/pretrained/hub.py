"""Weights on the Hugging Face Hub, named as `hub:USER/NAME` or `hub:USER/NAME@REVISION`.

The library `huggingface_hub` downloads into its cache and uploads; its variables (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE,
HF_ENDPOINT) have their usual meaning. Only weights and the files that describe them are downloaded, and no code of a
repository runs. This was tested against a local server with the Hub's layout, not against the Hub itself.
"""

import functools
import hashlib
import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from imagenet_repro import __version__
from imagenet_repro.errors import UserError

PREFIX = "hub:"
LIBRARY = "imagenet_repro"  # the `library_name` of repositories that `push` has written
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_DESCRIPTIONS = (CONFIG, "preprocessor_config.json", "open_clip_config.json")
# Files of weights, as patterns, the preferred first; those of an earlier line make the later ones unnecessary.
_WEIGHTS = (
    (WEIGHTS, f"{WEIGHTS}.index.json", "model-*-of-*.safetensors", "open_clip_model.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin", "open_clip_pytorch_model.bin"),
)
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHA1, _SHA256 = 40, 64  # digits of the names that the cache gives to files: of Git's objects, of large files

Result = TypeVar("Result")


class Repository(NamedTuple):
    """A repository on the Hub, and a branch, tag or commit of it; an empty revision is the main branch."""

    name: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"@{self.revision}" if self.revision else "")


def parse(text: str, option: str = "") -> Repository:
    """Return the repository that `hub:USER/NAME[@REVISION]` names; the prefix may be absent.

    Args:
      text: as typed.
      option: the option, for the message.

    Raises:
      UserError: the text has another form.
    """
    name, at, revision = text.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(name) or (at and not revision):
        raise UserError(f"{option}{text}: a repository is named as USER/NAME or USER/NAME@REVISION")
    return Repository(name, revision)


@functools.cache
def download(text: str) -> Path:
    """Return the directory with the weights of a repository, and check the files in it by their SHA-256.

    A process asks the Hub once for each repository, so that the main branch stays the same for it. What is in the
    cache is not downloaded again.

    Args:
      text: of the form `hub:USER/NAME[@REVISION]`.

    Raises:
      UserError: the library is missing, there is no such repository or revision or it may not be read, it has no
        weights, the Hub cannot be reached, or a file is not what its checksum says.
    """
    repository, client = parse(text), _client(text)

    def fetch(revision: str | None, patterns: Sequence[str]) -> Path:
        options = {"library_name": LIBRARY, "library_version": __version__, "allow_patterns": list(patterns)}
        return Path(client.snapshot_download(repository.name, revision=revision, **options))

    def fetch_weights() -> Path:
        revision = repository.revision or None
        for patterns in _WEIGHTS:
            directory = fetch(revision, (*_DESCRIPTIONS, *patterns))
            if any(next(directory.glob(pattern), None) for pattern in patterns):
                return directory
            revision = directory.name  # the commit
        raise UserError(
            f"{repository} has no file of weights ({WEIGHTS} or {_WEIGHTS[1][0]}); name another repository"
        )

    directory = _explained(repository, fetch_weights)
    for path in sorted(directory.iterdir()):
        _check_blob(path, repository)
    _check_description(directory, repository)
    return directory


def _client(text: str) -> Any:
    """Return the library `huggingface_hub`."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(
            f"{text}: huggingface_hub is not installed; pip install 'imagenet_repro[hub]', or in a clone"
            " pip install -r requirements/hub.txt"
        )
    return importlib.import_module("huggingface_hub")


def _is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE is set."""
    return importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE


def _explained(repository: Repository, call: Callable[[], Result]) -> Result:
    """Return the result of a call of the library; raise its errors as UserError with what to do."""
    errors = importlib.import_module("huggingface_hub.errors")
    login = "log in with `hf auth login` or set HF_TOKEN"
    messages = {  # the first that fits
        errors.GatedRepoError: f"its owner must grant access first; ask for it on its page and {login}",
        errors.RepositoryNotFoundError: f"there is no such repository, or it is private: check the name, or {login}",
        errors.RevisionNotFoundError: f"it has no revision '{repository.revision}'; name a branch, tag or commit",
        errors.LocalTokenNotFoundError: f"there is no token; {login}",
        errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set, so that the Hub is not asked; unset it",
        errors.LocalEntryNotFoundError: (
            "it is not in the cache, and HF_HUB_OFFLINE is set; unset it, or download it before"
            if _is_offline()
            else "it is not in the cache, and the Hub cannot be reached; check the network and HF_ENDPOINT"
        ),
    }
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # the library's own, those of its network library, and of the disk
        message = next((text for kind, text in messages.items() if isinstance(error, kind)), "")
        status = getattr(getattr(error, "response", None), "status_code", None)
        if not message and status in (401, 403):
            message = f"the Hub refuses access (status {status}); {login} with a token that may do this"
        message = message or f"the Hub could not be used: {' '.join(str(error).split())[:200] or type(error).__name__}"
        raise UserError(f"{repository}: {message}") from error


def _check_blob(path: Path, repository: Repository) -> None:
    """Raise UserError where a file of the cache is not what its name there says: its SHA-256, or Git's hash of it."""
    blob = path.resolve()
    if blob == path or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return  # without links, the cache has no such names
    if len(blob.name) == _SHA256:
        digest = _sha256(blob)
    else:
        content = blob.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if digest != blob.name:
        raise UserError(
            f"{repository}: {path.name} is damaged, its hash is not {blob.name}; remove {blob} and run the same"
            " command again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_description(directory: Path, repository: Repository) -> None:
    """Raise UserError where a repository of this project has other weights than its description says."""
    path = directory / CONFIG
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stated = content.get("sha256") if content.get("library_name") == LIBRARY else None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{repository}: {CONFIG} cannot be read ({error}); name another repository") from error
    if stated is None:
        return
    if not (directory / WEIGHTS).is_file() or _sha256(directory / WEIGHTS) != stated:
        raise UserError(
            f"{repository}: {WEIGHTS} is not the file that {CONFIG} describes; push the run again, or name another"
            " revision"
        )


def require_access(repository: Repository) -> None:
    """Check that the library is installed and that this machine has a token, before there is work to lose.

    Raises:
      UserError: it is not, or it has none.
    """
    client = _client(str(repository))
    if _is_offline():
        raise UserError(f"{repository}: HF_HUB_OFFLINE is set, so that nothing can be uploaded; unset it")
    if client.get_token() is None:
        raise UserError(f"{repository}: there is no token; log in with `hf auth login` or set HF_TOKEN")


def push(directory: Path, repository: Repository, *, private: bool, message: str) -> str:
    """Upload the files of a directory as one commit, and return the address of the commit.

    Args:
      directory: of the files.
      repository: which is created if it does not exist; its revision is a branch, which is created likewise.
      private: whether a new repository can be read by its owner alone.
      message: of the commit.

    Raises:
      UserError: the Hub refuses, or cannot be reached.
    """
    client = _client(str(repository))
    api = client.HfApi(library_name=LIBRARY, library_version=__version__)
    branch = repository.revision or None

    def upload() -> str:
        api.create_repo(repository.name, private=private, exist_ok=True)
        if branch:
            api.create_branch(repository.name, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository.name, folder_path=directory, revision=branch, commit_message=message
        )
        return str(commit.commit_url)

    return _explained(repository, upload)
