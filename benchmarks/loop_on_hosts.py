"""Time that the training loop adds to a step when two processes train together.

    python benchmarks/loop_on_hosts.py

Each of two processes has one device and the same dummy step, which waits for `--milliseconds` without taking a core,
as a step on an accelerator does, and has one sum over the processes. (The wait is a custom call, compiled with g++.)
The bare steps are given to the devices one after another and waited for at the end; the loop is
`imagenet_repro.training.loop` without images, evaluations and checkpoints; the evaluation is that of
`imagenet_repro.inference.evaluator` without images. They alternate, after a turn that does not count. Printed are the
milliseconds of a step or a batch, and the number of times that a process asked the other outside of a step.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

SHARE = 8  # images of a process in a batch
WAIT = """
#include <cstring>
#include <unistd.h>
#include "xla/ffi/api/ffi.h"
namespace ffi = xla::ffi;
static ffi::Error wait(int64_t microseconds, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> y) {
  usleep(microseconds);
  std::memcpy(y->untyped_data(), x.untyped_data(), x.size_bytes());
  return ffi::Error::Success();
}
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    wait_handler, wait, ffi::Ffi::Bind().Attr<int64_t>("microseconds").Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());
"""


def main():
    """Start two processes and print what the first one measured."""
    arguments = _arguments()
    if "PROCESS_ID" in os.environ:
        print(json.dumps(_measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as directory:
        print(_table(_run_both(_build(directory)), arguments))


def _build(directory):
    """Compile the custom call and return the path of its library."""
    import jax

    source, library = Path(directory) / "wait.cc", Path(directory) / "wait.so"
    source.write_text(WAIT, encoding="utf-8")
    command = ["g++", "-O1", "-w", "-std=c++17", "-shared", "-fPIC", f"-I{jax.ffi.include_dir()}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return library


def _run_both(library):
    """Run this script in two processes and return what the first one measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"COORDINATOR_ADDRESS": coordinator, "NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    common["WAIT_LIBRARY"] = str(library)
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:]],
            env=os.environ | common | {"PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for number in range(2)
    ]
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].splitlines()[-1])


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=5.0, help="of a dummy step")
    parser.add_argument("--steps", type=int, default=400, help="in a turn")
    parser.add_argument("--log_every", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


def _measure(arguments):
    """Return the milliseconds of a step, bare and in the loop, by turn, and how often the processes asked directly."""
    import jax
    from jax.experimental import multihost_utils

    from imagenet_repro.training import devices

    devices.start()
    state, batch, compiled = _compiled(arguments.milliseconds)
    evaluate = _evaluation(arguments, state)
    asked = mock.Mock(wraps=multihost_utils.process_allgather)
    turns = {"bare": [], "loop": [], "evaluation": []}
    for turn in range(arguments.turns + 1):
        if turn == 1:  # the first one compiles
            turns = {name: [] for name in turns}
            asked.reset_mock()
        multihost_utils.sync_global_devices("turn")
        began = time.perf_counter()
        for _ in range(arguments.steps):
            state, measures = compiled(state, batch, 0.1)
        jax.block_until_ready(measures)
        turns["bare"].append(1000 * (time.perf_counter() - began) / arguments.steps)
        with mock.patch.object(multihost_utils, "process_allgather", asked):
            began = time.perf_counter()
            state = _train(arguments, state, batch, compiled)
            turns["loop"].append(1000 * (time.perf_counter() - began) / arguments.steps)
        began = time.perf_counter()
        evaluate(state)
        turns["evaluation"].append(1000 * (time.perf_counter() - began) / arguments.steps)
    return turns | {"asked": asked.call_count // arguments.turns}


def _compiled(milliseconds):
    """Return a state, a batch and the compiled dummy step, which has the measures of a real one."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from imagenet_repro.training import parallel
    from imagenet_repro.training.clock import HOSTS
    from imagenet_repro.training.state import TrainState
    from imagenet_repro.training.step import AXIS

    library = ctypes.CDLL(os.environ["WAIT_LIBRARY"])
    jax.ffi.register_ffi_target("wait", jax.ffi.pycapsule(library.wait_handler), platform="cpu")
    spread = parallel.create("shard_map")
    replicated, share = NamedSharding(spread.mesh, PartitionSpec()), PartitionSpec(AXIS)

    def step(state, batch, learning_rate):
        weights = state.params["w"]
        wait = jax.ffi.ffi_call("wait", jax.ShapeDtypeStruct(weights.shape, weights.dtype))
        value = wait(jnp.tanh(weights @ weights), microseconds=np.int64(1000 * milliseconds))
        total = jax.lax.psum({"sum": value[0, 0] + batch["index"].sum(), HOSTS: batch[HOSTS].sum(0)}, AXIS)
        names = ("loss", "top1_correct", "top5_correct", "gradient_norm")
        measures = dict.fromkeys(names, total["sum"]) | {"learning_rate": learning_rate, HOSTS: total[HOSTS]}
        return dataclasses.replace(state, step=state.step + 1), measures

    params = {"w": np.eye(96, dtype=np.float32)}
    state = TrainState(np.zeros((), np.int32), params, {}, (), {}, np.zeros(2, np.uint32))
    state = spread.put_state(state)
    batch = spread.put_batch({"index": np.zeros(SHARE, np.int32), HOSTS: np.zeros((SHARE, 3), np.float32)})
    mapped = jax.shard_map(
        step,
        mesh=spread.mesh,
        in_specs=(PartitionSpec(), share, PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return state, batch, jax.jit(mapped, out_shardings=(replicated, replicated))


def _evaluation(arguments, state):
    """Return the evaluation of a state on as many batches as a turn has steps, each scored in the time of a step."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from imagenet_repro.config import resolve_config
    from imagenet_repro.data.bad_records import BadRecords
    from imagenet_repro.data.sources import Split
    from imagenet_repro.inference import evaluator
    from imagenet_repro.training import parallel

    def score(params, stats, images):
        wait = jax.ffi.ffi_call("wait", jax.ShapeDtypeStruct(params["w"].shape, params["w"].dtype))
        value = wait(jnp.tanh(params["w"] @ params["w"]), microseconds=np.int64(1000 * arguments.milliseconds))
        return images.astype(jnp.float32).mean((1, 2)) + value[0, :3]

    host = {
        "image": np.zeros((SHARE, 8, 8, 3), np.uint8),
        "label": np.zeros(SHARE, np.int32),
        "weight": np.ones(SHARE, np.float32),
    }
    spread = parallel.create("shard_map")
    batches = [(host, spread.put_batch(host))] * arguments.steps
    one = evaluator.Evaluator(resolve_config({"batch_size": 2 * SHARE}), score, spread, mock.Mock(spec=Split))

    def evaluate(state):
        with (
            mock.patch.object(one, "_batches", return_value=batches),
            mock.patch.object(evaluator, "BadRecords", mock.Mock(return_value=mock.Mock(spec=BadRecords))),
        ):
            one.rates(state)

    return evaluate


def _train(arguments, state, batch, compiled):
    """Run the loop for the steps of a turn and return its last state."""
    import jax
    import numpy as np

    from imagenet_repro.config import resolve_config
    from imagenet_repro.config.amount import Amount
    from imagenet_repro.data.bad_records import BadRecords
    from imagenet_repro.training import loop, parallel
    from imagenet_repro.training.budget import Budget, Meter, Spent
    from imagenet_repro.training.checkpoint import Checkpoints
    from imagenet_repro.training.clock import Agreement
    from imagenet_repro.training.log import RunLog

    amount = f"{arguments.steps}st"
    config = resolve_config(
        {
            "batch_size": 2 * SHARE,
            "budget": amount,
            "evaluate_every": amount,
            "checkpoint": {"every": amount},
            "log_every": arguments.log_every,
        }
    )
    host = {"index": np.zeros(SHARE, np.int32)}
    job = loop.TrainingJob(
        config=config,
        state=state,
        steps=[compiled],
        batches=iter([(host, batch)] * arguments.steps),
        evaluate=lambda state, last: {"top1_error": 0.9, "top5_error": 0.5, "evaluated": 1},
        name_images=lambda index: [],
        budget=Budget(Amount.parse(amount), Meter(2 * SHARE, 100, 1000)),
        spent=Spent(),
        checkpoints=mock.Mock(spec=Checkpoints),
        bad_records=mock.Mock(spec=BadRecords, **{"update.return_value": []}),
        log=mock.Mock(spec=RunLog),
        known={},
        learning_rate=mock.Mock(return_value=np.float32(0.1), scale=1.0, **{"observe.return_value": False}),
        agreement=Agreement(parallel.create("shard_map").put_batch, SHARE) if jax.process_count() > 1 else Agreement(),
    )
    return loop.run(job).state


def _table(measured, arguments):
    import jax
    import numpy as np

    rows = []
    for name, title in (("bare", "bare steps"), ("loop", "the loop"), ("evaluation", "batches of an evaluation")):
        ratios = [one / bare for one, bare in zip(measured[name], measured["bare"], strict=True)]
        lowest, highest = min(ratios), max(ratios)
        median = np.median(ratios)
        rows.append(f"| {title} | {np.median(measured[name]):.2f} | {median:.2f} ({lowest:.2f} to {highest:.2f}) |")
    return "\n".join(
        (
            f"JAX {jax.__version__}, {arguments.turns} turns of {arguments.steps} steps,"
            f" log_every {arguments.log_every}",
            "",
            "| | ms, median | relative to bare steps, median (lowest to highest turn) |",
            "|---|---:|---:|",
            *rows,
            "",
            f"Outside of a step, the processes asked one another {measured['asked']} times in a turn.",
        )
    )


if __name__ == "__main__":
    main()
