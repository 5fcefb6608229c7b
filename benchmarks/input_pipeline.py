"""Images per second and core, from encoded full-size JPEGs to batches of 224-pixel random-resized crops.

    python benchmarks/input_pipeline.py [--images DIR|TAR|ZIP] [--cores 1] [--out FILE]
    python benchmarks/input_pipeline.py --hand_over

All methods run in turns in one process, on the same images and the same cores; the result is the median of the rounds.

- the loader: ArrayRecord, decoding, crop, shuffled uint8 batches, as in training;
- decoding alone (data/decode.py), from memory: the limit of any loader that decodes complete images with this library;
- Pillow as in torchvision, from memory: decoding, crop, antialiased bilinear resize, batch;
- tf.data with `decode_and_crop_jpeg`, which decodes the crop alone, and bilinear resize, from TFRecord; only if
  TensorFlow is installed;
- the loader, and decoding alone, on the copy of shorter side 256 and quality 90 that `main.py prepare
  --short_side=256` writes.

With `--hand_over`, it measures instead the images per second of the one thread that hands the batches of worker
processes to the devices (data/loader.py, data/prefetch.py): straight from shared memory, and by way of a copy.

Only grey and colour JPEGs are used, because `decode_and_crop_jpeg` supports no others.
"""

import argparse
import contextlib
import importlib.util
import io
import itertools
import os
import platform
import random
import statistics
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import shared_memory
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from imagenet_repro.config import Data, InceptionCrop  # noqa: E402
from imagenet_repro.data.crops import inception_box  # noqa: E402
from imagenet_repro.data.decode import decode  # noqa: E402
from imagenet_repro.data.loader import train_batches  # noqa: E402
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset  # noqa: E402
from imagenet_repro.data.sources import open_split  # noqa: E402

SIZE, BATCH = 224, 64
HANDED_OVER = 256  # images of a batch
CROP = InceptionCrop()
LOADER, DECODING, PILLOW, TF_DATA, SMALLER, DECODING_SMALLER = (
    "loader",
    "decoding alone",
    "Pillow as torchvision",
    "tf.data decode_and_crop_jpeg",
    "loader, copy of shorter side 256",
    "decoding alone, copy of shorter side 256",
)


class Rate(NamedTuple):
    """Images per second of wall-clock time and of processor time."""

    per_second: float
    per_cpu_second: float


class Target(NamedTuple):
    """A ratio of rates: `method` should reach `factor` times `reference`."""

    method: str
    reference: str
    factor: float


TARGETS = (
    Target(LOADER, DECODING, 0.85),
    Target(LOADER, TF_DATA, 1.35),
    Target(LOADER, PILLOW, 1.5),
    Target(SMALLER, LOADER, 3.0),
)


def main() -> None:
    """Read the command line, measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = REPOSITORY.parent / "shared" / "data" / "ilsvrc2012-mini"
    parser.add_argument("--images", type=Path, default=default, help="directory, tar (also of tars) or zip of JPEGs")
    parser.add_argument("--limit", type=int, default=2000, help="images used at most")
    parser.add_argument("--cores", type=int, default=1, help="cores that every method may use")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hand_over", action="store_true", help="measure the hand-over to the devices alone")
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    if arguments.hand_over:
        print(hand_over(arguments.rounds))
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # otherwise TensorFlow logs that it found no GPU
    use_cores(arguments.cores)
    images = jpegs(arguments.images, arguments.limit)
    with tempfile.TemporaryDirectory() as scratch:
        methods = all_methods(images, Path(scratch), arguments.cores)
        rates = measure(methods, arguments.rounds, arguments.seconds)
    report = describe(rates, images, arguments)
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


def use_cores(count: int) -> None:
    """Restrict this process, and the threads that it will start, to some cores."""
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(available):
        sys.exit(f"--cores={count}: this process may use 1 to {len(available)} cores")
    os.sched_setaffinity(0, available[:count])


# --- hand-over from worker processes to the devices --------------------------------------------------------------


def hand_over(rounds: int) -> str:
    """Return the images per second of both ways of handing a batch over, in turns, as a line for each."""
    import jax
    import jax.numpy as jnp

    # A CPU's array would be the memory itself, so a copy stands for the transfer.
    put = jax.device_put if jax.default_backend() != "cpu" else partial(jnp.array, copy=True)
    ways = {
        "copied, then transferred": lambda shared: put(np.array(shared)),
        "transferred from shared memory": lambda shared: put(np.asarray(shared)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(1 + rounds), ways.items()):
        segment = written_segment()
        start = time.perf_counter()
        opened = shared_memory.SharedMemory(segment.name)  # by name, and anew for each batch, as Grain does
        images = np.ndarray((HANDED_OVER, SIZE, SIZE, 3), np.uint8, buffer=opened.buf)
        jax.block_until_ready(way(images))
        seconds[name].append(time.perf_counter() - start)
        del images
        opened.close()
        segment.close()
        segment.unlink()
    device = jax.devices()[0].device_kind
    rates = {name: HANDED_OVER / statistics.median(measured[1:]) for name, measured in seconds.items()}
    lines = [f"{rate:8,.0f} images/s {name}" for name, rate in rates.items()]
    return "\n".join([f"batches of {HANDED_OVER} images of {SIZE} px to {device}, {rounds} rounds in turns", *lines])


def written_segment() -> shared_memory.SharedMemory:
    """Return shared memory that holds a batch, as a worker process leaves it."""
    segment = shared_memory.SharedMemory(create=True, size=HANDED_OVER * SIZE * SIZE * 3)
    np.ndarray(segment.size, np.uint8, buffer=segment.buf)[:] = 1
    return segment


# --- images ----------------------------------------------------------------------------------------------------


def jpegs(source: Path, limit: int) -> list[bytes]:
    """Return the grey and colour JPEGs in an archive, or in a directory and the archives in it."""
    if not source.exists():
        sys.exit(f"{source} does not exist; name a directory, tar or zip of JPEGs with --images")
    images = list(itertools.islice(filter(is_plain_jpeg, files(source)), limit))
    if not images:
        sys.exit(f"no grey or colour JPEG in {source}")
    return images


def files(source: Path) -> Iterator[bytes]:
    """Yield the contents of all files below a path, and of the files in archives."""
    paths = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    for path in paths:
        yield from members(path.name, path.read_bytes())


def members(name: str, content: bytes) -> Iterator[bytes]:
    """Yield a file's content, or the contents of all files in an archive."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from members(member, archive.read(member))
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                content_of_member = archive.extractfile(member)
                assert content_of_member is not None  # it is a file
                yield from members(member.name, content_of_member.read())
    else:
        yield content


