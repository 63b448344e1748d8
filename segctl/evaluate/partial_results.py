"""What an evaluation has counted so far, on the disk, so that a second start goes on where a first one was stopped.

    eval/<split>/.parts/part-0000.npz ...     one a process and start, rewritten as it counts, removed at the end

Every part bears a key of all that decides what its numbers are (weights, data, protocol, precision, what is counted); parts of
another key are dropped.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from segctl.errors import StoppedError
from segctl.files import content_key, write_whole
from segctl.metrics.tally import Counted, Tally, read_part, write_part
from segctl.runtime.signals import Requests
from segctl.runtime.world import World

EVERY_S = 30.0


class Keeper:
    """Keeps the parts of one evaluation."""

    def __init__(self, folder: Path, about: dict[str, Any], requests: Requests | None = None, every_s: float = EVERY_S) -> None:
        self.folder, self.every_s, self.requests = folder, every_s, requests
        self.key = content_key(about)
        self._path = folder / "part-0000.npz"
        self._saved = time.monotonic()

    def take_up(self, world: World) -> list[Counted]:
        """What earlier starts counted under the same key, the same on every process."""
        found = {path.name: read_part(path, self.key) for path in sorted(self.folder.glob("part-*.npz"))}
        # As the main process sees it, after all have looked: nobody writes before that.
        names, parts = world.gather((list(found), [part for part in found.values() if part is not None]))[0]
        first = max((int(name[5:-4]) for name in names), default=-1) + 1
        self._path = self.folder / f"part-{first + world.rank:04d}.npz"
        return parts

    def after_batch(self, tally: Tally) -> None:
        """Save now and then, and before ending at a signal's wish. Raises StoppedError for that."""
        stop = None if self.requests is None else self.requests.stop
        if stop is not None or time.monotonic() - self._saved >= self.every_s:
            self.keep(tally.counted())
        if stop is not None:
            raise StoppedError(
                stop, f"stopped by {stop.name} after {len(tally.names)} more images", "run the same command again to go on"
            )

    def keep(self, counted: Counted) -> None:
        """Save what this process has counted since it started."""
        write_whole(self._path, lambda partial: write_part(partial, counted, self.key))
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Everything is counted and written: the parts are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
