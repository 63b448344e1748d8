"""Where a run came from: the content of environment.json."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import segctl
from segctl.data.batches.views import TrainingNames, Views
from segctl.files import file_sha256
from segctl.models.cost import cost_of
from segctl.runtime.device import tf32
from segctl.schema.run import method_in_words
from segctl.teacher.features import FeatureTeacher
from segctl.teacher.load import Teacher
from segctl.teacher.trial import Trial
from segctl.train.session import Request, Session


def describe_environment(session: Session, request: Request, trial: Trial | None) -> dict[str, Any]:
    """Versions, device, command, data and teacher of a run that is about to start; times in UTC, as JSON values."""
    run = session.run
    return {
        "segctl": segctl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": _version("timm"),
        "platform": platform.platform(),
        "device": _device_name(session.compute.device),
        "processes": session.world.size,
        "threads": torch.get_num_threads(),
        "precision": session.compute.precision,
        "tf32": tf32(session.compute),
        "command": request.command,
        "data_root": str(request.data_root),
        "runs_root": str(request.runs_root),
        "caller_commit": _caller_commit(),
        "started": now(),
        "finished": None,
        "seconds": 0.0,
        "steps": run.train.steps,
        "seconds_per_step": None,
        "peak_memory_mb": None,
        "cost": _cost(session),
        "parameters": sum(parameter.numel() for parameter in session.model.parameters()),
        "method": method_in_words(run),
        "initial_weights": run.model.weights,
        "initial_weights_sha256": _weights_sha256(session),
        "initial_weights_license": session.model.backbone.license or None,
        "dataset": {
            "name": session.dataset.name,
            "fingerprint": session.dataset.fingerprint,
            "trial": session.dataset.trial,
            **_labels(session),
        },
        "teacher": _teacher(session, trial),
    }


def _labels(session: Session) -> dict[str, Any]:
    """What is not a label that people made: `predicted_labels` says who made how many of the training split's, and
    `unlabelled_images` how many images are trained on without one; each only where there are any."""
    dataset, data = session.dataset, session.run.data
    names = TrainingNames.of(dataset, data)
    lacking = Views.of(dataset, data.train_split, data).unlabelled
    hidden = {*names.unlabelled, *(name for name in names.labelled if name in lacking)}
    made = dataset.provenance.predicted
    found: dict[str, Any] = {"unlabelled_images": len(hidden)} if hidden else {}
    if made is not None and (mine := [name for name in made.samples if name in set(names.labelled) - hidden]):
        found["predicted_labels"] = {
            "images": len(mine),
            "of": len(set(names.labelled) - hidden),
            "network": made.network,
            "weights_sha256": made.weights_sha256,
            "min_confidence": made.min_confidence,
        }
    return found


def _weights_sha256(session: Session) -> str | None:
    """The hash of the file that the first weights came from; None for random ones, and on a resume, which reads none."""
    file = getattr(session.model.backbone, "weights_file", None)
    return None if file is None else file_sha256(file)


def _cost(session: Session) -> dict[str, Any]:
    """What one prediction costs, on an image as large as most of the validation split's."""
    run = session.run
    found = cost_of(run.model, session.model.num_classes, session.dataset.usual_size(run.data.val_split))
    return {"parameters": found.parameters, "gflop": round(found.gflop, 4), "size": list(found.size)}


def now() -> str:
    """The time in UTC, such as 2030-01-31T12:00:00Z."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _teacher(session: Session, trial: Trial | None) -> dict[str, Any] | None:
    return None if session.teacher is None else _described(session.teacher, trial)


def _described(teacher: Teacher | FeatureTeacher, trial: Trial | None) -> dict[str, Any]:
    """A teacher with its hash and scores, and below it the same of each member of an ensemble with its weight."""
    found: dict[str, Any] = {"run": teacher.source, "preset": teacher.preset, "sha256": teacher.sha256}
    if teacher.given_preset is not None:
        found["given_preset"] = teacher.given_preset
    if teacher.license:
        found["license"] = teacher.license
    if trial is not None:
        found |= {"scores": trial.scores, "images": trial.images}
    if teacher.members:
        trials = (None,) * len(teacher.members) if trial is None else trial.members
        found["members"] = [
            _described(member, alone) | {"weight": weight}
            for member, alone, weight in zip(teacher.members, trials, teacher.weights, strict=True)
        ]
    return found


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _caller_commit() -> str | None:
    """The git commit of the current folder, or None outside a repository."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False, cwd=Path.cwd()
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
