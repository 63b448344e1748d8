"""MLflow. Unless MLFLOW_TRACKING_URI says otherwise, runs are kept in `mlruns` under the runs root, without a server."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.schema.same_run import settings
from segctl.train.trackers.tracking import TrackerRecord

EXPERIMENT = "segctl"
"""The experiment of a run, unless MLFLOW_EXPERIMENT_NAME names another."""
LONGEST_SETTING = 500
"""Characters of a parameter that every MLflow accepts."""
LARGEST_BATCH = 100
"""Parameters that one request may hold."""


class MlflowRun:
    """A run of MLflow, through its client: nothing that the caller's own MLflow has open is touched."""

    @staticmethod
    def require() -> None:
        """MLflow needs no login that could be looked for."""

    def __init__(
        self, folder: RunFolder, run: TrainRun, record: TrackerRecord, steps_taken: int, note: Callable[[str], None]
    ) -> None:
        self.entities: Any = import_module("mlflow.entities")
        store = os.environ.get("MLFLOW_TRACKING_URI")
        local = folder.path.parent.absolute() / "mlruns"
        if store is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones ask for it
        self.client: Any = import_module("mlflow").MlflowClient(tracking_uri=store or local.as_uri())
        if record.id:
            self.client.update_run(record.id, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            found = self.client.get_experiment_by_name(name)
            experiment = self.client.create_experiment(name) if found is None else found.experiment_id
            record.id = self.client.create_run(experiment, run_name=folder.name).info.run_id
            params = [self.entities.Param(_key(path), str(value)[:LONGEST_SETTING]) for path, value in settings(run).items()]
            for first in range(0, len(params), LARGEST_BATCH):
                self.client.log_batch(record.id, params=params[first : first + LARGEST_BATCH])
            self.client.log_artifact(record.id, str(folder.run_yaml))
        self.id = record.id
        if store is None:
            note(f"mlflow keeps the run in '{local}'; to look at it: `mlflow ui --backend-store-uri {local.as_uri()}`")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        points = [self.entities.Metric(_key(curve), value, now_ms, step) for curve, value in values.items()]
        self.client.log_batch(self.id, metrics=points)

    def show(self, step: int, images: Sequence[Path]) -> None:
        for path in images:
            self.client.log_artifact(self.id, str(path), f"worst/step-{step}")

    def close(self, *, finished: bool) -> None:
        self.client.set_terminated(self.id, status="FINISHED" if finished else "KILLED")


def _key(name: str) -> str:
    """A name with only those characters that MLflow takes; class names may have others."""
    return re.sub(r"[^\w\-. /]", "_", name)
