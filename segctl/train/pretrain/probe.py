"""The linear probe: how well a linear layer tells classes apart by a backbone's features, without training it by gradients.

Ridge regression of the labels (one column a class, 1 where a place shows it) on the last map's features, in closed form, so it
has no seed and no learning rate. Its weights become the network's own batch norm and classifier, and then the ordinary validation
scores the network, under the run's protocol and at the labels' full size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segctl.data.batches.views import names_without_label
from segctl.data.shards.dataset import PreparedDataset
from segctl.distillers.align import grid_of, label_on_grid
from segctl.ignored import IGNORED
from segctl.models import Segmenter
from segctl.schema.run import PretrainRun
from segctl.train.pretrain.task import last_map
from segctl.train.session import Session

RIDGE = 1e-3
"""The penalty beside features of deviation 1 and a mean over places."""


def probe_names(dataset: PreparedDataset, run: PretrainRun) -> list[str]:
    """The labelled pictures that the probe is fitted to: at most `probe_images`, evenly spread over the names of the split.

    Empty where the validation split has no labels to score it.
    """
    if not all(map(dataset.has_label, dataset.names(run.data.val_split))):
        return []
    split = run.pretrain.probe_split
    if split not in dataset.splits:
        return []
    known = sorted({*dataset.names(split)} - names_without_label(dataset, split, run.data.labelled))
    count = min(run.pretrain.probe_images, len(known))
    return [known[index * len(known) // count] for index in range(count)]


def fit_probe(session: Session, model: Segmenter, advance: Callable[[int, int], None]) -> bool:
    """Fit the head of `model` to some labelled pictures. Returns whether any of them has a labelled place; else nothing changes.

    The processes share the pictures, and all of them get the same head.  advance: called with (pictures done, pictures).
    """
    assert isinstance(session.run, PretrainRun)
    names, world, device = probe_names(session.dataset, session.run), session.world, session.compute.device
    channels, classes = model.backbone.channels[-1], model.num_classes
    sums = torch.zeros(channels + 1, channels + 1 + classes, dtype=torch.float64)
    was_training = model.training
    model.eval()
    try:
        for done, name in enumerate(own := names[world.rank :: world.size], start=1):
            image = torch.from_numpy(session.dataset.image(name)).unsqueeze(0).to(device)
            label = torch.from_numpy(session.dataset.label(name)).unsqueeze(0)
            with torch.no_grad(), session.compute.autocast():
                sums += place_sums(last_map(model, image), label, classes)
            advance(done, len(own))
    finally:
        model.train(was_training)
    sums = world.total(sums)
    if not bool(sums[-1, -1 - classes]):
        return False
    set_head(model, sums)
    return True


def place_sums(features: Tensor, label: Tensor, classes: int) -> Tensor:
    """[x, 1]ᵀ [x, 1, y] summed over the labelled places: float64 (D + 1, D + 1 + C) on the CPU.

    features: (B, D, h, w); label uint8 (B, H, W), read at the middle of each place.
    """
    at_places = label_on_grid(label, grid_of(features)).flatten()
    keep = (at_places != IGNORED) & (at_places < classes)
    x = features.movedim(1, -1).flatten(0, -2).double().cpu()[keep]
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    y = nn.functional.one_hot(at_places[keep], classes).double()
    return x.T @ torch.cat([x, y], dim=1)


@torch.no_grad()
def set_head(model: Segmenter, sums: Tensor) -> None:
    """Write the ridge regression of `place_sums`, float64 (D + 1, D + 1 + C), into a linear head's batch norm and classifier."""
    norm = model.head.norm
    assert isinstance(norm, nn.BatchNorm2d)
    channels, classes = norm.num_features, model.num_classes
    count = sums[-1, channels]
    mean, per_class = sums[-1, :channels] / count, sums[-1, channels + 1 :] / count
    covariance = sums[:channels, :channels] / count - mean.outer(mean)
    variance = covariance.diagonal().clamp(min=0).clone()
    deviation = (variance + norm.eps).sqrt()
    gram = covariance / deviation.outer(deviation) + RIDGE * torch.eye(channels, dtype=torch.float64)
    wanted = (sums[:channels, channels + 1 :] / count - mean.outer(per_class)) / deviation.unsqueeze(1)
    weight = torch.linalg.solve(gram, wanted)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.fill_(1)
    norm.bias.zero_()
    model.classifier.weight.copy_(weight.T.reshape(classes, channels, 1, 1))
    assert model.classifier.bias is not None
    model.classifier.bias.copy_(per_class)
