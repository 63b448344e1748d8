"""Eight methods, the undistilled student and the losses on CamVid: plans, trains, resumes, scores, and fills what is missing.

    python benchmarks/camvid/run.py --weights DIR [--data-root data] [--runs-root runs/camvid]
    python benchmarks/camvid/run.py --weights DIR --list         # what is done and what is left; trains nothing
    python benchmarks/camvid/run.py --weights DIR --undistilled  # only what needs no teacher, which may be trained meanwhile
    python benchmarks/camvid/run.py --weights DIR --estimate 6   # CPU seconds a step of each kind of run, from 6 steps
    python benchmarks/camvid/table.py                            # the tables, into docs/camvid-benchmark.md

`plan.yaml` fixes budget, crops, steps, seeds and rules. Stop it when you like (Ctrl-C) and run the same command again: a stopped
run resumes, a finished one is scored, a scored one is left alone. Every run becomes one JSON file in benchmarks/results/<name of
the plan>. `--plan FILE` takes another plan than plan.yaml; give each its own --runs-root, or let plans of one teacher share it.
DIR holds ImageNet weights as `<backbone>.pth` with timm's names; without --weights, timm fetches its own from the hub.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pseudo
import torch
from plan import HERE, RESULTS, Plan, Planned, TeacherPlan, planned_runs, preset_of, read_plan, with_weights

from segctl.data.batches.loader import training_batches
from segctl.errors import InputError, SegctlError
from segctl.files import content_key, file_sha256, read_json, write_json
from segctl.runs import RunFolder
from segctl.schema.load import read_preset
from segctl.schema.run import TrainRun, with_steps
from segctl.schema.same_run import conflicts
from segctl.train.build import build_session
from segctl.train.compare import Job, run_jobs
from segctl.train.loop import take_step
from segctl.train.mask_stage import StageFolder, learn_stages
from segctl.train.session import Request

FORMS = {"float32": ("onnx", ()), "int8": ("onnx", ("--int8",))}


class Bench:
    """A plan, and where its data, runs, weights and results lie."""

    def __init__(self, plan: Plan, data_root: Path, runs_root: Path, weights: Path | None, results: Path) -> None:
        self.plan = plan
        self.data_root = data_root
        self.weights = weights
        self.results = results
        self.runs_root = runs_root
        self.planned = planned_runs(plan, runs_root, weights)
        self.teacher = RunFolder(runs_root / "teacher")

    # -- what is there

    def result(self, name: str) -> Path:
        return self.results / f"{name}.json"

    def is_done(self, run: Planned) -> bool:
        """Whether the result of a run is there. Raises InputError for a result or a folder of another run of that name."""
        if run.folder.path.exists() and (found := sorted(map(str, conflicts(run.folder.read_run(), run.run)))):
            raise InputError(
                f"'{run.folder.path}' has other settings than the plan: {'; '.join(found)}", "use another --runs-root"
            )
        if not self.result(run.name).is_file():
            return False
        if read_json(self.result(run.name))["key"] != run.key:
            raise InputError(
                f"'{self.result(run.name)}' is a result of other settings than the plan's",
                "give the plan another name, and its results another --results",
            )
        return True

    def spent_hours(self) -> float:
        """Core hours of the students' runs that have a result."""
        found = [read_json(self.result(run.name)) for run in self.planned if self.result(run.name).is_file()]
        return sum(float(each["seconds"]) for each in found) / 3600

    # -- doing it

    def everything(self) -> None:
        """Train, score and export all that is missing."""
        if self.plan.teacher is not None:
            self.train_teacher(self.plan.teacher)
        if self.plan.pseudo is not None:
            pseudo.prepare(self.plan.pseudo, self.teacher, self.data_root, self.segctl)
        self.students(self.planned)
        self.export()
        allowed = self.plan.budget.hours * self.plan.budget.cores
        print(f"done: the students' runs took {self.spent_hours():.2f} of {allowed:g} core hours")

    def students(self, planned: Sequence[Planned]) -> None:
        """Train those that are missing, several at once, and score each when it has ended."""
        missing = [run for run in planned if not self.is_done(run)]
        by_folder = {run.folder.path: run for run in missing}
        jobs = [Job(run.method, run.run, run.folder) for run in missing]
        places: list[str | None] = [None] * self.plan.parallel
        run_jobs(
            jobs,
            lambda job, device: self.command(by_folder[job.folder.path]),
            places,
            print,
            then=lambda job: self.score(by_folder[job.folder.path]),
        )
        for run in missing:  # trained by an earlier command that was stopped before it had scored
            if not self.is_done(run):
                self.score(run)

    def train_teacher(self, teacher: TeacherPlan) -> None:
        """Train the teacher and extend it until an extension gains too little."""
        result = self.result("teacher")
        preset = preset_of(teacher.preset)
        changes, file = with_weights(preset, (*self.plan.changes, *teacher.changes), self.weights)
        run = read_preset(preset, changes)
        key = content_key(
            {"run": with_steps(run, 1).model_dump(mode="json", exclude_defaults=True) | {"model": None}, "steps": teacher.steps}
        )
        if result.is_file():
            if read_json(result)["key"] != key:
                raise InputError(f"'{result}' is a result of another teacher than the plan's", "use another --results")
            if self.teacher.finished and read_json(result)["sha256"] == file_sha256(self.teacher.model):
                return
        kept = self.runs_root / "teacher-lengths.json"  # a longer teacher's folder has no scores of its shorter ones
        history: list[list[float]] = read_json(kept)["scores"] if kept.is_file() else []
        for steps in teacher.steps:
            if steps not in [length for length, _ in history]:
                self.teach(steps, preset, changes)
                self.segctl("eval", self.teacher.path, *self._scoring())
                history.append([steps, self.scores(self.teacher)["mIoU_D"]])
                write_json(kept, {"scores": history})
            if len(history) > 1 and history[-1][1] - history[-2][1] < teacher.least_gain:
                break
        sha256 = file_sha256(self.teacher.model)
        if result.is_file() and (earlier := read_json(result)["sha256"]) != sha256:  # it is lost, but students learnt from it
            result.rename(self.result(f"teacher-{earlier[:8]}"))
        about = {"name": "teacher", "key": key, "sha256": sha256, "history": history}
        write_json(result, about | self.facts(self.teacher, file))

    def teach(self, steps: int, preset: str, changes: Sequence[str]) -> None:
        """Train or extend the teacher to a number of steps."""
        folder = self.teacher
        reached = folder.read_run().train.steps if folder.path.exists() else 0
        if reached > steps or (reached == steps and folder.finished):
            return
        lengths = [f"train.steps={steps}", f"train.validate_every={steps}"]
        given = [word for change in [*changes, *lengths] for word in ("--set", change)]
        if reached == 0:
            self.segctl("train", "--preset", preset, *given, "--run", folder.path, "--data-root", self.data_root)
        elif reached == steps:
            self.segctl("train", "--resume", "--run", folder.path, "--data-root", self.data_root)
        else:
            every = ["--set", f"train.validate_every={steps}"]
            self.segctl("train", "--run", folder.path, "--extend-to", steps, *every, "--data-root", self.data_root)

    def command(self, run: Planned) -> list[str]:
        """The arguments of `segctl` that start a run, or resume it."""
        parts = [run.command, "--preset", run.preset, "--run", str(run.folder.path)]
        parts += ["--method", run.method] if run.command == "distill" else []
        parts += [word for change in (*run.changes, "data.workers=0") for word in ("--set", change)]
        parts += [] if run.method == "none" else ["--teacher", str(self.teacher.path)]
        parts += ["--data-root", str(self.data_root), "--runs-root", str(run.folder.path.parent)]
        return [*parts, "--resume"] if run.folder.path.exists() else parts

    def score(self, run: Planned) -> None:
        self.segctl("eval", run.folder.path, *self._scoring())
        about = {
            name: getattr(run, name)
            for name in ("name", "table", "student", "method", "loss", "labels", "variant", "seed", "key")
        }
        write_json(self.result(run.name), about | {"steps": run.run.train.steps} | self.facts(run.folder, run.weights))
        print(f"{run.name}: {self.scores(run.folder)['mIoU_D']:.2f} mIoU_D")

    def _scoring(self) -> list[object]:
        return ["--split", self.plan.split, "--calibration", "--boundary", "--data-root", self.data_root]

    def scores(self, folder: RunFolder) -> dict[str, Any]:
        found: dict[str, Any] = read_json(folder.evaluation(self.plan.split) / "scores.json")
        return found

    def facts(self, folder: RunFolder, weights: Path | None) -> dict[str, Any]:
        """What a result keeps of a run: no path of this machine."""
        scores, environment = self.scores(folder), folder.read_environment()
        kept = ("seconds", "seconds_per_step", "peak_memory_mb", "parameters", "cost", "device", "precision", "threads", "torch")
        teacher = (environment.get("teacher") or {}).get("sha256")
        own = folder.read_run().model
        return {
            "plan": self.plan.name,
            "commit": _commit(),
            "weights": own.weights
            if weights is None and own.weights in ("none", "timm")
            else _named(weights or Path(own.weights)),
            "teacher_sha256": teacher,
            "fingerprint": environment["dataset"]["fingerprint"],
            **{name: environment.get(name) for name in kept},
            "scores": {name: value for name, value in scores.items() if isinstance(value, int | float)},
            "per_class": scores["per_class"],
        }

    def export(self) -> None:
        """Export the chosen run of every student as float32 and int8, score both files, and time them in turns."""
        for name, student in self.plan.students.items():
            run = next(
                (r for r in self.planned if (r.table, r.student, r.method, r.seed) == ("methods", name, student.exported, 0)),
                None,
            )
            if run is None or self.result(f"export-{name}").is_file():
                continue
            forms: dict[str, dict[str, Any]] = {}
            for form, (format_, more) in FORMS.items():
                made = self.segctl(
                    "export", run.folder.path, "--format", format_, *more, "--data-root", self.data_root, json_=True
                )
                forms[form] = {"bytes": made["bytes"], "parity": made["parity"]}
            timed = self.segctl(
                "bench", run.folder.path, "--no-compile", "--threads", 1, "--data-root", self.data_root, json_=True
            )
            rows = [
                {name: row[name] for name in ("form", "median_ms", "p90_ms", "peak_mb", "file_mb", "gflop", "failure")}
                for row in timed["rows"]
            ]
            about = {"name": f"export-{name}", "key": run.key, "of": run.name, "plan": self.plan.name, "commit": _commit()}
            write_json(
                self.result(f"export-{name}"),
                about | {"forms": forms, "size": timed["size"], "threads": timed["threads"], "latency": rows},
            )

    def segctl(self, *words: object, json_: bool = False) -> Any:
        """Run a command of segctl; its output as JSON if asked for. Raises SegctlError if it fails."""
        arguments = [*map(str, words), *(["--json"] if json_ else [])]
        print(f"$ segctl {' '.join(arguments[:2])}", file=sys.stderr)
        done = subprocess.run([sys.executable, "-m", "segctl", *arguments], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SegctlError(
                f"`segctl {words[0]}` ended with exit code {done.returncode}", "see its message above; run the same command again"
            )
        return json.loads(done.stdout) if json_ else done.stdout

    # -- looking at it

    def list(self) -> None:
        """Print every run with its state."""
        done = [self.is_done(run) for run in self.planned]
        for run, is_done in zip(self.planned, done, strict=True):
            state = (
                "done" if is_done else "to score" if run.folder.finished else "to resume" if run.folder.path.exists() else "to do"
            )
            print(f"{state:10}{run.name}   {run.run.train.steps} steps")
        allowed = self.plan.budget.hours * self.plan.budget.cores
        steps = sum(run.run.train.steps for run in self.planned)
        print(f"{sum(done)} of {len(done)} runs done, {steps:,} steps in all; {self.spent_hours():.2f} of {allowed:g} core hours")

    def estimate(self, steps: int) -> None:
        """Print CPU seconds a step of every kind of run, and what the plan costs by them; start and scoring come on top.

        A step is what the training loop does between two validations, on one thread: reading its batch, the forward passes of
        student and teacher, the losses, the backward pass, the optimisers. The first step is not counted. The teacher has the
        plan's network and one step of training, because a teacher's knowledge costs nothing.
        """
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as place:
            trial = Bench(self.plan, self.data_root, Path(place), self.weights, Path(place))
            if (plan := self.plan.teacher) is not None:
                preset = preset_of(plan.preset)
                changes, _ = with_weights(preset, (*self.plan.changes, *plan.changes), self.weights)
                trial.teach(1, preset, changes)
                print(f"teacher: {self._step_cost(read_preset(preset, changes), None, steps):.3f} CPU s a step", flush=True)
            costs: dict[tuple[str | None, ...], float] = {}
            for run in self.planned:
                kind = (run.student, run.method, run.loss, run.labels, run.variant)
                if kind not in costs:
                    costs[kind] = self._step_cost(run.run, None if run.method == "none" else trial.teacher.path, steps)
                    print(f"{' '.join(filter(None, kind))}: {costs[kind]:.3f} CPU s a step", flush=True)
        total = sum(
            costs[run.student, run.method, run.loss, run.labels, run.variant] * run.run.train.steps for run in self.planned
        )
        allowed = self.plan.budget.hours * self.plan.budget.cores
        print(f"{len(self.planned)} runs: {total / 3600:.2f} of {allowed:g} core hours in steps")

    def _step_cost(self, run: TrainRun, teacher: Path | None, steps: int) -> float:
        spec = run.train
        session = build_session(Request(run, self.data_root, self.runs_root, teacher, device="cpu"))
        batches = training_batches(
            session.dataset, run.data.train_split, view=run.data, batch_size=spec.batch_size, seed=spec.seed,
            first_step=0, last_step=steps + 1, workers=0,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            learn_stages(session, StageFolder(Path(place), print, lambda *progress: None, "", most_steps=1))
        take_step(session, next(batches))
        began = time.process_time()
        for batch in batches:
            take_step(session, batch)
        return (time.process_time() - began) / steps


def _named(weights: Path) -> str:
    return f"{weights.name}, sha256 {file_sha256(weights)[:12]}"


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=HERE / "plan.yaml", help="default: the plan beside this file")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with ImageNet weights, <backbone>.pth")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--runs-root", type=Path, default=Path("runs/camvid"))
    parser.add_argument("--results", type=Path, help="default: the folder of the plan's name in benchmarks/results")
    parser.add_argument("--parallel", type=int, metavar="N", help="runs at once; default: the plan's")
    parser.add_argument("--undistilled", action="store_true", help="train only the runs that need no teacher")
    parser.add_argument("--list", action="store_true", help="print what is done and what is left, and train nothing")
    parser.add_argument("--estimate", type=int, metavar="N", help="measure N steps of every kind of run, and train nothing else")
    given = parser.parse_args()
    try:
        os.environ["OMP_NUM_THREADS"] = "1"
        plan = read_plan(given.plan)
        if given.parallel is not None:
            plan = plan.model_copy(update={"parallel": given.parallel})
        bench = Bench(plan, given.data_root, given.runs_root, given.weights, given.results or RESULTS / plan.name)
        if given.list:
            bench.list()
        elif given.estimate:
            bench.estimate(given.estimate)
        elif given.undistilled:
            bench.students([run for run in bench.planned if not run.needs_teacher])
        else:
            bench.everything()
    except SegctlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
