"""Images per second of a training step: bare, inside the whole loop, and the same network in PyTorch.

    python benchmarks/train_step.py                                        on a CPU: ResNet-18 at 64 px, float32
    python benchmarks/train_step.py --model=resnet50 --size=224 --precision=bfloat16 --batch=0     on a GPU

Each measurement is a separate process, and the measurements alternate, round after round, so that changes in the
machine's load affect all alike; medians are printed with their ratios. `--batch=0` takes the largest power of two
that fits, for each framework by itself. PyTorch's network is timm's if timm is installed, channels-last and
compiled on a GPU; otherwise the same ResNet written with torch.nn below. The loop trains on the embedded data set.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
# PyTorch's threads spin while they wait: on cores that other processes use too, this made its steps 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LARGEST_BATCH = 2048
AUXILIARY = ("googlenet", "inception_v3")  # torchvision's networks with auxiliary heads
AUXILIARY_FROM = 299  # pixels; below, torchvision's auxiliary head of Inception-v3 fails, so neither side has one


def main():
    """Measure alternately and print the table."""
    arguments = _arguments()
    if arguments.measure:
        print(json.dumps(MEASUREMENTS[arguments.measure](arguments)))
        return
    rates = {name: [] for name in MEASUREMENTS}
    notes = {}
    for round_number in range(arguments.rounds):
        for name in MEASUREMENTS:
            measurement = _in_a_process(name, arguments)
            rates[name].append(measurement["images_per_second"])
            notes[name] = measurement["note"]
            print(
                f"round {round_number + 1}, {name}: {measurement['images_per_second']:.1f} images/s", file=sys.stderr
            )
    text = _table(arguments, rates, notes)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=64, help="0: the largest that fits")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=15.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data_dir", default="", help="with the embedded data set (default: tfds')")
    parser.add_argument("--out", help="Markdown file")
    parser.add_argument("--measure", choices=tuple(MEASUREMENTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(name, arguments):
    options = [f"--{key}={value}" for key, value in vars(arguments).items() if key not in ("measure", "out")]
    command = [sys.executable, __file__, f"--measure={name}", *options]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"measuring '{name}' failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def _table(arguments, rates, notes):
    from imagenet_repro.storage import provenance

    medians = {name: statistics.median(values) for name, values in rates.items()}
    source = provenance.collect()
    lines = [
        f"# Training step: {arguments.model}, {arguments.size} px, {arguments.precision}",
        "",
        f"Medians of {arguments.rounds} rounds of {arguments.seconds:g} s each; devices {source['devices']},"
        f" {source['cores']} cores; jax {source['packages']['jax']}; commit {source['commit'][:12]}.",
        "",
        "| measurement | images/s | all rounds | relative to the step alone |",
        "|---|---:|---|---:|",
    ]
    for name, values in rates.items():
        shown = ", ".join(f"{v:.1f}" for v in values)
        ratio = medians[name] / medians["step"] if medians["step"] else 0
        lines.append(f"| {name} ({notes[name]}) | {medians[name]:.1f} | {shown} | {ratio:.3f} |")
    if medians["pytorch"]:
        lines += ["", f"Step alone relative to PyTorch: {medians['step'] / medians['pytorch']:.2f}."]
    return "\n".join(lines) + "\n"


# --- ours ------------------------------------------------------------------------------------------------------


def _config(arguments, batch, **settings):
    from imagenet_repro.config import resolve_config

    base = {
        "batch_size": batch,
        "precision": arguments.precision,
        "parallel": "pmap",
        "deterministic": False,
        "model": {"name": arguments.model, "options": _options(arguments)},
        "data": {"image_size": arguments.size, "data_dir": arguments.data_dir, "eval_split": "validation[:64]"},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
    }
    return resolve_config(base | settings)


def _options(arguments):
    """Return our network's options with which both sides compute the same on images of this size."""
    from imagenet_repro import models

    if "image_size" in models.spec(arguments.model).options:  # position embeddings depend on it
        return {"image_size": arguments.size}
    return {"auxiliary": False} if _headless(arguments) else {}


def _headless(arguments):
    return arguments.model == "inception_v3" and arguments.size < AUXILIARY_FROM


def measure_step(arguments):
    """Time the compiled step on a batch that stays on the devices."""
    batch, rate = _largest(arguments, lambda size: _our_rate(arguments, size))
    heads = ", no auxiliary head" if _headless(arguments) else ""
    return {"images_per_second": rate, "note": f"batch {batch}, resident data{heads}"}


