"""Event files for TensorBoard, in the run's folder.

A new file tells TensorBoard to drop the steps that a resumed run takes again from the earlier files.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from segctl.data.files.pictures import decode
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.train.trackers.tracking import TrackerRecord


class Board:
    """Writes event files."""

    @staticmethod
    def require() -> None:
        import torch.utils.tensorboard  # noqa: F401

    def __init__(
        self, folder: RunFolder, run: TrainRun, record: TrackerRecord, steps_taken: int, note: Callable[[str], None]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        begun = folder.tensorboard.is_dir()
        record.sent = dict.fromkeys(("step", "validation", "images"), steps_taken) if begun else {}
        self.writer = SummaryWriter(str(folder.tensorboard), purge_step=steps_taken + 1 if begun and steps_taken else None)
        if not begun:
            preset = yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False)
            self.writer.add_text("preset", "\n".join(f"    {line}" for line in preset.splitlines()))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for curve, value in values.items():
            self.writer.add_scalar(curve, value, step)
        self.writer.flush()

    def show(self, step: int, images: Sequence[Path]) -> None:
        for rank, path in enumerate(images):
            self.writer.add_image(f"worst/{rank}", decode(path.read_bytes()), step, dataformats="HWC")
        self.writer.flush()

    def close(self, *, finished: bool) -> None:
        self.writer.close()
