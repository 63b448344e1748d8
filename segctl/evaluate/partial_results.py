"""Partial counts of an evaluation on disk, so that an evaluation that was stopped can resume.

    eval/<split>/.parts/part-0000.npz ...     one for each process and start, rewritten every 30 s, removed at the end

Each part carries a key of everything that decides its numbers: weights, data, protocol, precision and what is counted. Parts with
another key are ignored.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from segctl.errors import StoppedError
from segctl.files import content_key
from segctl.metrics.store import load_part, save_part
from segctl.metrics.tally import EvaluationCounts, Tally
from segctl.runtime.signals import Requests
from segctl.runtime.world import World

EVERY_S = 30.0


class PartialResults:
    """The parts of one evaluation. about: the JSON values that decide its numbers.  requests: the signals to stop for."""

    def __init__(self, folder: Path, about: dict[str, Any], requests: Requests | None = None, every_s: float = EVERY_S) -> None:
        self.folder, self.every_s, self.requests = folder, every_s, requests
        self.key = content_key(about)
        self._path = folder / "part-0000.npz"
        self._saved = time.monotonic()

    def resume(self, world: World) -> list[EvaluationCounts]:
        """What earlier starts counted under the same key; the same list on every process."""
        found = {path.name: load_part(path, self.key) for path in sorted(self.folder.glob("part-*.npz"))}
        # All processes use what the main process found. The gather is also a barrier: none writes a part before all have looked.
        names, parts = world.gather((list(found), [part for part in found.values() if part is not None]))[0]
        first = max((int(name[5:-4]) for name in names), default=-1) + 1
        self._path = self.folder / f"part-{first + world.rank:04d}.npz"
        return parts

    def after_batch(self, tally: Tally) -> None:
        """Save every `every_s` seconds, and at once where a signal asked to stop. Raises StoppedError in that case."""
        stop = None if self.requests is None else self.requests.stop
        if stop is not None or time.monotonic() - self._saved >= self.every_s:
            self.save(tally.counts())
        if stop is not None:
            raise StoppedError(
                stop, f"stopped by {stop.name} after {len(tally.names)} more images", "run the same command again to resume"
            )

    def save(self, counts: EvaluationCounts) -> None:
        """Save what this process has counted since it started."""
        save_part(self._path, counts, self.key)
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Remove the parts, once the whole evaluation is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