def _our_rate(arguments, size):
    import jax
    import numpy as np

    from imagenet_repro.training import devices
    from imagenet_repro.training.systems import NetworkSystem

    devices.start()
    system = NetworkSystem.create(_config(arguments, size), 1000)
    state = system.initial_state()
    rng = np.random.default_rng(0)
    host = {name: np.arange(size, dtype=np.int32) for name in ("label", "epoch", "index")}
    host["image"] = rng.integers(0, 256, (size, arguments.size, arguments.size, 3), dtype=np.uint8)
    device = system.spread.put_batch(host)
    compiled = system.spread.compile_training(system.train_step(1), state, device)
    place = {"state": state}

    def step():
        place["state"], place["measures"] = compiled(place["state"], device, np.float32(0.1))

    return _rate(step, lambda: jax.block_until_ready(place["measures"]), size, arguments.seconds)


def measure_loop(arguments):
    """Train for a budget of seconds; return the rate in the log after the first report."""
    from imagenet_repro.runs.train import train
    from imagenet_repro.training import log

    batch = arguments.batch or _largest(arguments, lambda size: _our_rate(arguments, size))[0]
    config = _config(
        arguments,
        batch,
        budget=f"{arguments.seconds}s",
        evaluate_every="1e9st",
        checkpoint={"every": "1e9st"},
        log_every=2,
    )
    with tempfile.TemporaryDirectory() as workdir:
        train(config, workdir)
        rows = [row for row in log.read_rows(Path(workdir) / "metrics.jsonl") if row["kind"] == "train"]
    first, last = rows[0], rows[-1]
    rate = (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])
    return {"images_per_second": rate, "note": f"batch {batch}, reading and augmenting"}


def _rate(step, wait, size, seconds):
    """Return the images per second over at least `seconds`, after two steps that are not timed."""
    for _ in range(2):
        step()
    wait()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        wait()
        done += 1
    return done * size / (time.perf_counter() - began)


def _largest(arguments, measure):
    """Return the batch size and the rate, for the given batch or for the largest power of two that fits."""
    if arguments.batch:
        return arguments.batch, measure(arguments.batch)
    size = LARGEST_BATCH
    while size >= 1:
        try:
            return size, measure(size)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
                raise
            size //= 2
    raise SystemExit("not even one image fits")


# --- PyTorch ---------------------------------------------------------------------------------------------------


def measure_pytorch(arguments):
    """Time the same network, batch, precision and optimizer in PyTorch."""
    try:
        import torch
    except ImportError:
        return {"images_per_second": 0.0, "note": "PyTorch is not installed"}
    model, origin = _torch_model(arguments)
    batch, rate = _largest(arguments, lambda size: _torch_rate(arguments, model, size))
    return {"images_per_second": rate, "note": f"batch {batch}, {origin}, torch {torch.__version__}"}


def _torch_rate(arguments, model, size):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    model = model.to(device, memory_format=torch.channels_last).train()
    run = torch.compile(model) if on_gpu else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(size, 3, arguments.size, arguments.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(size, device=device) % 1000
    bf16 = torch.autocast(device, torch.bfloat16, enabled=arguments.precision == "bfloat16")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with bf16:
            loss = _torch_loss(run(images), labels)
        loss.backward()
        optimizer.step()

    return _rate(step, torch.cuda.synchronize if on_gpu else lambda: None, size, arguments.seconds)


def _torch_model(arguments):
    """Return timm's or torchvision's network of the same name; without these libraries, a ResNet defined here."""
    from imagenet_repro import models

    name = arguments.model
    library, _, reference = models.spec(name).reference.partition(":")
    try:
        import timm
        import torchvision
    except ImportError:
        return _torch_resnet(name), "torch.nn"
    if library == "timm":
        sized = {"img_size": arguments.size} if "image_size" in models.spec(name).options else {}
        return timm.create_model(reference, num_classes=1000, **sized), f"timm {timm.__version__}"
    if library != "torchvision":
        raise SystemExit(f"{name} is as in '{models.spec(name).reference}'; timm and torchvision do not have it")
    options = {"init_weights": True, "aux_logits": not _headless(arguments)} if reference in AUXILIARY else {}
    return getattr(torchvision.models, reference)(weights=None, **options), f"torchvision {torchvision.__version__}"


def _torch_loss(outputs, labels):
    """Return the cross-entropy, with that of auxiliary heads where there are any."""
    from torch.nn.functional import cross_entropy

    if not isinstance(outputs, tuple):
        return cross_entropy(outputs.float(), labels)
    main, *auxiliary = [cross_entropy(logits.float(), labels) for logits in outputs]
    return main + (0.4 if len(auxiliary) == 1 else 0.3) * sum(auxiliary)


def _torch_resnet(name):
    """Return ResNet-18 or -34 (He et al. 2015) in torch.nn."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x):
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    depths = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
    if name not in depths:
        raise SystemExit(f"without timm there is no '{name}' in PyTorch here; there are {', '.join(depths)}")
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks, inputs = [], 64
    for stage, depth in enumerate(depths[name]):
        for block in range(depth):
            outputs = 64 * 2**stage
            blocks.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


MEASUREMENTS = {"step": measure_step, "loop": measure_loop, "pytorch": measure_pytorch}

if __name__ == "__main__":
    main()
