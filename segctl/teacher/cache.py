"""The teacher cache: the teacher's outputs for all training images, computed before step 1 and stored beside the runs.

    <runs root>/.answers/<key>/      see data/batches/teacher_outputs.py

Filling it before step 1, and not during the first epoch, lets every step of every run read the same bytes, whatever its batches,
its processes and where it was stopped; and the teacher can leave the device.
The key is a hash of everything that the outputs depend on, so runs of any method with the same teacher, data and view share
them.
"""

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segctl.data.batches.fixed_views import fixed_view, require_fixed, sides
from segctl.data.batches.micro_batches import largest_micro_batch
from segctl.data.batches.teacher_outputs import Chunk, OutputMap, TeacherOutputs
from segctl.data.batches.views import read_view
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError, StoppedError
from segctl.files import content_key, file_sha256
from segctl.models.forward import forward_images
from segctl.runtime.device import Compute
from segctl.runtime.signals import requests_between_steps
from segctl.runtime.world import World
from segctl.schema.data import DataSpec
from segctl.schema.run import DistillRun
from segctl.teacher.load import Teacher

CACHE_FOLDER = ".answers"
CACHE_FORMAT = 1

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class TeacherCache:
    """The files of a run's cache, and what computes them."""

    outputs: TeacherOutputs
    teacher: Teacher
    dataset: PreparedDataset
    view: DataSpec
    compute: Compute

    def __str__(self) -> str:
        """Which maps the cache holds, how large they are, and how much is still to compute."""
        outputs = self.outputs
        missing, total = outputs.missing_bytes() / 1e6, outputs.total_bytes() / 1e6
        seen = " and ".join("mirrored" if mirrored else "plain" for mirrored in outputs.sides)
        state = "complete" if missing == 0 else f"{missing:,.1f} MB to compute before step 1"
        return (
            f"teacher cache {', '.join(each.name for each in outputs.maps)}   {len(outputs.names)} images, {seen}   "
            f"{total:,.1f} MB in '{outputs.folder}', {state}"
        )

    def fill(self, world: World, note: Callable[[str], None], advance: Advance, resume_line: str) -> None:
        """Compute the missing files, each process some of them; afterwards the teacher's network moves to the CPU.

        Raises StoppedError on Ctrl-C and SIGTERM; finished files are kept.
        """
        began, missing = time.perf_counter(), self.outputs.missing_bytes()
        world.together(lambda: self._fill_share(world, advance, resume_line))
        self.teacher.model.to("cpu")
        if missing:
            note(f"teacher cache filled in {time.perf_counter() - began:.0f} s; the steps read it")

    def _fill_share(self, world: World, advance: Advance, resume_line: str) -> None:
        mine = [chunk for chunk in self.outputs.chunks()[world.rank :: world.size] if self.outputs.missing(chunk)]
        # Another run may fill the same cache now. Each goes through the files in its own order and skips those that the other
        # has finished by then, so that they share the work without knowing each other.
        random.Random(os.getpid()).shuffle(mine)
        with requests_between_steps() as requests:
            for done, chunk in enumerate(mine, 1):
                self._compute(chunk)
                advance(done, len(mine))
                if requests.stop and done < len(mine):
                    message = (
                        f"stopped by {requests.stop.name} after {done} of {len(mine)} files of the teacher cache; they are kept"
                    )
                    raise StoppedError(requests.stop, message, f"resume with `{resume_line}`")

    def _compute(self, chunk: Chunk) -> None:
        """Compute and write the files that a chunk lacks."""
        outputs = self.outputs
        missing = outputs.missing(chunk)
        computed: list[dict[str, Tensor]] = []
        for start in range(0, len(chunk.samples) if missing else 0, outputs.forward_batch):
            samples = chunk.samples[start : start + outputs.forward_batch]
            maps = teacher_maps(self.teacher, self._images(samples, chunk.mirrored), self.compute)
            computed.append({each.name: maps[each.name][: len(samples)].cpu() for each in missing})
        for each in missing:
            outputs.write(chunk, each, torch.cat([maps[each.name] for maps in computed]))

    def _images(self, samples: range, mirrored: bool) -> Tensor:
        """The views (B, H, W, bands) of the dataset's type. B is always `forward_batch`: the last one fills the batch."""
        names = [self.outputs.names[index] for index in samples]
        views = [read_view(self.dataset, name, fixed_view(self.dataset.size(name), self.view, mirrored))[0] for name in names]
        return torch.from_numpy(np.stack(views + views[-1:] * (self.outputs.forward_batch - len(views))))


