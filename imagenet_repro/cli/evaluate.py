"""`main.py evaluate`: score a run or published weights on a split or an evaluation set."""

from typing import Any

from imagenet_repro.cli.command import NETWORK, PREPROCESS, Command, Option, Settings, parse_network_options
from imagenet_repro.errors import EXIT_FINISHED, UserError

ZERO_SHOT = "zeroshot"  # the protocol of networks with two towers
HELP = """Score a checkpoint of a run on every image of a split, exactly once.

  python main.py evaluate --workdir=runs/resnet50
  python main.py evaluate --workdir=runs/resnet50 --set=v2
  python main.py evaluate --workdir=runs/resnet50 --data.name=cifar10 --data.eval_split=test

Prints both error rates with 95 % intervals for new images and stores the predictions for each image as .npz
(imagenet_repro/scoring/predictions.py describes the file).

  python main.py evaluate --workdir=runs/vgg16 --protocol=crop,10crop,vgg_dense,vgg_50crops,vgg_both
  python main.py evaluate --workdir=runs/vgg16 --protocol=crops --protocol.scales="(256,288)" --protocol.average=logits

--protocol scores by the protocols of the papers, or by any list of scales, positions and flips
(imagenet_repro/inference/protocols.py).

  python main.py evaluate --weights=resnet50.pth --model=resnet50 --data.name=imagenet2012 --out=predictions.npz

--weights scores published weights of torchvision, timm or transformers without a run: a file, a model's directory, or
package:efficientnet_lite0, the file in an installed Python package (docs/weights.md). --model is a network, or names
published weights, such as resnet50.a1_in1k. Images are preprocessed as the file states, otherwise as published for
these weights or the network; --preprocess.KEY=VALUE changes that, and what is used is printed. A .pth file that would
run code is refused.

  python main.py evaluate --weights=resnet20.th --model=resnet20_cifar --data.name=cifar10 --data.eval_split=test \\
      --preprocess.mean=0.485,0.456,0.406 --preprocess.std=0.229,0.224,0.225

  python main.py evaluate --protocol=zeroshot --weights=ViT-B-32.pt --set=imagenet --out=predictions.npz
  python main.py evaluate --protocol=zeroshot --weights=siglip2/ --tokenizer=siglip2/tokenizer.json \\
      --data.name=cifar10 --data.eval_split=test --templates=templates.txt

--protocol=zeroshot classifies with the image tower and the text tower of CLIP, SigLIP or SigLIP 2: the texts of a
class, one for each template, are its weights. CLIP's class names of ImageNet and its 80 templates are read from the
package open-clip-torch where it is installed, or from files (docs/zero_shot.md).

--set=NAME scores a network for ImageNet's 1,000 classes on an evaluation set, by the rule of that set:

  imagenet                    the validation images, beside human error rates on the challenge's test images
  real  multilabel            the same images with several labels each (ReaL; Shankar et al.)
  v2  v2_threshold  v2_top    ImageNet-V2, in its three selections
  a  r                        ImageNet-A and ImageNet-R, with predictions restricted to their 200 classes
  sketch                      ImageNet-Sketch
  c                           ImageNet-C: 75 data sets and the mean corruption error; predictions go to a directory
  objectnet                   ObjectNet, with --mappings=objectnet-1.0/mappings

Each set is a tfds data set that `prepare` makes; the message about a missing one shows the command to type.
--data.name=NAME reads another copy of it, such as a smaller one. Where classes are named by WordNet ids, predictions
are also scored along the WordNet tree: the hierarchical cost of the 2010 challenge, and the share of wrong
predictions that fall into the right super-class.
"""


def run(
    *,
    workdir: str | None,
    checkpoint: str | None,
    weights: str | None,
    model: str,
    options: str | None,
    drop_background: bool,
    preprocess: dict[str, str],
    classnames: str,
    templates: str,
    tokenizer: str,
    **common: Any,
) -> int:
    """Score a run's checkpoint or a file of weights; return the exit code."""
    parsed = parse_network_options(
        workdir=workdir,
        checkpoint=checkpoint,
        model=model,
        options=options,
        preprocess=preprocess,
        drop_background=drop_background,
    )
    texts = {"classnames": classnames, "templates": templates, "tokenizer": tokenizer}
    if common["protocol"] == ZERO_SHOT:
        network = {"name": model, "options": parsed, "preprocess": preprocess}
        return _run_zero_shot(workdir, weights, drop_background, common | texts | network)
    for name, value in texts.items():
        if value:
            raise UserError(f"--{name} belongs to --protocol={ZERO_SHOT} and would be ignored; leave it out")
    from imagenet_repro.runs.evaluate import evaluate, evaluate_weights

    if workdir is not None:
        evaluate(workdir, which=checkpoint or "last", **common)
    else:
        network = {"name": model, "options": parsed, "drop_background": drop_background, "preprocess": preprocess}
        evaluate_weights(str(weights), **network, **common)
    return EXIT_FINISHED


def _run_zero_shot(workdir: str | None, weights: str | None, drop_background: bool, arguments: dict[str, Any]) -> int:
    """Score a file of weights by the texts of classes; refuse options that would be ignored."""
    if workdir is not None:
        raise UserError(
            f"--protocol={ZERO_SHOT} is for --weights; a run on image-text pairs is scored by the texts of its classes"
            " anyway, so leave it out"
        )
    if drop_background:
        raise UserError(f"--drop_background belongs to weights with a head, which --protocol={ZERO_SHOT} has not")
    from imagenet_repro.runs.zero_shot import evaluate_zero_shot

    del arguments["protocol"]
    evaluate_zero_shot(str(weights), **arguments)
    return EXIT_FINISHED


COMMAND = Command(
    name="evaluate",
    help=HELP,
    run=run,
    options=(
        *NETWORK,
        Option(
            "--out",
            metavar="FILE",
            writes="either",
            help="the file for the predictions (default: a file in the workdir)",
        ),
        Option(
            "--set",
            parameter="set_name",
            default="",
            metavar="NAME",
            help="an evaluation set of ImageNet's classes (see above)",
        ),
        Option("--mappings", default="", metavar="DIR", help="with --set=objectnet: the mappings of its download"),
        Option("--drop_background", is_switch=True, help="the first class of the file is TensorFlow's background"),
        Option(
            "--protocol",
            default="crop",
            metavar="NAME",
            help="10crop, googlenet144, vgg_dense, …; A,B: several; A+B: averaged; zeroshot (default: crop)",
        ),
        Option(
            "--classnames",
            default="",
            metavar="FILE",
            help="with zeroshot: a name in each line, or a .json list, or object from classes to names",
        ),
        Option(
            "--templates",
            default="",
            metavar="FILE",
            help="with zeroshot: a template with {} in each line, or a .json list; 80 or 7: CLIP's lists",
        ),
        Option(
            "--tokenizer",
            default="",
            metavar="FILE",
            help="with zeroshot: the vocabulary of the text tower (default: CLIP's from open-clip-torch)",
        ),
    ),
    settings=(
        Settings("protocol", "keys of the protocol: scales, squares, positions, flips, average", parameter="settings"),
        PREPROCESS,
        Settings("data", "another data set or split: any key of the section `data`"),
    ),
    one_of=("--workdir", "--weights"),
)
