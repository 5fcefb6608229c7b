"""`main.py predict`: say what is on photographs."""

from typing import Any

from imagenet_repro.cli.command import NETWORK, PREPROCESS, Command, Option, Settings, parse_network_options
from imagenet_repro.errors import EXIT_FINISHED, EXIT_LEFT_OUT

HELP = """Say what is on photographs: the most probable classes of a run or of published weights.

  python main.py predict --workdir=runs/pets photo.jpg holiday/
  python main.py predict --workdir=runs/pets holiday/ --top=1 --csv=holiday.csv --page=holiday.html
  python main.py predict --weights=package:efficientnet_lite0 holiday/

Images are files, or folders with any folders inside; they need no labels and no preparation. They are decoded and
cropped as `evaluate` does it, by the same code: JPEG, PNG, GIF, BMP, TIFF and WebP, without EXIF orientation.

A run's checkpoint and published weights (--model, --preprocess.KEY=VALUE) are chosen as for `evaluate`. The numbers
are probabilities, the softmax of a network's scores; a system of before 2012 has scores alone.

--csv=FILE has a row for each image; --page=FILE is an HTML file with small pictures that needs nothing else. A file
that cannot be read is named and left out, in the CSV with the reason; the exit code is then 4.
"""


def run(
    *,
    workdir: str | None,
    checkpoint: str | None,
    weights: str | None,
    model: str,
    options: str | None,
    preprocess: dict[str, str],
    **common: Any,
) -> int:
    """Predict the classes of images by a run's checkpoint or a file of weights; return the exit code."""
    parsed = parse_network_options(
        workdir=workdir, checkpoint=checkpoint, model=model, options=options, preprocess=preprocess
    )
    from imagenet_repro.runs.predict import predict, predict_weights

    if workdir is not None:
        result = predict(workdir, which=checkpoint or "last", **common)
    else:
        result = predict_weights(str(weights), name=model, options=parsed, preprocess=preprocess, **common)
    return EXIT_LEFT_OUT if result.left_out else EXIT_FINISHED


COMMAND = Command(
    name="predict",
    help=HELP,
    run=run,
    options=(
        Option("images", nargs="+", metavar="IMAGE|DIR", help="image files, or folders of them at any depth"),
        *NETWORK,
        Option(
            "--top", type=int, low=1, default=5, metavar="K", help="the number of classes for each image (default 5)"
        ),
        Option("--csv", metavar="FILE", writes="file", help="a table with a row for each image"),
        Option("--page", metavar="FILE", writes="file", help="an HTML page with small pictures of the images"),
    ),
    settings=(
        PREPROCESS,
        Settings("data", "how the images are read: eval_batch_size, eval_image_size, threads, workers"),
    ),
    one_of=("--workdir", "--weights"),
)