def is_plain_jpeg(content: bytes) -> bool:
    """Return whether a file is a JPEG that every method can decode."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.format == "JPEG" and image.mode in ("L", "RGB")
    except OSError:
        return False


# --- methods, each an endless iterator of the numbers of images that are ready ------------------------------------


def all_methods(images: list[bytes], scratch: Path, cores: int) -> dict[str, Callable[[], Iterator[int]]]:
    """Return the methods by their names in the report."""
    folder = scratch / "photos" / "train" / "all"
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number:06d}.jpg").write_bytes(image)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepared = prepare_dataset(f"folder:{scratch / 'photos'}", data_dir=str(scratch), short_side=256, quality=90)
    assert prepared.smaller is not None
    reduced = open_split(Data(name=prepared.smaller.name, data_dir=str(scratch)), "train").records
    methods = {
        LOADER: partial(by_loader, prepared.name, scratch),
        DECODING: partial(by_decoding, images, cores),
        PILLOW: partial(by_pillow, images, cores),
        SMALLER: partial(by_loader, prepared.smaller.name, scratch),
        DECODING_SMALLER: partial(by_decoding, [record.image for record in reduced], cores),
    }
    if importlib.util.find_spec("tensorflow"):
        methods[TF_DATA] = partial(by_tf_data, images, scratch / "images.tfrecord", cores)
    return methods


def by_loader(name: str, directory: Path) -> Iterator[int]:
    """Load batches with this project's loader and the default number of threads."""
    data = Data(name=name, data_dir=str(directory), image_size=SIZE)
    for batch in train_batches(open_split(data, "train"), data, CROP, batch_size=BATCH, seed=0):
        yield len(batch["image"])


def by_decoding(images: list[bytes], cores: int) -> Iterator[int]:
    """Decode complete images and drop them."""
    return in_batches(images, cores, decode, len)


def by_pillow(images: list[bytes], cores: int) -> Iterator[int]:
    """Load as torchvision's ImageFolder, RandomResizedCrop and collation, without transport between processes."""
    rng = np.random.default_rng(0)

    def load(image: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(image)) as file:
            pixels = file.convert("RGB")
        top, left, height, width = inception_box(pixels.height, pixels.width, CROP.area, CROP.aspect, rng)
        part = pixels.crop((left, top, left + width, top + height))
        return np.array(part.resize((SIZE, SIZE), Image.Resampling.BILINEAR))

    return in_batches(images, cores, load, lambda loaded: len(np.stack(loaded)))


def in_batches(images: list[bytes], cores: int, load: Callable, collate: Callable[[list], int]) -> Iterator[int]:
    """Load batches in random order with one thread for each core."""
    choose = random.Random(0)
    with ThreadPoolExecutor(cores) as pool:
        apply = pool.map if cores > 1 else map
        while True:
            yield collate(list(apply(load, choose.choices(images, k=BATCH))))


