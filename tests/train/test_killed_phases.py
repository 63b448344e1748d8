"""A run killed on purpose in each of its phases, again and again, ends with the very state of one that was not.

`test_resume.py` kills at random moments; these are those that randomness rarely hits.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import kill, start_segctl
from toy import STUDENT, write_preset

from segctl.models import read
from segctl.runs import RunFolder

TERMS = [
    {"kind": "kd"},
    {"kind": "adversarial"},
    {"kind": "cirkd_memory", "pixel_slots": 50, "region_slots": 9, "pixel_samples": 60, "region_samples": 40},
    {"kind": "maskd", "tokens": 3, "stage": {"steps": 40}},
]
"""With all that a checkpoint may hold beside the student: an opponent and its optimiser, queues, a stage."""
CHECKPOINT, VALIDATION = 3, 6
SETTINGS = {"steps": 36, "checkpoint_every": CHECKPOINT, "validate_every": VALIDATION, "ema": 0.9}

Now = Callable[[], bool]


class Run:
    """A run's folder, and the process that is at work on it."""

    def __init__(self, root: Path, preset: Path, data: Path, teacher: Path) -> None:
        self.stages, self.folder = root / ".stages", RunFolder(root / "run")
        self.arguments = [
            "distill", "--preset", str(preset), "--data-root", str(data),
            "--runs-root", str(root), "--run", str(self.folder.path), "--teacher", str(teacher),
        ]  # fmt: skip

    def start(self) -> None:
        resume = ["--resume"] if self.folder.path.exists() else []
        self.began = time.time()
        self.process = start_segctl([*self.arguments, *resume])
        self.partial_before, self.log_before = self.partial_time(), self.log_time()

    def kill_when(self, now: Now) -> bool:
        """Start, and kill at that moment; whether it was still that moment when the process was dead."""
        self.start()
        while not now():
            assert self.process.is_alive()
            time.sleep(0.0005)
        kill(self.process)
        return now()

    def finish(self) -> None:
        self.start()
        self.process.join()
        assert self.process.exitcode == 0

    def in_stage(self) -> bool:
        return self.partial_time() > self.partial_before

    def writing_stage(self) -> bool:
        return self.is_writing(self.stages, ".*.part*")

    def between_stage_and_run(self) -> bool:
        learnt = [path for path in self.stages.glob("*.pt") if not path.name.endswith(".partial.pt")]
        return bool(learnt) and not self.folder.read_log()

    def is_writing(self, folder: Path, pattern: str) -> bool:
        """Whether this process has begun a file; those of a process that was killed before are older."""
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime > self.began:
                    return True
        return False

    def writing_checkpoint(self) -> bool:
        return self.is_writing(self.folder.path, ".last.pt.part*")

    def validating(self) -> bool:
        step = self.step_just_logged()
        return step is not None and step % VALIDATION == 0

    def in_a_step(self) -> bool:
        step = self.step_just_logged()
        return step is not None and step % CHECKPOINT > 0

    def step_just_logged(self) -> int | None:
        """The step that this process logged last, if nothing has come after it."""
        events = self.folder.read_log() if self.log_time() > self.log_before else []
        return int(events[-1]["step"]) if events and events[-1]["event"] == "step" else None

    def log_time(self) -> float:
        return self.folder.log.stat().st_mtime if self.folder.log.is_file() else 0.0

    def partial_time(self) -> float:
        return max((path.stat().st_mtime for path in self.stages.glob("*.partial.pt")), default=0.0)


def plain(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a checkpoint by its place."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in items for name, leaf in plain(value, f"{path}/{key}").items()}
    return {path: tree}


@pytest.mark.slow
def test_kills_in_every_phase_change_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    blocks = {"train": SETTINGS, "distiller": {"terms": TERMS}, "model": {"width": 4}}
    preset = write_preset(tmp_path / "student.yaml", STUDENT, **blocks)
    undisturbed, killed = (Run(tmp_path / name, preset, toy_data, toy_teacher) for name in ("undisturbed", "killed"))
    undisturbed.finish()
    hits: Counter[str] = Counter()
    kills = 0
    phases = ["in_stage", "writing_stage"] * 3 + ["between_stage_and_run"] * 2
    phases += ["writing_checkpoint", "validating", "in_a_step"] * 8
    for phase in phases:
        hits[phase] += killed.kill_when(getattr(killed, phase))
        kills += 1
    killed.finish()
    print(f"{kills} kills; still in that phase when dead: {dict(hits)}")
    assert kills >= 30
    assert set(hits) == set(phases)
    assert all(hits.values()), hits
    mine, theirs = (plain(torch.load(run.folder.last, weights_only=True)) for run in (killed, undisturbed))
    assert mine.keys() == theirs.keys()
    for name, leaf in theirs.items():
        assert torch.equal(mine[name], leaf) if isinstance(leaf, torch.Tensor) else mine[name] == leaf, name
    shipped = [read(run.folder.model).weights for run in (killed, undisturbed)]
    for name, weight in shipped[1].items():
        assert torch.equal(shipped[0][name], weight), name
