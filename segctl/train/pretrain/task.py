"""The loss of one micro-batch of pretraining: images in, the distance of two maps of features out."""

from collections.abc import Callable

import torch
from torch import Tensor

from segctl.distillers.align import grid_of
from segctl.distillers.seen import mask_on_grid
from segctl.models import Segmenter, upsample
from segctl.models.external.features import FeatureNetwork
from segctl.runtime.phases import phase
from segctl.schema.labels import HardLabels
from segctl.schema.pretrain import PretrainSpec
from segctl.train.pretrain.match import Adapter, distance
from segctl.train.tasks import NO_EXTRA, WHOLE, Extra, Share, Step, SupervisedTask


def last_map(network: Segmenter, images: Tensor) -> Tensor:
    """Images uint8 (B, H, W, bands) -> the last map (B, D, h, w) of a network's backbone."""
    found: Tensor = network.backbone(network.normalize(images))[-1]
    return found


class PretrainTask(SupervisedTask):
    """A student whose backbone learns, an adapter, and a frozen teacher outside of the module.

    forward: images uint8 (B, H, W, bands); the label is not read.  `extra.unlabelled` are the pixels that count; None for all.
    """

    reads_labels = False
    teacher: FeatureNetwork

    def __init__(self, model: Segmenter, teacher: FeatureNetwork, spec: PretrainSpec) -> None:
        super().__init__(model, HardLabels(), ())
        self.spec = spec
        # The head is only the probe of validations: it is fitted there, and no gradient reaches it.
        for part in (model.head, model.classifier):
            part.requires_grad_(False)
        self.adapter = Adapter(model.backbone.channels[-1], teacher.channels, spec.adapter)
        # Plain assignment would make the teacher a submodule: saved with the student, and put into train mode.
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False))
        self._last_map: Callable[[Segmenter, Tensor], Tensor] = last_map

    def compile_networks(self, mode: str | None = None) -> None:
        """Compile the student's backbone. The teacher may do what the compiler cannot follow."""
        self._last_map = torch.compile(last_map, dynamic=False, mode=mode)
        self.compiled, self._recorded = ["student"], mode is not None

    def forward(self, images: Tensor, label: Tensor, share: Share = WHOLE, extra: Extra = NO_EXTRA) -> Step:
        with phase("student"):
            student = self.adapter(self._last_map(self.model, images))
        with phase("teacher"), torch.no_grad():
            teacher = self.teacher(self.teacher.normalize(images))
        with phase("loss"):
            grid = grid_of(teacher) if self.spec.grid == "teacher" else grid_of(student)
            pair = upsample(student.float(), grid), upsample(teacher.float(), grid)
            real = None if extra.unlabelled is None else mask_on_grid(extra.unlabelled, grid)
            value = share.images * distance(self.spec.method, *pair, real)
        return Step(value, {self.spec.method: value.detach()})
