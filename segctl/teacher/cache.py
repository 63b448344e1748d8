"""What is kept of a teacher's answers, and where: every picture's of the training split, beside the runs.

    <runs root>/.answers/<key>/      see data/batches/teacher_outputs.py

They are made before step 1 (asking.py) instead of kept as the first epoch's steps hear them, because then every step of every run
reads the same bytes, whatever its batches, its processes and where it was stopped, and the teacher can leave the device.
The key is a hash of all that the answers depend on, so runs of any method with the same teacher, data and view share them.
"""

import hashlib
import shutil
from pathlib import Path

import torch
from torch import Tensor

from segctl.data.batches.fixed_views import require_fixed, sides
from segctl.data.batches.teacher_outputs import Answers, Part
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.files import content_key
from segctl.models.outputs import Prediction
from segctl.runtime.device import Compute
from segctl.schema.distill_terms import reads
from segctl.schema.run import DistillRun
from segctl.teacher.load import Teacher

FOLDER = ".answers"
FORMAT = 1


def plan_answers(
    run: DistillRun, dataset: PreparedDataset, teacher: Teacher, compute: Compute, *, processes: int, runs_root: Path
) -> Answers | None:
    """What a run will keep of its teacher's answers, where it wants that. Writes nothing.

    Raises InputError where the views are not fixed, or the disk lacks the room.
    """
    if not run.teacher.cache:
        return None
    split = run.data.train_split
    require_fixed(dataset, split, run.data, "teacher.cache")
    at_once = _at_once(run, processes)
    key = _key(run, dataset, teacher, compute, at_once)
    black = torch.zeros((at_once, *run.data.crop, 3), dtype=torch.uint8)
    answer = ask(teacher, black, compute)
    parts = tuple(Part.of(name, answer[name]) for name in _read_parts(run) if name in answer)
    answers = Answers(runs_root / FOLDER / key, parts, tuple(dataset.names(split)), sides(run.data), at_once)
    _require_room(answers, runs_root)
    return answers


def in_words(answers: Answers) -> str:
    """What is kept, how large it is, and how much of it is there."""
    lacking, total = answers.lacking_bytes() / 1e6, answers.total_bytes() / 1e6
    seen = " and ".join("mirrored" if mirrored else "plain" for mirrored in answers.sides)
    there = "all there" if lacking == 0 else f"{lacking:,.1f} MB to be made before step 1"
    return (
        f"teacher's answers {', '.join(part.name for part in answers.parts)}   {len(answers.names)} images, {seen}   "
        f"{total:,.1f} MB in '{answers.folder}', {there}"
    )


def _at_once(run: DistillRun, processes: int) -> int:
    """Images of one forward pass in training, which the last digits of an answer may depend on."""
    share = -(-run.train.batch_size // processes)
    return -(-share // min(run.train.accumulate, max(1, run.train.batch_size // processes)))


def _read_parts(run: DistillRun) -> list[str]:
    """What the terms read of an answer; the main logits always, which are small."""
    read = {reads(term) or "features" for term in run.distiller.terms}
    return ["main", *sorted(read - {"main"})]


def _key(run: DistillRun, dataset: PreparedDataset, teacher: Teacher, compute: Compute, at_once: int) -> str:
    """A hash of all that an answer depends on."""
    names = dataset.names(run.data.train_split)
    about = {
        "format": FORMAT,
        "teacher": teacher.sha256,
        "data": dataset.fingerprint,
        "names": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "view": run.data.model_dump(mode="json", include={"crop", "scale", "padding"}),
        "classes": list(dataset.classes.names),
        "precision": compute.precision,
        "device": compute.device.type,
        "deterministic": run.train.deterministic,
        "at_once": at_once,
    }
    return content_key(about)[:16]


@torch.inference_mode()
def ask(teacher: Teacher, images: Tensor, compute: Compute) -> dict[str, Tensor]:
    """The parts of the answer to pictures uint8 (B, H, W, 3), as a training step hears it."""
    network = teacher.model
    with compute.autocast():
        answer: Prediction = network(network.normalize(images.to(compute.device)))
    parts = {"main": answer.logits, "aux": answer.aux_logits, "features": answer.features}
    return {name: maps for name, maps in parts.items() if maps is not None}


def _require_room(answers: Answers, runs_root: Path) -> None:
    there = next(path for path in (runs_root, *runs_root.absolute().parents) if path.exists())
    free, wanted = shutil.disk_usage(there).free, answers.lacking_bytes()
    if wanted > free:
        raise InputError(
            f"teacher.cache: the teacher's answers take {wanted / 1e6:,.1f} MB more in '{answers.folder}', "
            f"and {free / 1e6:,.1f} MB are free there",
            "make room, give another --runs-root, or leave teacher.cache false",
        )