def by_tf_data(images: list[bytes], path: Path, cores: int) -> Iterator[int]:
    """Load batches with the input pipeline of TensorFlow's ImageNet examples."""
    import tensorflow as tf

    if not path.exists():
        write_tfrecord(images, path)
    features = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}

    def load(stored: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        example = tf.io.parse_single_example(stored, features)
        start, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(example["image"]),
            bounding_boxes=tf.zeros((1, 0, 4)),
            aspect_ratio_range=CROP.aspect,
            area_range=CROP.area,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        pixels = tf.io.decode_and_crop_jpeg(example["image"], tf.concat([start[:2], size[:2]], 0), channels=3)
        return tf.cast(tf.image.resize(pixels, (SIZE, SIZE)), tf.uint8), example["label"]

    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.TFRecordDataset(str(path)).repeat().shuffle(len(images)).map(load, num_parallel_calls=cores)
    for _, labels in dataset.batch(BATCH).prefetch(2).with_options(options).as_numpy_iterator():
        yield len(labels)


def write_tfrecord(images: list[bytes], path: Path) -> None:
    """Write the images as `tf.train.Example`s, as tfds and TensorFlow's ImageNet scripts do."""
    import tensorflow as tf

    def example(image: bytes) -> bytes:
        feature = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
        }
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in images:
            writer.write(example(image))


# --- measurement and report ------------------------------------------------------------------------------------


def measure(methods: dict[str, Callable], rounds: int, seconds: float) -> dict[str, list[Rate]]:
    """Return each method's rate in each round; the methods alternate, so that a slow minute affects all."""
    rates: dict[str, list[Rate]] = {name: [] for name in methods}
    for _, (name, method) in itertools.product(range(rounds), methods.items()):
        batches = method()
        next(batches)  # opens files, starts threads, fills buffers
        start, cpu, ready = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds:
            ready += next(batches)
        rates[name].append(Rate(ready / (time.perf_counter() - start), ready / (time.process_time() - cpu)))
        batches.close()
    return rates


def describe(rates: dict[str, list[Rate]], images: list[bytes], arguments: argparse.Namespace) -> str:
    """Return the report in Markdown."""
    cores = arguments.cores
    medians = {
        name: statistics.median(rate.per_second for rate in measured) / cores for name, measured in rates.items()
    }
    width, height = np.mean([Image.open(io.BytesIO(image)).size for image in images], axis=0)
    kilobytes = np.mean([len(image) for image in images]) / 1000
    names = [*rates, *(() if TF_DATA in rates else (TF_DATA,))]
    lines = [
        "# Input pipeline",
        "",
        f"{len(images)} JPEGs of {arguments.images.name} (on average {width:.0f} x {height:.0f} pixels and "
        f"{kilobytes:.0f} kB), read into uint8 batches of {BATCH} random-resized crops of {SIZE} px. {cores} of "
        f"{os.cpu_count()} cores of an {processor()}; {arguments.rounds} rounds of {arguments.seconds:g} s for each "
        f"method, in turns; load average of the machine {os.getloadavg()[0]:.1f}.",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages()) + ".",
        "",
        "| method | images/s per core, median | lowest to highest | images per CPU second"
        " | relative to decoding alone |",
        "|---|---:|---:|---:|---:|",
        *(table_row(name, rates.get(name), cores, medians) for name in names),
        "",
        "| ratio | target | measured |",
        "|---|---:|---:|",
        *(target_row(target, medians) for target in TARGETS),
    ]
    return "\n".join(lines) + "\n"


def table_row(name: str, rates: list[Rate] | None, cores: int, medians: dict[str, float]) -> str:
    """Return the row of one method."""
    if rates is None:
        return f"| {name} | not installed | | | |"
    by_clock = [rate.per_second / cores for rate in rates]
    by_cpu = statistics.median(rate.per_cpu_second for rate in rates)
    span = f"{min(by_clock):.0f} to {max(by_clock):.0f}"
    return f"| {name} | {medians[name]:.0f} | {span} | {by_cpu:.0f} | {medians[name] / medians[DECODING]:.2f} |"


def target_row(target: Target, medians: dict[str, float]) -> str:
    """Return the row of one target beside the measured ratio."""
    measured = "not installed"
    if target.reference in medians:
        measured = f"{medians[target.method] / medians[target.reference]:.2f}"
    return f"| {target.method} / {target.reference} | {target.factor:.2f} | {measured} |"


def packages() -> list[str]:
    """Return the distributions whose versions affect the rates."""
    names = ["opencv-python-headless", "pillow", "grain", "array-record", "numpy"]
    return [*names, "tensorflow"] if importlib.util.find_spec("tensorflow") else names


def processor() -> str:
    """Return the processor's name, as Linux reports it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
