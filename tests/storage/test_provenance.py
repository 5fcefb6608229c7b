"""Tests of the provenance of results."""

import hashlib
import json

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.storage import provenance


def test_provenance_is_json_with_code_versions_and_devices():
    collected = json.loads(json.dumps(provenance.collect()))
    assert collected["packages"]["jax"]
    assert collected["devices"] == {"platform": "cpu", "cpu": 8}
    assert collected["commit"]


def test_a_file_is_identified_by_its_digest(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    assert provenance.of_file(path) == {"path": str(path), "sha256": hashlib.sha256(b"abc").hexdigest()}
    with pytest.raises(UserError, match=r"absent cannot be read: No such file"):
        provenance.of_file(tmp_path / "absent")
