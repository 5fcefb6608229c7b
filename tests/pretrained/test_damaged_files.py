"""Damaged and hostile files of weights: each ends in a UserError or in arrays, in bounded time and memory."""

import io
import json
import os
import signal
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagenet_repro import pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.pretrained import pickles

FILES = Path(__file__).parent / "files"
ARRAYS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.arange(4, dtype=np.float16),
    "brain": np.arange(4).astype(ml_dtypes.bfloat16),
    "count": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
}
SECONDS = 20.0  # of CPU time that reading a file of a few kB may take; it takes milliseconds
MEGABYTES = 200  # that reading thousands of such files may take at once


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return {info.filename: source.read(info) for info in source.infolist()}


def npz(compressed=False):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **ARRAYS)
    return file.getvalue()


CONTENTS = {path.name: path.read_bytes() for path in sorted(FILES.glob("*.pth"))} | {
    "a.safetensors": safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in ARRAYS.items()},
        {"imagenet_repro": json.dumps({"name": "resnet18", "num_classes": 10, "options": {}, "preprocessing": None})},
    ),
    "a.npz": npz(),
    "compressed.npz": npz(compressed=True),
}


def damaged(content, rng):
    """Return the content with up to four changes of a random kind."""
    result = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start = int(rng.integers(len(result) + 1))
        length = int(rng.choice((1, 1, 2, 4, 8, 64)))
        piece = [
            rng.bytes(length),
            rng.choice((b"\x00", b"\xff", b"\x7f")) * length,
            b"",
            content[int(rng.integers(len(content))) :][:length],
        ][rng.integers(4)]
        replaced = length if rng.integers(2) else 0
        result[start : start + replaced] = piece
    return bytes(result[: rng.integers(len(result)) if rng.integers(20) == 0 else None])


def mutation(name, rng):
    """Return a file with damage to its bytes or, since checksums reveal that, to a member of a sound archive."""
    content = CONTENTS[name]
    if not content.startswith(b"PK") or rng.integers(3) == 0:
        return damaged(content, rng)
    members = members_of(content)
    names = [member for member in members if member.endswith(("data.pkl", ".npy"))]
    chosen = names[rng.integers(len(names))]
    compression = zipfile.ZIP_DEFLATED if name == "compressed.npz" else zipfile.ZIP_STORED
    return archive(members | {chosen: damaged(members[chosen], rng)}, compression)


def read(path, content):
    """Return the arrays of a file, or None where it is refused; AssertionError where that takes long."""
    path.write_bytes(content)
    start = time.process_time()
    try:
        return {name: np.array(array) for name, array in pretrained.read(path).tensors.items()}
    except UserError as error:
        message = str(error)
    finally:
        assert time.process_time() - start < SECONDS
    assert path.name in message
    assert message.isprintable()
    return None


