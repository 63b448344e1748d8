"""Several networks, or several views of one, as a single network whose logits are the logarithm of their mean probabilities."""

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from segctl.models.forward import ImageNetwork, forward_images, resized_images
from segctl.models.normalize import Normalizing
from segctl.models.outputs import Prediction, upsample
from segctl.pixel_types import PixelType


class AveragedNetwork(Normalizing):
    """The weighted mean of the probabilities of networks and of their views (scales, mirrored or not); never trained.

    logits: log of the mean, on the finest of the members' grids at scale 1, so a softmax gives the mean back. aux_logits: the
    same, if every member has them. features: those of the member `featured` at scale 1, not mirrored; None without one.
    All members have the same classes in the same order, take the same bands, and return the same kind of prediction.
    """

    def __init__(
        self,
        members: Sequence[Normalizing],
        weights: Sequence[float],
        class_names: Sequence[str],
        *,
        returns: type[Prediction] = Prediction,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        featured: int | None = None,
    ) -> None:
        """weights: above 0, one for each member; they are divided by their sum.  class_names, returns: the members' own.
        scales: with 1 among them."""
        super().__init__()
        self.members = nn.ModuleList(member.eval() for member in members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.scales, self.flip, self.featured = tuple(scales), flip, featured
        first = members[0]
        self.class_names, self.num_classes = list(class_names), len(class_names)
        self.returns = returns
        # For its number of bands, its device and the colour of padding; each member normalises images by its own.
        self.register_buffer("pixel_mean", first.pixel_mean.clone())
        self.register_buffer("pixel_std", first.pixel_std.clone())
        self.training = False

    @property
    def pixel_type(self) -> PixelType:
        """The type of the images that its members take."""
        return cast("Normalizing", self.members[0]).pixel_type

    def train(self, mode: bool = True) -> "AveragedNetwork":
        """Stay in eval: a mean of networks only teaches."""
        return self

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B, H, W, N) as they are, because every member normalises them in its own way."""
        return images

    def forward(self, images: Tensor) -> Prediction:
        """images: (B, H, W, N) of `pixel_type`. Raises InputError if a member cannot take a view."""
        networks = [cast("ImageNetwork", member) for member in self.members]  # a ModuleList forgets the type of what it holds
        plain = [forward_images(network, images) for network in networks]
        main = _Mean([found.logits for found in plain], self.returns)
        found_aux = [found.aux_logits for found in plain if found.aux_logits is not None]
        aux = _Mean(found_aux, self.returns) if len(found_aux) == len(plain) else None
        features = None if self.featured is None else plain[self.featured].features
        for index, (network, weight) in enumerate(zip(networks, self.weights, strict=True)):
            share = weight / (len(self.scales) * (2 if self.flip else 1))
            for scale, flipped in self._views():
                first = scale == 1 and not flipped
                view = resized_images(images, scale)
                found = plain[index] if first else forward_images(network, view.flip(2) if flipped else view)
                main.add(found.logits, share, flipped)
                if aux is not None and found.aux_logits is not None:
                    aux.add(found.aux_logits, share, flipped)
        return self.returns(main.total(), None if aux is None else aux.total(), features)

    def _views(self) -> Iterator[tuple[float, bool]]:
        for scale in self.scales:
            yield scale, False
            if self.flip:
                yield scale, True


class _Mean:
    """Adds up shares of probabilities as logarithms: none is rounded to 0, however sure the networks are."""

    def __init__(self, maps: Sequence[Tensor], returns: type[Prediction]) -> None:
        """maps: logits (B, C, h, w) of the members; the finest grid is taken.  returns: how they are resized."""
        self.size = (max(each.shape[2] for each in maps), max(each.shape[3] for each in maps))
        self.align_corners = returns(maps[0], None, None).align_corners
        self.sum: Tensor | None = None

    def add(self, logits: Tensor, share: float, flipped: bool) -> None:
        """logits: (B, C, h', w') of a view, which may be mirrored.  share: how much it counts, from 0 to 1."""
        resized = upsample(logits.to(torch.promote_types(logits.dtype, torch.float32)), self.size, self.align_corners)
        log = (resized.flip(3) if flipped else resized).log_softmax(1) + math.log(share)
        self.sum = log if self.sum is None else torch.logaddexp(self.sum, log)

    def total(self) -> Tensor:
        """The logarithm of the mean probabilities (B, C, h, w)."""
        assert self.sum is not None
        return self.sum
