"""The cost of a system of features on all of ImageNet, extrapolated from a finished run.

    python benchmarks/feature_plan.py --run=RUN                      # time and memory for each image, and the plan
    python benchmarks/feature_plan.py --run=RUN --config=configs/xrce_2011.py:published     # of a larger system
    python benchmarks/feature_plan.py --run=LARGE --check=SMALL      # LARGE predicted from SMALL, and measured

A vocabulary and a quantiser are learned from a sample, so their cost does not depend on the number of images. Codes
cost time and bytes for each image. An SVM costs time for each image that it sees, in proportion to the classes. Two
runs must have the same configuration except for the images and the budget. For another configuration of the same
channels, seconds follow the operations that each stage counts, and bytes the numbers of a code.
"""

import argparse
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

IMAGES, CLASSES = 1_281_167, 1000  # the numbers of ILSVRC 2012's training set
FIXED = ("sample", "vocabulary", "quantiser")
SVM = "SVM"


def main():
    """Print tables in Markdown."""
    arguments = _arguments()
    run = _result(arguments.run)
    if arguments.check:
        print(_comparison(_result(arguments.check), run))
        return
    run["growth"] = _growth(run, arguments.config) if arguments.config else {}
    print(_plan(run, arguments.images, arguments.classes, arguments.epochs))


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="workdir of a finished run")
    parser.add_argument("--check", help="workdir of a smaller run, from which the other is predicted")
    parser.add_argument(
        "--config", default="", metavar="FILE[:ARGUMENT]", help="configuration of the plan (default: the run's)"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="images of the plan's training split")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--epochs", type=float, help="epochs of the SVM (default: as in the run)")
    return parser.parse_args()


def _result(workdir):
    from imagenet_repro.errors import UserError
    from imagenet_repro.storage.workdir import Workdir

    try:
        result = Workdir(workdir).result()
    except UserError as error:
        sys.exit(str(error))
    if "stages" not in result:
        sys.exit(f"{workdir} is a run of {result['system']}, which has no stages: a system of features is needed")
    return result


def _growth(result, recipe):
    """Return the factors of seconds and bytes for an image in another configuration, by stage."""
    from imagenet_repro.config import FeatureConfig, load_config, resolve_config

    before, after = resolve_config(result["provenance"]["config"]), load_config(recipe)
    if not isinstance(before, FeatureConfig) or not isinstance(after, FeatureConfig):
        sys.exit(f"{recipe} has no channels: a system of features is needed")
    if before.channels.keys() != after.channels.keys():
        sys.exit(f"{recipe} has the channels {', '.join(after.channels)}, the run {', '.join(before.channels)}")
    growth, features = {}, [0, 0]
    for channel in before.channels:
        (old, old_flops), (new, new_flops) = _code_cost(before, channel), _code_cost(after, channel)
        features = [features[0] + old, features[1] + new]
        growth |= {f"{channel}.{stage}": (new_flops / old_flops, new / old) for stage in FIXED}
        growth[f"{channel}.codes"] = (new_flops / old_flops, new / old)
    return growth | {SVM: (features[1] / features[0], 1.0)}


def _code_cost(config, channel):
    """Return the numbers of an image's code, and the operations of the code with its quantisation."""
    import jax
    import jax.numpy as jnp

    from imagenet_repro.features.channel_encoder import ChannelEncoder
    from imagenet_repro.features.encoding import quantisation
    from imagenet_repro.zoo import counting

    encoder = ChannelEncoder(config.channels[channel], config.data.image_size)
    image = jax.ShapeDtypeStruct((1, config.data.image_size, config.data.image_size, 3), jnp.uint8)
    quantised = 2 * encoder.features * quantisation.CENTRES if config.channels[channel].quantise else 0
    return encoder.features, counting.flops(encoder.encode, image, encoder.blank()) + quantised


def predict(result, images, classes, images_seen):
    """Return seconds and bytes of each stage for a number of images."""
    image_ratio = images / result["train_images"]
    svm_ratio = images_seen / result["spent"]["images"] * classes / len(result["classes"])
    costs = {}
    for name, cost in result["stages"].items():
        stage = name.rpartition(".")[2]
        byte_ratio = 1.0 if stage in FIXED else image_ratio
        time_ratio = svm_ratio if name == SVM else byte_ratio
        seconds, size = result.get("growth", {}).get(name, (1.0, 1.0))
        costs[name] = {"seconds": cost["seconds"] * time_ratio * seconds, "bytes": cost["bytes"] * byte_ratio * size}
    return costs


def _comparison(small, large):
    predicted = predict(small, large["train_images"], len(large["classes"]), large["spent"]["images"])
    lines = [
        f"{large['system']}, {large['train_images']:,} images, predicted from {small['train_images']:,}",
        "",
        "| stage | predicted s | measured s | ratio | predicted MB | measured MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    measured = large["stages"]
    for name in (*measured, "all"):
        a, b = (_sum(each) if name == "all" else each[name] for each in (predicted, measured))
        ratio = f"{a['seconds'] / b['seconds']:.2f}" if b["seconds"] else ""
        sizes = f"{a['bytes'] / 1e6:,.1f} | {b['bytes'] / 1e6:,.1f}"
        lines.append(f"| {name} | {a['seconds']:,.0f} | {b['seconds']:,.0f} | {ratio} | {sizes} |")
    return "\n".join(lines)


def _sum(stages):
    return {key: sum(cost[key] for cost in stages.values()) for key in ("seconds", "bytes")}


def _plan(result, images, classes, epochs):
    from imagenet_repro.report.sections import stages

    epochs = epochs or result["spent"]["epochs"]
    predicted = predict(result, images, classes, epochs * images)
    source = result["provenance"]
    lines = [
        f"{result['system']}, measured on {result['train_images']:,} images of {len(result['classes']):,} classes;"
        f" devices {json.dumps(source['devices'])}; jax {source['packages']['jax']}; commit {source['commit'][:12]}",
        "",
        stages.markdown(result["stages"], result["train_images"]),
        f"Predicted for {images:,} images of {classes:,} classes and {epochs:g} epochs of the SVM on the same device"
        f"{', from the operations of another configuration' if result['growth'] else ''}:",
        "",
        "| stage | hours | GB |",
        "|---|---:|---:|",
    ]
    rows = (predicted | {"all": _sum(predicted)}).items()
    lines += [f"| {name} | {cost['seconds'] / 3600:,.1f} | {cost['bytes'] / 1e9:,.1f} |" for name, cost in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
