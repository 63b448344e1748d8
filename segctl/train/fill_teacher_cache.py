"""Ask the teacher before step 1 for all answers that a run reads, so far as they are not kept already."""

import os
import random
import time

import numpy as np
import torch
from torch import Tensor

from segctl.data.batches.fixed_views import fixed_view
from segctl.data.batches.teacher_outputs import Answers, Piece
from segctl.data.batches.views import read_view
from segctl.errors import StoppedError
from segctl.runtime.signals import requests_between_steps
from segctl.teacher.cache import ask
from segctl.train.run_log import RunLog
from segctl.train.session import Session


def ask_ahead(session: Session, log: RunLog, resume_line: str) -> None:
    """Have everything in the files, by all processes, each some of them; the teacher's network then leaves the device.

    Raises StoppedError on Ctrl-C and SIGTERM, with every whole file kept.
    """
    answers, teacher = session.answers, session.teacher
    if answers is None or teacher is None:
        return
    began, lacked = time.perf_counter(), answers.lacking_bytes()
    session.world.together(lambda: _ask_share(session, answers, log, resume_line))
    teacher.model.to("cpu")
    if lacked:
        log.note(f"the teacher has answered, in {time.perf_counter() - began:.0f} s; it is not asked again")


def _ask_share(session: Session, answers: Answers, log: RunLog, resume_line: str) -> None:
    """This process's files. Another run may be at them at the same time: each takes them in an order of its own, and leaves out
    those that the other has made by then."""
    mine = [piece for piece in answers.pieces()[session.world.rank :: session.world.size] if answers.lacking(piece)]
    random.Random(os.getpid()).shuffle(mine)
    with requests_between_steps() as requests:
        for done, piece in enumerate(mine, 1):
            _make(session, answers, piece)
            log.watch.advance("asking the teacher", done, len(mine))
            if requests.stop and done < len(mine):
                message = f"stopped by {requests.stop.name} after {done} of {len(mine)} files of the teacher's answers; they stay"
                raise StoppedError(requests.stop, message, f"go on with `{resume_line}`")


def _make(session: Session, answers: Answers, piece: Piece) -> None:
    """The files of one piece, those parts that it lacks."""
    assert session.teacher is not None
    lacking = answers.lacking(piece)
    heard: list[dict[str, Tensor]] = []
    for start in range(0, len(piece.samples) if lacking else 0, answers.at_once):
        samples = piece.samples[start : start + answers.at_once]
        answer = ask(session.teacher, _pictures(session, answers, samples, piece.mirrored), session.compute)
        heard.append({part.name: answer[part.name][: len(samples)].cpu() for part in lacking})
    for part in lacking:
        answers.write(piece, part, torch.cat([maps[part.name] for maps in heard]))


def _pictures(session: Session, answers: Answers, samples: range, mirrored: bool) -> Tensor:
    """The views uint8 (B, H, W, 3), the last repeated up to the number that the teacher is always given."""
    dataset, spec = session.dataset, session.run.data
    names = [answers.names[index] for index in samples]
    views = [read_view(dataset, name, fixed_view(dataset.size(name), spec, mirrored))[0] for name in names]
    return torch.from_numpy(np.stack(views + views[-1:] * (answers.at_once - len(views))))