def plan_teacher_cache(
    run: DistillRun, dataset: PreparedDataset, teacher: Teacher, compute: Compute, *, processes: int, runs_root: Path
) -> TeacherCache:
    """The cache of a run with teacher.cache. Writes nothing.

    Raises InputError if the views are not fixed, or the disk has too little space.
    """
    require_fixed(dataset, run.data.train_split, run.data, "teacher.cache")
    forward_batch = largest_micro_batch(run.train.batch_size, run.train.accumulate, processes)
    found = teacher_maps(teacher, teacher.model.blank(forward_batch, run.data.crop), compute)
    maps = tuple(OutputMap.of(name, found[name]) for name in _map_names(run) if name in found)
    folder = runs_root / CACHE_FOLDER / _key(run, dataset, teacher, compute, forward_batch)
    outputs = TeacherOutputs(folder, maps, tuple(dataset.names(run.data.train_split)), sides(run.data), forward_batch)
    _require_space(outputs, runs_root)
    return TeacherCache(outputs, teacher, dataset, run.data, compute)


def _map_names(run: DistillRun) -> list[str]:
    """The maps that the terms read, and always the main logits, which are small."""
    read = {part for term in run.distiller.terms for part in term.reads}
    return ["main", *sorted(read - {"main"})]


def _key(run: DistillRun, dataset: PreparedDataset, teacher: Teacher, compute: Compute, forward_batch: int) -> str:
    """A hash of everything that the outputs depend on."""
    names = dataset.names(run.data.train_split)
    about = {
        "format": CACHE_FORMAT,
        "teacher": teacher.sha256,
        "data": dataset.fingerprint,
        "names": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "view": run.data.model_dump(mode="json", include={"crop", "scale", "padding"}),
        "classes": list(dataset.classes.names),
        "precision": compute.precision,
        "device": compute.device.type,
        "deterministic": run.train.deterministic,
        "at_once": forward_batch,
        "folded": True,  # see `segctl.models.folded`; earlier versions kept batch norms
    }
    if run.teacher.averages_views:
        about["views"] = [list(run.teacher.scales), run.teacher.flip]
    # They say how a program sees images, and the program's hash does not cover them.
    facts = [each.path.with_suffix(".json") for each in teacher.networks if each.is_program]
    if known := [file_sha256(file) for file in facts if file.is_file()]:
        about["facts"] = known[0] if len(teacher.networks) == 1 else known
    return content_key(about)[:16]


@torch.inference_mode()
def teacher_maps(teacher: Teacher, images: Tensor, compute: Compute) -> dict[str, Tensor]:
    """The maps (B, D, h, w) of the teacher's output by name, for images (B, H, W, bands), as a training step computes them."""
    with compute.autocast():
        prediction = forward_images(teacher.model, images.to(compute.device))
    maps = {"main": prediction.logits, "aux": prediction.aux_logits, "features": prediction.features}
    return {name: found for name, found in maps.items() if found is not None}


def _require_space(outputs: TeacherOutputs, runs_root: Path) -> None:
    existing = next(path for path in (runs_root, *runs_root.absolute().parents) if path.exists())
    free, wanted = shutil.disk_usage(existing).free, outputs.missing_bytes()
    if wanted > free:
        raise InputError(
            f"teacher.cache: the teacher's outputs need {wanted / 1e6:,.1f} MB more in '{outputs.folder}', "
            f"and only {free / 1e6:,.1f} MB are free there",
            "free disk space, give another --runs-root, or leave teacher.cache false",
        )
