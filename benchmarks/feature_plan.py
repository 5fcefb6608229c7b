"""What a system of features would cost on the whole of ImageNet, extrapolated from finished runs.

    python benchmarks/feature_plan.py --run=RUN                      # time and memory for each image, and the plan
    python benchmarks/feature_plan.py --run=RUN --config=configs/xrce_2011.py:published     # of a larger system
    python benchmarks/feature_plan.py --run=LARGE --check=SMALL      # how well SMALL would have foretold LARGE

    python benchmarks/feature_plan.py --run=LARGE --check=SMALL      # how well SMALL would have foretold LARGE
cost stays. Codes cost time and bytes for each image. An SVM costs time for each image that it sees, in proportion to
the classes. The runs must be of one configuration but for the images and the budget. For another configuration of the
same channels, seconds follow the operations that each stage counts, and bytes the numbers of a code.
"""

import argparse
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

IMAGES, CLASSES = 1_281_167, 1000  # of ILSVRC 2012's training set
FIXED = ("sample", "vocabulary", "quantiser")
SVM = "SVM"


def main():
    """Prints tables in Markdown."""
    arguments = _arguments()
    run = _result(arguments.run)
    if arguments.check:
        print(_checked(_result(arguments.check), run))
        return
    run["growth"] = _growth(run, arguments.config) if arguments.config else {}
    print(_plan(run, arguments.images, arguments.classes, arguments.epochs))


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="workdir of a finished run")
    parser.add_argument("--check", help="workdir of a smaller one, from which the other is foretold")
    parser.add_argument("--config", default="", metavar="FILE[:ARGUMENT]", help="of the plan (default: the run's)")
    parser.add_argument("--images", type=int, default=IMAGES, help="in the training split of the plan")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--epochs", type=float, help="of the SVM (default: as in the run)")
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
    """By stage, how many times the seconds and the bytes of the run another configuration takes for an image."""
    from imagenet_repro.config import load_config, resolve_config

    before, after = resolve_config(result["provenance"]["config"]), load_config(recipe)
    if before.channels.keys() != after.channels.keys():
        sys.exit(f"{recipe} has the channels {', '.join(after.channels)}, the run {', '.join(before.channels)}")
    growth, features = {}, [0, 0]
    for channel in before.channels:
        (old, old_flops), (new, new_flops) = _coded(before, channel), _coded(after, channel)
        features = [features[0] + old, features[1] + new]
        growth |= {f"{channel}.{stage}": (new_flops / old_flops, new / old) for stage in FIXED}
        growth[f"{channel}.codes"] = (new_flops / old_flops, new / old)
    return growth | {SVM: (features[1] / features[0], 1.0)}


def _coded(config, channel):
    """Numbers of an image's code, and the operations that it takes with its quantisation."""
    import jax
    import jax.numpy as jnp

    from imagenet_repro.features.channel_encoder import ChannelEncoder
    from imagenet_repro.features.encoding import quantisation
    from imagenet_repro.zoo import counting

    encoder = ChannelEncoder(config.channels[channel], config.data.image_size)
    image = jax.ShapeDtypeStruct((1, config.data.image_size, config.data.image_size, 3), jnp.uint8)
    quantised = 2 * encoder.features * quantisation.CENTRES if config.channels[channel].quantise else 0
    return encoder.features, counting.flops(encoder.encode, image, encoder.blank()) + quantised


def foretold(result, images, classes, images_seen):
    """Seconds and bytes of each stage for so many images."""
    grows = images / result["train_images"]
    seen = images_seen / result["spent"]["images"] * classes / len(result["classes"])
    found = {}
    for name, cost in result["stages"].items():
        stage = name.rpartition(".")[2]
        times = seen if name == SVM else 1.0 if stage in FIXED else grows
        seconds, size = result.get("growth", {}).get(name, (1.0, 1.0))
        copies = 1.0 if stage in FIXED else grows
        found[name] = {"seconds": cost["seconds"] * times * seconds, "bytes": cost["bytes"] * copies * size}
    return found


def _checked(small, large):
    told = foretold(small, large["train_images"], len(large["classes"]), large["spent"]["images"])
    lines = [
        f"{large['system']}, {large['train_images']:,} images, predicted from {small['train_images']:,}",
        "",
        "| stage | predicted s | measured s | ratio | predicted MB | measured MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    measured = large["stages"]
    for name in (*measured, "all"):
        a, b = (_sum(each) if name == "all" else each[name] for each in (told, measured))
        ratio = f"{a['seconds'] / b['seconds']:.2f}" if b["seconds"] else ""
        sizes = f"{a['bytes'] / 1e6:,.1f} | {b['bytes'] / 1e6:,.1f}"
        lines.append(f"| {name} | {a['seconds']:,.0f} | {b['seconds']:,.0f} | {ratio} | {sizes} |")
    return "\n".join(lines)


def _sum(stages):
    return {key: sum(cost[key] for cost in stages.values()) for key in ("seconds", "bytes")}


def _plan(result, images, classes, epochs):
    from imagenet_repro.report.sections import stages

    epochs = epochs or result["spent"]["epochs"]
    told = foretold(result, images, classes, epochs * images)
    source = result["provenance"]
    whole = _sum(told)
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
    rows = (told | {"all": whole}).items()
    lines += [f"| {name} | {cost['seconds'] / 3600:,.1f} | {cost['bytes'] / 1e9:,.1f} |" for name, cost in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
