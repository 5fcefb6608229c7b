"""Decoding of damaged images: every accepted format, mutated at random.

    python benchmarks/fuzz_decoding.py [--mutations 10000] [--seed 0] [--out FILE]

An image of each kind below is damaged in one of eight ways and decoded (data/decode.py). The checksums of half of the
PNGs are repaired afterwards, because a decoder stops at a wrong one. The mutation of a number follows from the seed,
the kind and the number, so that any can be repeated. Expected are an image or a `DecodeError`, less than 200 ms of
processor time for each record, and memory that does not grow. The exit code is 1 where one of these fails.
"""

import argparse
import functools
import io
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.data.decode import DecodeError, decode  # noqa: E402

MAX_MILLISECONDS = 200.0
MAX_GROWTH = 64e6  # bytes of resident memory
TRACED = 50  # mutations of a kind under tracemalloc, which makes decoding slower
EXTREMES = np.asarray([0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF], np.uint8)
HEADER = 64  # bytes
PNG = b"\x89PNG\r\n\x1a\n"


@functools.cache
def images() -> dict[str, bytes]:
    """Return an encoded image of each kind, 500 x 375 pixels, as smooth as a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    scene = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
    grey = np.asarray(scene.convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    alpha = Image.merge("RGBA", (*scene.split(), Image.linear_gradient("L").resize(scene.size)))
    frames = {"save_all": True, "append_images": [scene.rotate(90), scene.rotate(180)]}
    return {
        "JPEG": _saved(scene, "JPEG", quality=90),
        "JPEG, progressive": _saved(scene, "JPEG", progressive=True),
        "JPEG, grey": _saved(scene.convert("L"), "JPEG"),
        "JPEG, CMYK": _saved(scene.convert("CMYK"), "JPEG"),
        "PNG": _saved(scene, "PNG"),
        "PNG, palette": _saved(scene.quantize(64), "PNG"),
        "PNG, 16 bits": _saved(deep, "PNG"),
        "PNG, alpha": _saved(alpha, "PNG"),
        "PNG, animated": _saved(scene, "PNG", **frames),
        "GIF": _saved(scene, "GIF"),
        "GIF, animated": _saved(scene, "GIF", **frames),
        "BMP": _saved(scene, "BMP"),
        "BMP, palette": _saved(scene.quantize(64), "BMP"),
        "BMP, run lengths": _run_length_bmp(grey // 64),
        "TIFF": _saved(scene, "TIFF"),
        "TIFF, LZW": _saved(scene, "TIFF", compression="tiff_lzw"),
        "TIFF, deflate": _saved(scene, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, JPEG": _saved(scene, "TIFF", compression="jpeg"),
        "TIFF, fax": _saved(scene.convert("1"), "TIFF", compression="group4"),
        "TIFF, 16 bits": _saved(deep, "TIFF"),
        "TIFF, several pages": _saved(scene, "TIFF", **frames),
        "WebP": _saved(scene, "WEBP"),
        "WebP, lossless": _saved(scene, "WEBP", lossless=True),
        "WebP, animated": _saved(scene, "WEBP", **frames),
    }


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _run_length_bmp(indices: np.ndarray) -> bytes:
    """Return a BMP of palette indices in run-length encoding (BI_RLE8)."""
    rows = bytearray()
    for row in indices[::-1]:
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(row)], strict=True):
            for first in range(start, end, 255):
                rows += bytes([min(255, end - first), row[first]])
        rows += b"\0\0"
    rows += b"\0\1"
    height, width = indices.shape
    offset = 14 + 40 + 4 * 256
    numbers = [40, width, height, 1 | 8 << 16, 1, len(rows), 2835, 2835, 256, 256]
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    header = b"BM" + (offset + len(rows)).to_bytes(4, "little") + bytes(4) + offset.to_bytes(4, "little")
    return header + b"".join(number.to_bytes(4, "little") for number in numbers) + palette + bytes(rows)


def mutated(image: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Return a damaged copy of an encoded image.

    Args:
        image: the encoded image.
        rng: source of the damage.
        others: encoded images; one of them may replace the end.
    """
    data = np.frombuffer(image, np.uint8).copy()
    count = int(rng.integers(1, 9))
    first, last = sorted(rng.integers(0, len(data), 2).tolist())
    way = int(rng.integers(8))
    if way == 0:
        data[rng.integers(0, len(data), count)] = rng.integers(0, 256, count)
    elif way == 1:
        data[rng.integers(0, len(data), count)] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
    elif way == 2:
        data[rng.integers(0, min(HEADER, len(data)), count)] = rng.choice(EXTREMES, count)
    elif way == 3:
        data = data[:last]
    elif way == 4:
        data = np.delete(data, slice(first, first + count))
    elif way == 5:
        data = np.concatenate([data[:last], data[first:]])
    elif way == 6:
        data[first:last] = rng.choice(EXTREMES)
    else:
        other = others[int(rng.integers(len(others)))]
        return data[:last].tobytes() + other[min(first, len(other)) :]
    is_repaired = image.startswith(PNG) and rng.random() < 0.5
    return _with_checksums(data.tobytes()) if is_repaired else data.tobytes()


