"""Images per second of a training step: bare, inside the whole loop, and the same network in PyTorch.

    python benchmarks/train_step.py                                        on a CPU: ResNet-18 at 64 px, float32
    python benchmarks/train_step.py --model=resnet50 --size=224 --precision=bfloat16 --batch=0     on a GPU

Each measurement is a separate process, and the measurements alternate, round after round, so that changes in the
machine's load affect all alike; medians are printed with their ratios. `--batch=0` takes the largest power of two
that fits, for each framework by itself. PyTorch's network is timm's if timm is installed, channels-last and
compiled on a GPU; otherwise the ResNet of pytorch_steps.py. `--peer_python` names an interpreter that has PyTorch; it
needs no JAX. The loop trains on the embedded data set.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
# PyTorch's threads spin while they wait: on cores that other processes use too, this made its steps 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LARGEST_BATCH = 2048


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
        Path(arguments.out).write_text(text, encoding="utf-8")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=64, help="0: the largest that fits")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=15.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data_dir", default="", help="with the embedded data set (default: tfds')")
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter with PyTorch (default: this one)")
    parser.add_argument("--out", help="Markdown file")
    parser.add_argument("--peer_step", help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=tuple(MEASUREMENTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def command_of(name, arguments):
    """Return the command that makes one measurement, "pytorch" by the interpreter that has PyTorch.

    `arguments` has at least the options `model`, `size`, `batch`, `precision`, `seconds` and `peer_python`.
    """
    from benchmarks import network_steps

    options = vars(arguments) | {"measure": name}
    if name == "pytorch":
        request = network_steps.peer_step(arguments.model, arguments.size, 1, arguments.precision)
        options["peer_step"] = json.dumps(dataclasses.asdict(request))
    given = [f"--{key}={value}" for key, value in options.items() if key != "out" and value is not None]
    return [arguments.peer_python if name == "pytorch" else sys.executable, __file__, *given]


def _in_a_process(name, arguments):
    command = command_of(name, arguments)
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
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


def measure_step(arguments):
    """Time the compiled step on a batch that stays on the devices."""
    from benchmarks import network_steps

    batch, rate = _largest(arguments, lambda size: _our_rate(arguments, size))
    heads = "" if network_steps.has_auxiliary_heads(arguments.model, arguments.size) else ", no auxiliary head"
    return {"images_per_second": rate, "note": f"batch {batch}, resident data{heads}"}


def _our_rate(arguments, size):
    from benchmarks import network_steps
    from imagenet_repro.training import devices
    from imagenet_repro.training.systems import NetworkSystem

    devices.start()
    config = network_steps.create_config(arguments.model, arguments.size, size, arguments.precision)
    system = NetworkSystem.create(config, 1000)
    state = system.initial_state()
    device = system.spread.put_batch(network_steps.resident_batch(size, arguments.size))
    compiled = system.spread.compile_training(system.train_step(1), state, device)
    return network_steps.measure(compiled, state, device, size, arguments.seconds)[0].median


def measure_loop(arguments):
    """Train for a budget of seconds; return the rate in the log after the first report."""
    from benchmarks import network_steps
    from imagenet_repro.runs.train import train
    from imagenet_repro.training import cpu_precision, log

    os.environ[cpu_precision.VARIABLE] = "yes"  # the loop computes as the bare step does, also on a CPU
    batch = arguments.batch or _largest(arguments, lambda size: _our_rate(arguments, size))[0]
    config = network_steps.create_config(
        arguments.model,
        arguments.size,
        batch,
        arguments.precision,
        data={"data_dir": arguments.data_dir},
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


def _largest(arguments, measure):
    """Return the batch size and the rate, for the given batch or for the largest power of two that fits."""
    if arguments.batch:
        return arguments.batch, measure(arguments.batch)
    size = LARGEST_BATCH
    while size >= 1:
        try:
            return size, measure(size)
        except Exception as error:
            from benchmarks import network_steps

            if not network_steps.is_out_of_memory(error):
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
    from benchmarks import pytorch_steps, timing

    request = pytorch_steps.PeerStep(**json.loads(arguments.peer_step))
    model, origin = pytorch_steps.create_network(request)

    def measure(size):
        step, wait = pytorch_steps.training_step(model, dataclasses.replace(request, batch=size))
        return timing.rate(step, wait, size, arguments.seconds).median

    batch, rate = _largest(arguments, measure)
    return {"images_per_second": rate, "note": f"batch {batch}, {origin}, torch {torch.__version__}"}


MEASUREMENTS = {"step": measure_step, "loop": measure_loop, "pytorch": measure_pytorch}

if __name__ == "__main__":
    main()
