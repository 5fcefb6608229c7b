"""The loader's rate on this host, and the training loop with real input against the bare step."""

import shutil
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.device_parts import images
from benchmarks.device_parts.bench import Bench, Part
from benchmarks.device_parts.devices import is_installed
from benchmarks.device_parts.errors import LeftOutError
from benchmarks.device_parts.steps import FAST, PreparedStep
from imagenet_repro.config import Data
from imagenet_repro.config.amount import Amount
from imagenet_repro.data.batch import TRAINING_KEYS, Batch
from imagenet_repro.data.sources import Split, open_split

SHORTEST = 1.0  # seconds of the loop


class RealInput(Part):
    """The loader alone, then `loop.run` with the loader, with the same compiled step as the bare measurement."""

    name, title = "input", "the loader, and the loop with real input"
    compiles = True

    def __init__(self):
        self._prepared: PreparedStep | None = None

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        drawing = 0.05 * bench.scale.images / bench.compiler.threads
        measuring = 6 * bench.scale.seconds + 6
        return bench.scale.trace_seconds + bench.compile_time(1) + drawing + measuring

    def prepare(self, bench: Bench) -> None:
        """See `Part`."""
        if is_installed("grain"):
            budget = f"{max(SHORTEST, 3 * bench.scale.seconds)}s"
            settings = {"budget": budget, "evaluate_every": "1e9st", "checkpoint": {"every": "1e9st"}, "log_every": 1}
            bench.say(f"tracing {bench.scale.main.title} for the loop")
            self._prepared = PreparedStep(bench, bench.scale.main, **settings)

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        if self._prepared is None:
            raise LeftOutError("grain is not installed: pip install grain")
        split = self._split(bench)
        with bench.timing():
            self._measure_loader(bench, split)
        bare = self._prepared.measure(FAST, bench.scale.seconds, kind="bare_step")
        if is_installed("tensorboardX"):
            with bench.timing():
                self._measure_loop(bench, split, bare)
        else:
            bench.left_out("the loop with real input", "tensorboardX is not installed")

    def _split(self, bench: Bench) -> Split:
        options = bench.options
        if options.data:
            return images.folder_splits(options.data).train
        if options.data_dir:
            if not is_installed("tensorflow_datasets"):
                raise LeftOutError("--data_dir needs tensorflow-datasets; --data=FOLDER does not")
            return open_split(Data(name=options.data_name, data_dir=options.data_dir), "train")
        return images.drawn_split(bench.scale.image_side, bench.scale.images)

    def _batches(self, split: Split) -> Iterator[Batch]:
        from imagenet_repro.data import loader

        assert self._prepared is not None
        config = self._prepared.system.config
        return loader.train_batches(split, config.data, config.train_crop, batch_size=config.batch_size, seed=0)

    def _measure_loader(self, bench: Bench, split: Split) -> None:
        batches = self._batches(split)
        count = 0
        next(batches)  # opens files, starts threads, fills buffers
        began, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < bench.scale.seconds:
            count += len(next(batches)["label"])
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        getattr(batches, "close", lambda: None)()
        bench.record(
            "loader",
            data=split.name,
            images=split.num_examples,
            crop=bench.scale.main.image_size,
            images_per_second=count / seconds,
            images_per_cpu_second=count / cpu,
        )
        bench.say(f"the loader: {count / seconds:,.0f} images/s of {split.name}")

    def _measure_loop(self, bench: Bench, split: Split, bare: float) -> None:
        from imagenet_repro.training import log, loop

        assert self._prepared is not None
        workdir = bench.scratch / "runs" / "loop"
        shutil.rmtree(workdir, ignore_errors=True)
        workdir.mkdir(parents=True)
        job = self._job(bench, split, workdir)
        try:
            loop.run(job)
        finally:
            job.log.close()
            job.checkpoints.close()
        rows = [row for row in log.read_rows(workdir / log.METRICS) if row["kind"] == "train"]
        if len(rows) < 2:
            raise LeftOutError("fewer than two reports in the time of the loop")
        first, last = rows[0], rows[-1]
        rate = (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])
        waited = sum(row["waiting_seconds"] for row in rows[1:]) / (last["seconds"] - first["seconds"])
        bench.record(
            "loop",
            network=bench.scale.main.title,
            data=split.name,
            batch=self._prepared.batch,
            images_per_second=rate,
            relative_to_bare_step=rate / bare,
            share_of_time_waiting_for_input=waited,
        )
        bench.say(f"the loop with real input: {rate:,.1f} images/s, {rate / bare:.2f} of the bare step")

    def _job(self, bench: Bench, split: Split, workdir: Any) -> Any:
        """Return the parts of a run that ends with its budget of seconds and evaluates nothing."""
        from imagenet_repro.data.bad_records import BadRecords
        from imagenet_repro.data.prefetch import prefetch_to_device
        from imagenet_repro.training import checkpoint, log, loop
        from imagenet_repro.training.budget import Budget, Meter, Spent
        from imagenet_repro.training.learning_rate import LearningRate

        assert self._prepared is not None
        system = self._prepared.system
        config, spread = system.config, system.spread
        batches = prefetch_to_device(
            self._batches(split), lambda batch: spread.put_batch({name: batch[name] for name in TRAINING_KEYS})
        )
        run_log = log.RunLog(workdir, 0, config)
        return loop.TrainingJob(
            config=config,
            state=spread.put_state(self._prepared.host_state),
            steps=[self._prepared.program(FAST)],
            batches=batches,
            evaluate=lambda state, last: {"top1_error": 1.0, "top5_error": 1.0, "evaluated": 0},
            name_images=lambda index: [str(i) for i in index],
            budget=Budget(Amount.parse(config.budget), Meter(config.batch_size, split.num_examples, 1)),
            spent=Spent(),
            checkpoints=checkpoint.Checkpoints(workdir / "checkpoints", 1),
            bad_records=BadRecords(split, config.data, run_log.say),
            log=run_log,
            known={},
            learning_rate=LearningRate(config.optimizer.learning_rate, config.schedule),
        )
