"""`main.py prepare`: a data set in the form that training reads."""

from typing import Any

from imagenet_repro.cli.command import Command, Option, Settings
from imagenet_repro.errors import EXIT_FINISHED, UserError, nearest

HELP = """Bring a data set into the one form that training reads: tfds, as ArrayRecord.

  python main.py prepare silhouettes                               the embedded default, drawn in seconds
  python main.py prepare fractal                                   textures, drawn in seconds, any number of classes
  python main.py prepare folder:PATH                               split/class/*.jpg, as folders or zip files
  python main.py prepare folder:PATH --holdout=20%                 class/*.jpg; a fifth of each class is held out
  python main.py prepare folder:labels.csv --holdout=20%           a table: file,label[,split] (.csv, .tsv, .parquet)
  python main.py prepare folder:PATH                               Arrow or Parquet of Hugging Face, or WebDataset tar
  python main.py prepare imagenet2012 --manual_dir=DIR             the official archives (needs TensorFlow, once)
  python main.py prepare imagenet2012 --short_side=400 --quality=90    and a smaller copy beside it

A data set that exists as TFRecord is converted, not built again. A data set that is already prepared is not changed;
where its folder has changed since, the command says how and stops; --overwrite replaces the data set.
"""


def run(*, name: str, silhouettes: dict[str, str], fractal: dict[str, str], **options: Any) -> int:
    """Prepare a data set and print what exists now; return the exit code.

    Raises:
      UserError: as `imagenet_repro.data.prepare.prepare_dataset`, or the drawn data set has no such key.
    """
    from imagenet_repro.config import parse_text
    from imagenet_repro.data.prepare.prepare_dataset import drawn_builder, prepare_dataset

    drawing = {}
    for drawn, settings in (("silhouettes", silhouettes), ("fractal", fractal)):
        valid_keys = drawn_builder(drawn).default_config().parameters()
        for key, text in settings.items():
            if key not in valid_keys:  # some unknown keys are parameters of the call below
                raise UserError(f"--{drawn}.{key}: no such key; {nearest(key, valid_keys)}")
            if name.split("/", maxsplit=1)[0] != drawn:
                raise UserError(f"--{drawn}.{key}: only `prepare {drawn}` takes this option, not {name!r}")
            drawing[key] = parse_text(text, valid_keys[key], f"--{drawn}.{key}")
    prepared = prepare_dataset(name, **options, **drawing)
    for copy in (prepared, prepared.smaller):
        if copy is None:
            continue
        splits = ", ".join(f"{split} {count:,}" for split, count in copy.splits.items())
        print(f"{copy.name}: {copy.how}; {splits} images, {copy.bytes / 1e6:,.1f} MB, in {copy.path}")
        for note in copy.notes:
            print(f"  {note}")
    return EXIT_FINISHED


COMMAND = Command(
    name="prepare",
    help=HELP,
    run=run,
    options=(
        Option("name", help="silhouettes, fractal, folder:PATH, or any tfds image-classification data set"),
        Option(
            "--data_dir",
            default="",
            metavar="DIR",
            help="the directory for data sets (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
        ),
        Option("--manual_dir", metavar="DIR", help="the directory of archives that must be downloaded by hand"),
        Option(
            "--name",
            parameter="as_name",
            metavar="NAME",
            help="with folder:PATH: the name of the data set (default: the last part of the path)",
        ),
        Option(
            "--holdout",
            metavar="SHARE",
            help="with folder:PATH: the share of each class that becomes validation, such as 0.2",
        ),
        Option("--holdout_seed", type=int, low=0, metavar="N", help="which images are held out (default 0)"),
        Option("--columns", metavar="USE=NAME,…", help="with a table: its columns, such as file=photo,label=breed"),
        Option("--overwrite", is_switch=True, help="with folder:PATH: replace what was prepared from other images"),
        Option("--short_side", type=int, metavar="PIXELS", help="also write a copy with shorter sides up to this"),
        Option("--quality", type=int, default=90, metavar="Q", help="JPEG quality of that copy (default 90)"),
    ),
    settings=(
        Settings("silhouettes", "with silhouettes: train_images, validation_images, size, seed"),
        Settings("fractal", "with fractal: categories, train_images, validation_images, size, seed, …"),
    ),
)
