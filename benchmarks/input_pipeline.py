"""Images per second and core, from encoded full-size JPEGs to batches of 224-pixel random-resized crops.

    python benchmarks/input_pipeline.py [--images DIR|TAR|ZIP] [--cores 1] [--out FILE]

Measured in one run, in turns, each way on the same images and the same cores; the figure is the median of the rounds.

- the loader: ArrayRecord, decoding, crop, shuffled uint8 batches, as training gets them;
- decoding alone (data/decode.py), from memory: the limit of any loader that decodes whole images with this library;
- Pillow as torchvision does it, from memory: decoding, crop, antialiased bilinear resize, batch;
- tf.data with `decode_and_crop_jpeg`, which decodes the crop alone, and bilinear resize, from TFRecord: where
  TensorFlow is installed;
- the loader, and decoding alone, on the copy of shorter side 256 and quality 90 that `main.py prepare
  --short_side=256` writes.

Only grey and colour JPEGs are used: `decode_and_crop_jpeg` takes no others.
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
    """Images by the clock, and by the processor's time that they took."""

    per_second: float
    per_cpu_second: float


class Aim(NamedTuple):
    """`above` should reach `factor` times `below`."""

    above: str
    below: str
    factor: float


AIMS = (Aim(LOADER, DECODING, 0.85), Aim(LOADER, TF_DATA, 1.35), Aim(LOADER, PILLOW, 1.5), Aim(SMALLER, LOADER, 3.0))


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = REPOSITORY.parent / "shared" / "data" / "ilsvrc2012-mini"
    parser.add_argument("--images", type=Path, default=default, help="directory, tar (also of tars) or zip of JPEGs")
    parser.add_argument("--limit", type=int, default=2000, help="images used at most")
    parser.add_argument("--cores", type=int, default=1, help="cores that every way may use")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow otherwise tells that it found no GPU
    use_cores(arguments.cores)
    images = jpegs(arguments.images, arguments.limit)
    with tempfile.TemporaryDirectory() as scratch:
        ways = all_ways(images, Path(scratch), arguments.cores)
        rates = measure(ways, arguments.rounds, arguments.seconds)
    report = describe(rates, images, arguments)
    print(report)
    if arguments.out:
        arguments.out.write_text(report)


def use_cores(count: int) -> None:
    """Confines this process, and the threads it will start, to some cores."""
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(available):
        sys.exit(f"--cores={count}: this process may use 1 to {len(available)} cores")
    os.sched_setaffinity(0, available[:count])


# --- images ----------------------------------------------------------------------------------------------------


def jpegs(source: Path, limit: int) -> list[bytes]:
    """The grey and colour JPEGs in a directory, with the archives in it, or in one archive."""
    if not source.exists():
        sys.exit(f"{source} does not exist; name a directory, tar or zip of JPEGs with --images")
    found = list(itertools.islice(filter(is_plain_jpeg, files(source)), limit))
    if not found:
        sys.exit(f"no grey or colour JPEG in {source}")
    return found


def files(source: Path) -> Iterator[bytes]:
    """The contents of all files below a path, archives opened."""
    paths = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    for path in paths:
        yield from members(path.name, path.read_bytes())


def members(name: str, content: bytes) -> Iterator[bytes]:
    """A file's content, or of an archive that of all its files."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from members(member, archive.read(member))
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                yield from members(member.name, archive.extractfile(member).read())
    else:
        yield content


def is_plain_jpeg(content: bytes) -> bool:
    """Whether it is a JPEG that every way here can decode."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.format == "JPEG" and image.mode in ("L", "RGB")
    except OSError:
        return False


# --- ways, each an endless iterator of how many images became ready ---------------------------------------------


def all_ways(images: list[bytes], scratch: Path, cores: int) -> dict[str, Callable[[], Iterator[int]]]:
    """What is measured, by its name in the report."""
    folder = scratch / "photos" / "train" / "all"
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number:06d}.jpg").write_bytes(image)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepared = prepare_dataset(f"folder:{scratch / 'photos'}", data_dir=str(scratch), short_side=256, quality=90)
    reduced = open_split(Data(name=prepared.smaller.name, data_dir=str(scratch)), "train").records
    ways = {
        LOADER: partial(by_loader, prepared.name, scratch),
        DECODING: partial(by_decoding, images, cores),
        PILLOW: partial(by_pillow, images, cores),
        SMALLER: partial(by_loader, prepared.smaller.name, scratch),
        DECODING_SMALLER: partial(by_decoding, [record.image for record in reduced], cores),
    }
    if importlib.util.find_spec("tensorflow"):
        ways[TF_DATA] = partial(by_tf_data, images, scratch / "images.tfrecord", cores)
    return ways


