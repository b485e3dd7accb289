"""Experiments in DVC's queue, one at a time: found where they have been made, resumed where they were killed."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import dvc.api

from benchmarks.machine import machine_name
from benchmarks.recipes import parameters
from src.pipeline.params import PARAMS_FILE, Params
from src.pipeline.paths import RUN_FILE
from src.pipeline.process import UserError

POLL_SECONDS, PATIENCE = 2.0, 10
METRICS = ("validation.accuracy", "validation.loss", "test.accuracy")


class Experiment(NamedTuple):
    """One run by DVC, up to a stage, with some parameters changed. What it asks for it gets, or it fails."""

    name: str
    changes: Mapping[str, object]  # of params.yaml
    last_stage: str
    result: str  # a metric of that stage

    def measure(self, params: Params) -> dict:
        """Have DVC's queue make the experiment, or find that it has been made, and read its metrics.

        Args:
            params: what ``params.yaml`` says.

        Returns:
            A run for `recipes.save_runs`; None for a figure that it does not have.

        Raises:
            UserError: it failed, or there is one of that name with other parameters.
        """
        row = self._find()
        if row is None:
            self._bring_to_its_end()
            row = self._find()
        if row is None:
            raise UserError(f"{self.name} failed; see `dvc queue logs {self.name}`")
        asked = parameters(params, self.changes)
        for name, value in asked.items():
            was = row.get(name, row.get(f"{PARAMS_FILE}:{name}"))  # the longer name where a metric has the short one
            if was not in (value, str(value)):
                raise UserError(f"{self.name} was run with {name}={was}; `dvc exp remove {self.name}`")
        used = json.loads(dvc.api.read(RUN_FILE.as_posix(), rev=row["rev"]))
        return {
            "parameters": {name: value for name, value in asked.items() if name not in ("weights", "seed")},
            "weights": Path(str(asked["weights"])).name,
            "seed": asked["seed"],
            **{metric.replace(".", "_"): row.get(metric) for metric in METRICS},
            "seconds": self._training_seconds(),
            "machine": machine_name(used),
        }

    def _training_seconds(self) -> float | None:
        """Add up the seconds of all epochs, as ``train`` printed them; None where it was interrupted."""
        if self._state() is None:
            return None
        log = dvc_prints("queue", "logs", self.name)
        if "going on from step" in log or not (seconds := re.findall(r"^epoch .*, (\d+) s\)$", log, re.MULTILINE)):
            return None
        return sum(map(int, seconds))

    def _find(self) -> dict | None:
        """Find its row once it is through: for one that runs or has failed DVC shows the last commit's metrics."""
        rows = [row for row in dvc.api.exp_show() if row["Experiment"] == self.name]
        rows = [row for row in rows if row["State"] in (None, "Success")]  # None for one that was not in the queue
        rows = [{name: None if value == "None" else value for name, value in row.items()} for row in rows]
        return next((row for row in rows if row.get(self.result) is not None), None)

    def _bring_to_its_end(self) -> None:
        """Queue the experiment, unless it is queued, and wait for it. A worker lives on when this process is killed."""
        state = self._state()
        if state == "Running" and not worker_is_active():  # it was killed
            dvc_prints("queue", "kill", self.name)
            state = "Failed"
        if state in ("Failed", "Success"):  # an earlier attempt
            dvc_prints("queue", "remove", self.name)
            state = None
        if state is None:
            changes = {**self.changes, "offline_fallback": False}
            values = [word for name, value in changes.items() for word in ("-S", f"{name}={json.dumps(value)}")]
            dvc_prints("exp", "run", "--queue", "--name", self.name, *values, self.last_stage)
        dvc_prints("queue", "start")
        idle = 0  # polls in a row without a worker: one that starts or ends has none for a moment
        while self._state() in ("Queued", "Running") and idle < PATIENCE:
            time.sleep(POLL_SECONDS)
            idle = 0 if worker_is_active() else idle + 1

    def _state(self) -> str | None:
        """Read what ``dvc queue status`` says of it; None where it is not in the queue."""
        found = re.search(rf"^\w+ +{self.name} .* (\w+) *$", dvc_prints("queue", "status"), re.MULTILINE)
        return found[1] if found else None


def worker_is_active() -> bool:
    """Tell whether a worker of the queue is at work."""
    return "Worker status: 0 active" not in dvc_prints("queue", "status")


def dvc_prints(*arguments: str) -> str:
    """Run DVC; return what it prints, with the errors that it means for the user."""
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise UserError(f"dvc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
