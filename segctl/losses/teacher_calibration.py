"""Calibrate a teacher's probabilities where it is wrong or at a boundary: kernel regression over the probability simplex."""

from collections.abc import Sequence

import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.pixels import check_class_ids, check_shapes, log_or_lowest, wide_dtype
from segctl.losses.soft_labels import boundary
from segctl.runtime.upload import upload

CHUNK = 1 << 22
"""Largest number of pixel-key pairs at once: 32 MiB of float64."""


def calibrate(
    probabilities: Tensor,
    label: Tensor,
    *,
    keys: int,
    bandwidth: float,
    balanced: bool = True,
    kernel_size: int = 3,
) -> Tensor:
    """Replace q, at pixels of a wrong class or on a boundary, by the mean label of pixels whose probabilities are near q.

    q' = sum_k κ(q; q_k) onehot(y_k) / sum_k κ(q; q_k), κ(·; q_k) the Dirichlet density with parameters q_k / bandwidth + 1,
    over `keys` pixels k of the same image, drawn by torch's global generator: the same number of each class in the label
    (balanced), or any valid pixels. A class with fewer pixels gives all of them; a pixel may be its own key.
    kernel_size: the window of `segctl.losses.soft_labels.boundary`.

    probabilities (B, C, H, W); label integer (B, H, W), 255 ignored. Returns (B, C, H, W) without gradient; other pixels
    are unchanged. Raises ArgumentError for other shapes, keys below 1 and a bandwidth that is not above 0.
    Source: the calibration step of JML-KD, arXiv:2302.05666, with the Dirichlet-kernel estimator of Popordanoska, Sayer and
    Blaschko (NeurIPS 2022).  No number of keys and no bandwidth is published, so neither has a default.
    """
    check_shapes(probabilities, label, None)
    label = label.long()
    check_class_ids(label, label != IGNORED, probabilities.shape[1])
    if keys < 1 or not bandwidth > 0:
        raise ArgumentError(f"got keys {keys} and bandwidth {bandwidth}, wanted at least 1 and above 0")
    q = probabilities.detach()
    valid = label != IGNORED
    wrong = valid & (q.argmax(1) != label)
    replaced = (wrong | (valid & boundary(label, kernel_size))).flatten(1)
    flat = label.flatten(1)
    sizes = torch.cat([_class_sizes(flat, q.shape[1]), replaced.sum(1, keepdim=True)], 1).tolist()  # a GPU is asked once
    result = q.clone(memory_format=torch.contiguous_format).flatten(2)
    for image, of_image in enumerate(q.flatten(2)):
        *of_classes, number = sizes[image]
        chosen = draw_keys(flat[image], of_classes, keys, balanced)
        # As nonzero, whose length a GPU would have to tell: a stable sort puts the pixels to replace first, in their order.
        queries = replaced[image].to(torch.uint8).argsort(descending=True, stable=True)[:number]
        means = _mean_labels(of_image[:, queries], of_image[:, chosen], flat[image, chosen], bandwidth)
        result[image, :, queries] = means.to(result.dtype)
    return result.view_as(q)


def _class_sizes(label: Tensor, num_classes: int) -> Tensor:
    """How many pixels each class has in each image: labels int64 (B, N), 255 ignored -> int64 (B, C)."""
    slots = torch.where(label == IGNORED, num_classes, label)
    return label.new_zeros(len(label), num_classes + 1).scatter_add(1, slots, torch.ones_like(slots))[:, :-1]


def draw_keys(label: Tensor, sizes: Sequence[int], keys: int, balanced: bool) -> Tensor:
    """The places int64 (K,) of key pixels in a flat label int64 (N,): without repetition, none of them ignored.

    sizes: how many pixels of the label each class has.  The draws are those of the CPU's generator, whose state is in every
    checkpoint.
    """
    if not balanced:
        order, sizes = (label == IGNORED).to(torch.uint8).argsort(stable=True), [sum(sizes)]
    else:
        order = label.argsort(stable=True)  # class by class, each in its order; ignored pixels last
    present = sum(size > 0 for size in sizes)
    if not present:
        return label.new_zeros(0)
    share, first, drawn = -(-keys // present), 0, []
    for size in sizes:
        if size:
            drawn.append(first + torch.randperm(size)[:share])
        first += size
    return order[upload(torch.cat(drawn), label.device)]


def _mean_labels(q: Tensor, keys: Tensor, key_ids: Tensor, bandwidth: float) -> Tensor:
    """Probabilities q (C, N) and keys (C, K) of classes key_ids (K,) -> mean labels (C, N) in `wide_dtype`.

    The densities' logarithms reach thousands, so a softmax over the keys normalises them as logarithms. The gamma function of
    the parameters' sum is the same for every key and cancels.
    """
    wide = wide_dtype(q.device)
    parameters = keys.to(wide) / bandwidth + 1
    log_constants = -parameters.lgamma().sum(0)
    one_hot = torch.nn.functional.one_hot(key_ids, len(q)).to(wide)
    length = max(1, CHUNK // max(1, len(key_ids)))
    means = [
        (log_or_lowest(part.to(wide)).T @ (parameters - 1) + log_constants).softmax(1) @ one_hot
        for part in torch.split(q, length, dim=1)
    ]
    return torch.cat(means).T