def by_loader(name: str, directory: Path) -> Iterator[int]:
    """This project's loader, threads chosen from the host."""
    data = Data(name=name, data_dir=str(directory), image_size=SIZE)
    for batch in train_batches(open_split(data, "train"), data, CROP, batch_size=BATCH, seed=0):
        yield len(batch["image"])


def by_decoding(images: list[bytes], cores: int) -> Iterator[int]:
    """Whole images, dropped as soon as they are decoded."""
    return in_batches(images, cores, decode, len)


def by_pillow(images: list[bytes], cores: int) -> Iterator[int]:
    """torchvision's ImageFolder, RandomResizedCrop and collation, without the transport between processes."""
    rng = np.random.default_rng(0)

    def load(image: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(image)) as opened:
            pixels = opened.convert("RGB")
        top, left, height, width = inception_box(pixels.height, pixels.width, CROP.area, CROP.aspect, rng)
        part = pixels.crop((left, top, left + width, top + height))
        return np.array(part.resize((SIZE, SIZE), Image.Resampling.BILINEAR))

    return in_batches(images, cores, load, lambda loaded: len(np.stack(loaded)))


def in_batches(images: list[bytes], cores: int, load: Callable, collate: Callable[[list], int]) -> Iterator[int]:
    """Batches in random order, loaded by as many threads as there are cores."""
    choose = random.Random(0)
    with ThreadPoolExecutor(cores) as pool:
        apply = pool.map if cores > 1 else map
        while True:
            yield collate(list(apply(load, choose.choices(images, k=BATCH))))


def by_tf_data(images: list[bytes], path: Path, cores: int) -> Iterator[int]:
    """The input pipeline of TensorFlow's ImageNet examples."""
    import tensorflow as tf

    if not path.exists():
        write_tfrecord(images, path)
    wanted = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}

    def load(stored: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        example = tf.io.parse_single_example(stored, wanted)
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
    """The images as `tf.train.Example`s, as tfds and TensorFlow's ImageNet scripts store them."""
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


# --- measuring and telling -------------------------------------------------------------------------------------


def measure(ways: dict[str, Callable], rounds: int, seconds: float) -> dict[str, list[Rate]]:
    """What each way did in each round; the ways take turns, so that a slow minute falls on all."""
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(rounds), ways.items()):
        batches = way()
        next(batches)  # opens files, starts threads, fills buffers
        start, cpu, ready = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds:
            ready += next(batches)
        rates[name].append(Rate(ready / (time.perf_counter() - start), ready / (time.process_time() - cpu)))
        batches.close()
    return rates


def describe(rates: dict[str, list[Rate]], images: list[bytes], arguments: argparse.Namespace) -> str:
    """The report, in Markdown."""
    cores = arguments.cores
    medians = {name: statistics.median(rate.per_second for rate in of) / cores for name, of in rates.items()}
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
        *(aim_row(aim, medians) for aim in AIMS),
    ]
    return "\n".join(lines) + "\n"


def table_row(name: str, rates: list[Rate] | None, cores: int, medians: dict[str, float]) -> str:
    """One way's figures."""
    if rates is None:
        return f"| {name} | not installed | | | |"
    by_clock = [rate.per_second / cores for rate in rates]
    by_cpu = statistics.median(rate.per_cpu_second for rate in rates)
    span = f"{min(by_clock):.0f} to {max(by_clock):.0f}"
    return f"| {name} | {medians[name]:.0f} | {span} | {by_cpu:.0f} | {medians[name] / medians[DECODING]:.2f} |"


def aim_row(aim: Aim, medians: dict[str, float]) -> str:
    """An aim beside what was measured."""
    measured = f"{medians[aim.above] / medians[aim.below]:.2f}" if aim.below in medians else "not installed"
    return f"| {aim.above} / {aim.below} | {aim.factor:.2f} | {measured} |"


def packages() -> list[str]:
    """The distributions whose versions matter here."""
    names = ["opencv-python-headless", "pillow", "grain", "array-record", "numpy"]
    return [*names, "tensorflow"] if importlib.util.find_spec("tensorflow") else names


def processor() -> str:
    """The processor's name, as Linux tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
