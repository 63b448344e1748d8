"""An exported file in place of its run's network, so that it is evaluated in every respect as the network is."""

import numpy as np
import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.outputs import Prediction
from segctl.pixel_types import LARGEST
from segctl.programs import Program
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol

_SMALLEST = 1e-30
"""Probabilities of 0 are moved here before their logarithm."""


class ProgramNetwork(nn.Module):
    """Images (B, H, W, N) of the type that the file takes -> Prediction whose logits (B, C, H, W) are those of the file.

    Probabilities become their logarithms, which have the same softmax. Labels become 1 at the class and 0 elsewhere, which have
    the same classes, and nothing else: see `require_program_fits`.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.class_names = list(program.class_names)
        self.num_classes = len(self.class_names)
        self.training = False
        # The colour around small images; the file normalises them itself.
        self.pixel_mean = torch.tensor(program.facts.mean).mul(LARGEST[program.facts.input]).view(1, -1, 1, 1)

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B, H, W, N) as they are: the file normalises them itself."""
        return images

    def forward(self, images: Tensor) -> Prediction:
        found = torch.from_numpy(np.ascontiguousarray(self.program.run(images.cpu().numpy()))).to(images.device)
        match self.program.facts.output:
            case "labels":
                logits = torch.zeros(len(found), self.num_classes, *found.shape[1:], device=found.device)
                logits.scatter_(1, found[:, None].long(), 1.0)
            case "logits":
                logits = found
            case "probabilities":
                logits = found.clamp(min=_SMALLEST).log()
        return Prediction(logits, None, None)


def require_program_fits(program: Program, protocol: EvaluateSpec, weights_sha256: str, *, calibration: bool = False) -> None:
    """Raise InputError for a file of another run, and for labels where a protocol averages or calibration wants probabilities."""
    facts, where = program.facts, f"'{program.path}'"
    if facts.weights_sha256 != weights_sha256:
        raise InputError(f"{where} was exported from other weights than this run's", "export this run again")
    averages = isinstance(protocol.protocol, SlidingProtocol) or protocol.scales != (1.0,) or protocol.flip
    if facts.output == "labels" and (averages or calibration):
        why = "--calibration wants probabilities" if calibration else "the protocol averages tiles or views"
        raise InputError(
            f"{where} returns only labels, but {why}",
            "export the run with --output logits"
            + ("" if calibration else ", or score whole images (--protocol whole --scales 1 --no-flip)"),
        )
