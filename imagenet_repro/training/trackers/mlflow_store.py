"""MLflow: a SQLite file in `WORKDIR/mlflow`, unless MLFLOW_TRACKING_URI names another store."""

import importlib
import logging
import os
import time
from collections.abc import Mapping, Sequence

from imagenet_repro.training.trackers.background import Adapter
from imagenet_repro.training.trackers.tracked_run import KINDS, PROJECT, Row, TrackedRun

TAG = "imagenet_repro.run"  # its value is the id of the run
# Limits of one request (MLflow's REST API, "Log Batch").
MOST_METRICS, MOST_PARAMS, LONGEST_VALUE = 1000, 100, 6000
KNOWN = {"train": "train/loss", "eval": "eval/top1_error"}  # a number that every row of the kind has


class MlflowStore(Adapter):
    """A run of MLflow, which the tag `imagenet_repro.run` finds again when the run resumes.

    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME have their usual meaning. The library's telemetry is off, unless
    MLFLOW_DISABLE_TELEMETRY=false asks for it. A parameter of MLflow keeps its first value, so a setting that has
    changed since the run began, such as the budget of one that is extended, is a tag.
    """

    title = "MLflow"

    def __init__(self, run: TrackedRun):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s, not four minutes
        mlflow = importlib.import_module("mlflow")
        for library in ("mlflow", "alembic"):  # which list every table that they create
            logging.getLogger(library).setLevel(logging.WARNING)
        self._run, self._step = run, run.start_step
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self._create_store()
        self._client, self._entities = mlflow.MlflowClient(uri), mlflow.entities
        self._id = self._find_run() or self._create_run()
        self._write_settings()
        self.place = f"{uri}, run {self._id}"

    def _create_store(self) -> str:
        directory = self._run.workdir / "mlflow"
        directory.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{directory / 'mlflow.db'}"

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        is_ours = "MLFLOW_TRACKING_URI" not in os.environ
        artifacts = (self._run.workdir / "mlflow" / "artifacts").as_uri() if is_ours else None
        return self._client.create_experiment(name, artifact_location=artifacts)

    def _find_run(self) -> str:
        """Return the id of the run's earlier process, with its status set to running; empty where there is none."""
        found = self._client.search_runs([self._experiment()], f"tags.`{TAG}` = '{self._run.id}'", max_results=1)
        if not found:
            return ""
        self._client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id

    def _create_run(self) -> str:
        tags = {TAG: self._run.id, "system": self._run.system, "workdir": str(self._run.workdir)}
        return self._client.create_run(self._experiment(), tags=tags, run_name=self._run.name).info.run_id

    def _write_settings(self) -> None:
        stored = self._client.get_run(self._id).data.params
        settings = {key: value[:LONGEST_VALUE] for key, value in self._run.settings_as_text.items()}
        changed = {key: value for key, value in settings.items() if stored.get(key, value) != value}
        new = [self._entities.Param(key, value) for key, value in settings.items() if key not in stored]
        for start in range(0, len(new), MOST_PARAMS):
            self._client.log_batch(self._id, params=new[start : start + MOST_PARAMS])
        self._client.log_batch(
            self._id, tags=[self._entities.RunTag(f"changed.{key}", value) for key, value in changed.items()]
        )

    def sent(self) -> dict[str, int]:
        """Return the last step of each kind in the store."""
        steps = {}
        for kind in KINDS:
            history = self._client.get_metric_history(self._id, KNOWN[kind])
            steps[kind] = max((metric.step for metric in history), default=0)
        return steps

    def write(self, rows: Sequence[Row]) -> None:
        """Record rows by their steps, many numbers with one request."""
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(tag, value, now, row.step) for row in rows for tag, value in row.numbers.items()
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + MOST_METRICS])
        self._step = rows[-1].step

    def close(self, result: Mapping[str, float] | None) -> None:
        """Record the result at the last step, and whether the run is finished or was stopped."""
        if result is not None:
            self.write([Row(self._step, dict(result))])
        self._client.set_terminated(self._id, "FINISHED" if result is not None else "KILLED")