def _with_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have right checksums, so that damage passes the first check of a decoder."""
    data, position = bytearray(png), len(PNG)
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(data)


@dataclass
class Outcomes:
    """The outcomes of the mutations of one kind of image."""

    decoded: int = 0
    refused: int = 0
    uncaught: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


def fuzz(kind: str, count: int, seed: int, decoder: Callable[[bytes], np.ndarray] = decode) -> Outcomes:
    """Decode `count` mutations of an image of a kind."""
    originals = images()
    kinds, others = list(originals), list(originals.values())
    outcomes = Outcomes()
    for number in range(count):
        image = mutated(originals[kind], np.random.default_rng((seed, kinds.index(kind), number)), others)
        began = time.thread_time()
        try:
            pixels = decoder(image)
            if pixels.shape[2:] != (3,) or pixels.dtype != np.uint8 or not pixels.size:
                raise TypeError(f"{pixels.dtype} {pixels.shape}")
            outcomes.decoded += 1
        except DecodeError:
            outcomes.refused += 1
        except Exception as error:
            outcomes.uncaught.append(f"{kind} {number}: {type(error).__name__}: {error}")
        outcomes.milliseconds.append(1000 * (time.thread_time() - began))
    return outcomes


def main() -> int:
    """Decode the mutations and write the table; return 1 where an expectation fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000, help="over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args()
    kinds = list(images())
    count = -(-options.mutations // len(kinds))
    for kind in kinds:  # libraries keep what they allocate first
        fuzz(kind, TRACED, options.seed)
    began = _resident()
    outcomes = {}
    for kind in kinds:
        outcomes[kind] = fuzz(kind, count, options.seed)
        print(_row(kind, outcomes[kind]), flush=True)
    growth = _resident() - began
    traced = _traced_growth(kinds, options.seed)
    total = Outcomes(
        decoded=sum(each.decoded for each in outcomes.values()),
        refused=sum(each.refused for each in outcomes.values()),
        uncaught=[line for each in outcomes.values() for line in each.uncaught],
        milliseconds=[milliseconds for each in outcomes.values() for milliseconds in each.milliseconds],
    )
    memory = f"Resident memory grew by {growth / 1e6:.1f} MB, memory that Python traces by {traced / 1e6:.2f} MB."
    print("\n".join([_row("all", total), memory, *total.uncaught]))
    if options.out:
        headings = ["kind", "mutations", "decoded", "refused", "other exceptions", "median ms", "longest ms"]
        lines = [f"Seed {options.seed}.", "", f"| {' | '.join(headings)} |", "|---|" + "---:|" * (len(headings) - 1)]
        lines += [_row(kind, each) for kind, each in (outcomes | {"all": total}).items()]
        options.out.write_text("\n".join([*lines, "", memory]) + "\n", encoding="utf-8")
    return int(bool(total.uncaught) or max(total.milliseconds) > MAX_MILLISECONDS or growth > MAX_GROWTH)


def _row(kind: str, outcomes: Outcomes) -> str:
    times = outcomes.milliseconds
    numbers = [len(times), outcomes.decoded, outcomes.refused, len(outcomes.uncaught)]
    return f"| {kind} | {' | '.join(map(str, numbers))} | {np.median(times):.1f} | {max(times):.1f} |"


def _resident() -> int:
    """Return the resident memory of this process in bytes."""
    return 4096 * int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])


def _traced_growth(kinds: list[str], seed: int) -> int:
    """Return by how many bytes the memory that tracemalloc sees grows over some mutations of every kind."""
    tracemalloc.start()
    fuzz(kinds[0], 1, seed)
    before, _ = tracemalloc.get_traced_memory()
    for kind in kinds:
        fuzz(kind, TRACED, seed)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


if __name__ == "__main__":
    sys.exit(main())