def peak_megabytes():
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_mutations(name, tries, path):
    before = peak_megabytes()
    results = [read(path, mutation(name, np.random.default_rng(seed))) for seed in range(tries)]
    assert peak_megabytes() - before < MEGABYTES
    assert any(result is None for result in results)


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_mutated_files_end_in_a_sentence_or_in_arrays(name, tmp_path):
    read_mutations(name, 6, tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_many_mutated_files(name, tmp_path):
    read_mutations(name, 2_000, tmp_path / name)


def check_truncations(name, path, step):
    content = CONTENTS[name]
    expected = read(path, content)
    for length in range(0, len(content), step):
        arrays = read(path, content[:length])
        if arrays is not None:
            assert arrays.keys() == expected.keys()
            assert all(np.array_equal(arrays[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_truncated_files(name, tmp_path):
    check_truncations(name, tmp_path / name, step=len(CONTENTS[name]) // 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_files_truncated_at_many_lengths(name, tmp_path):
    check_truncations(name, tmp_path / name, step=1 + len(CONTENTS[name]) // 2_000)


# --- pickles made to cost more than their length -----------------------------------------------------------------

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n%s\nV0\nVcpu\nK\x04tQK\x00"
FLOATS = REBUILD % b"FloatStorage" + b"K\x04\x85K\x01\x85tR"
HUGE_HALF = REBUILD % b"HalfStorage" + b"J\x00\x00\x00\x01\x85K\x00\x85tR"  # 2 ** 24 times the same number


def memoized(operations):
    return b"".join(operation + b"q" + bytes([number]) for number, operation in enumerate(operations))


def shared_dictionaries(depth):
    """Return a dictionary whose entries are twice the dictionary before it: 2 ** depth paths, but few objects."""
    return memoized([b"}", *(b"}(Vx\nh%cVy\nh%cu" % (n, n) for n in range(depth))])


def nested_tuples(depth):
    """Return a tuple that is twice the tuple before it, whose hash and text take 2 ** depth steps."""
    return memoized([b")", *(b"h%ch%c\x86" % (n, n) for n in range(depth))])


NESTED = nested_tuples(99)  # the last one is number 99 of the memo
PAIRS = b"](" + b"NN\x86" * 2_000 + b"e\x85q\x00"
FUNCTION = b"ccollections\nOrderedDict\n"
COSTLY = {
    "shared dictionaries": shared_dictionaries(200),
    "a wrapper in itself": b"}q\x00Vmodel\nh\x00s",
    "wrappers": b"}Vmodel\n" * 2_000 + FLOATS + b"s" * 2_000,
    "a dictionary in itself beside a tensor": b"}q\x00(Vweight\n" + FLOATS + b"Vx\nh\x00u",
    "a key that is a nested tuple": NESTED + b"}hcNs",
    "a storage whose key is a nested tuple": NESTED + b"(Vstorage\nctorch\nFloatStorage\nhcVcpu\nK\x04tQ",
    "a tensor whose size is a nested tuple": NESTED + FLOATS[: -len(b"K\x04\x85K\x01\x85tR")] + b"hchctR",
    "a function whose name is a nested tuple": NESTED + b"hchc\x93",
    "deep lists": b"]" * 3_000 + b"a" * 2_999,
    "deep tuples": b")" + b"\x85" * 3_000,
    "integers with one hash": b"}"
    + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"Ns" for n in range(2_000)),
    "a large integer as a key": b"}\x8b\x00\x00\x04\x00" + b"\x11" * 2**18 + b"q\x00Ns" + b"h\x00Ns" * 5_000,
    "copies": PAIRS + (FUNCTION + b"h\x00R") * 1_000,
    "long names of functions": b"X\x00\x00\x04\x00" + b"a" * 2**18 + b"q\x00" + b"h\x00h\x00\x93" * 20_000,
    "expanded tensors": b"}(" + b"".join(b"Vw%d\n" % n + HUGE_HALF for n in range(170)) + b"u",
    "one tensor many times": b"}("
    + b"".join(b"Vw%d\n" % n + (b"h\x00" if n else HUGE_HALF + b"q\x00") for n in range(200))
    + b"u",
}


@pytest.mark.parametrize("cost", COSTLY)
def test_pickles_that_cost_more_than_their_length(cost, tmp_path):
    content = archive({"archive/data.pkl": b"\x80\x02" + COSTLY[cost] + b".", "archive/data/0": bytes(16)})
    before = peak_megabytes()
    arrays = read(tmp_path / "weights.pth", content)
    assert peak_megabytes() - before < MEGABYTES
    assert (arrays is None) == (cost not in ("a dictionary in itself beside a tensor",))


@pytest.fixture
def default_interrupt():
    """Handle SIGINT as Python does, also where the tests are a background job of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_reading_can_be_interrupted(tmp_path, monkeypatch):
    pickled = b"\x80\x02" + b"N0" * 4_000 + b"."
    (tmp_path / "weights.pth").write_bytes(archive({"archive/data.pkl": pickled}))
    performed, perform = [], pickles._Machine.perform

    def perform_and_interrupt(machine, *operation):
        performed.append(operation)
        if len(performed) == 1000:
            signal.raise_signal(signal.SIGINT)
        perform(machine, *operation)

    monkeypatch.setattr(pickles._Machine, "perform", perform_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrained.read(tmp_path / "weights.pth")
    assert len(performed) == 1000


def test_too_many_operations_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("imagenet_repro.pretrained.pickles.MAX_OPERATIONS", 1_000)
    content = archive({"archive/data.pkl": b"\x80\x02" + b"N0" * 600 + b"N."})
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match="more than 1,000 operations"):
        pretrained.read(tmp_path / "weights.pth")


# --- archives ----------------------------------------------------------------------------------------------------


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_shape(shape, descr="<f4", version=1):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + bytes(16)


def encrypted(content):
    """Return an archive whose members claim to be encrypted."""
    return content.replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01").replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: archive({"w.npy": npy(np.zeros(9 * 2**20))}, zipfile.ZIP_DEFLATED), "made to exhaust memory"),
        (
            lambda: archive({"w.npy": npy(np.zeros(9))}, zipfile.ZIP_LZMA),
            "compressed in a way that NumPy does not use",
        ),
        (lambda: archive({"w.npy": npy(np.zeros(9))}, zipfile.ZIP_BZIP2), "compressed in a way that NumPy"),
        (lambda: archive({"w.npy": with_shape((-1, -1))}), "shape"),
        (lambda: archive({"w.npy": with_shape((10**15,), "|V0")}), "type"),
        (lambda: archive({"w.npy": with_shape((10**12,), version=3)}), "version"),
        (lambda: archive({"w.npy": with_shape((10**12,), version=2)}), "claims"),
        (lambda: archive({"w.npy": with_shape((2,), "|O")}), "damaged"),
        (lambda: archive({"w.npy": with_shape((10**400,))}), "claims"),
        (lambda: archive({"x/data.pkl": b"\x80\x02N."}, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda: encrypted(archive({"w.npy": npy(np.zeros(3))})), "encrypted"),
        (lambda: archive({"\x1b[31m.npy": npy(np.zeros(3))}), r"'\\x1b\[31m' is no name of a tensor"),
        (lambda: archive({}), "damaged"),
    ],
)
def test_hostile_archives(make, message, tmp_path):
    before = peak_megabytes()
    (tmp_path / "weights").write_bytes(make())
    with pytest.raises(UserError, match=message) as error:
        pretrained.read(tmp_path / "weights")
    assert str(error.value).isprintable()
    assert peak_megabytes() - before < MEGABYTES


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["w.npy", "archive/data.pkl"])
def test_members_of_one_name_are_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "weights", "w") as target:
        for _ in range(2):
            target.writestr(name, npy(np.zeros(3)) if name.endswith("npy") else b"\x80\x02}.")
    with pytest.raises(UserError, match="two members have the same name"):
        pretrained.read(tmp_path / "weights")


def test_a_flipped_bit_of_a_number_is_found_by_its_checksum(tmp_path):
    content = bytearray((FILES / "zip.pth").read_bytes())
    place = content.index(np.float32(1).tobytes() + np.float32(2).tobytes())
    content[place] ^= 1
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match="does not have its checksum"):
        pretrained.read(tmp_path / "weights.pth")


# --- .safetensors ------------------------------------------------------------------------------------------------


def with_header(header, numbers=bytes(32)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def floats(start, end, shape=(4,)):
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        with_header({"a": floats(0, 16), "b": floats(8, 24)}),  # overlapping
        with_header({"a": floats(0, 16), "b": floats(0, 16)}),
        with_header({"a": floats(0, 32)}),  # more bytes than numbers
        with_header({"a": floats(0, 16, (-2, -2))}),
        with_header({"a": floats(0, 32, (2**62, 2**62))}),
        with_header({"a": floats(0, 0, (0, 2**63 - 1)), "b": floats(0, 32, (9,))}),
        with_header({"a": floats(0, 2**40, (2**38,))}),
        with_header({"a": floats(16, 0)}),
        with_header({"a": floats(0, 16)}, bytes(8)),
        with_header({"a": {"dtype": "O", "shape": [4], "data_offsets": [0, 32]}}),
        with_header(b'{"a": ' + b"[" * 100_000),
        with_header(b'{"\xff": {}}'),
        with_header({"\x1b[31m": floats(0, 16), "b": floats(16, 32)}),
        with_header({"__metadata__": {"imagenet_repro": "[" * 100_000}, "a": floats(0, 16), "b": floats(16, 32)}),
        (2**63).to_bytes(8, "little") + b"{" + bytes(64),
        (2**20).to_bytes(8, "little") + b"{" + bytes(64),
    ],
)
def test_hostile_safetensors(content, tmp_path):
    assert read(tmp_path / "weights.safetensors", content) is None


# --- paths that are no files -------------------------------------------------------------------------------------


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "tar.pth").write_bytes(bytes(257) + b"ustar" + bytes(250))
    for path, message in {
        tmp_path / "folder": "is a directory without model.safetensors",
        tmp_path / "pipe": "is no regular file",
        tmp_path / "empty": "it is empty",
        tmp_path / "tar.pth": "is a tar archive",
        tmp_path / ("a" * 300): "cannot be read: File name too long",
        tmp_path / "empty" / "file": "there is no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            pretrained.read(path)
