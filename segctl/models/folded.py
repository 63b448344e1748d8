"""A frozen network in the form that runs fastest: batch norms folded into convolutions, weights in the precision it runs in."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segctl.models.averaged import AveragedNetwork
from segctl.models.external.features import FeatureNetwork
from segctl.models.heads.blocks import PooledBatchNorm2d
from segctl.models.segmenter import Segmenter
from segctl.models.timm_backbone import behind_timm_norm, fused, is_plain_convolution

N = TypeVar("N", bound=nn.Module)

FOLDED_TOLERANCE = 1e-3
"""Largest difference from the network's own outputs in float32, relative to the largest number of each. Rounding gives 1e-6."""
NOISE_SIZE = (64, 96)
"""Height and width of the picture of noise that networks are tried with."""


def folded_network(network: nn.Module, dtype: torch.dtype) -> tuple[Any, int]:
    """The folded copy of a network, or an ensemble whose members are replaced by theirs; and how many batch norms were folded."""
    if isinstance(network, AveragedNetwork):
        total = 0
        for index, member in enumerate(network.members):
            network.members[index], count = folded_network(member, dtype)
            total += count
        return network, total
    return folded(network, _outputs, dtype) if isinstance(network, Segmenter | FeatureNetwork) else (network, 0)


def _outputs(network: Any) -> Sequence[Tensor]:
    """What a network returns for a picture of noise."""
    images = torch.randn(1, network.bands, *NOISE_SIZE, generator=torch.Generator().manual_seed(0))
    found = network(images)
    return [found] if isinstance(found, Tensor) else [each for each in found if each is not None]


def folded(network: N, outputs: Callable[[N], Sequence[Tensor]], dtype: torch.dtype = torch.float32) -> tuple[N, int]:
    """A copy of a network on the CPU, in eval mode and for inference only, and how many batch norms were folded in it.

    A batch norm is folded into a convolution if nothing else reads what the convolution gives, hooks included. Re-parameterised
    blocks become one convolution each. dtype: that of autocast when the copy runs; layers that autocast would cast at every call
    keep their weights in it, which are the same numbers.  outputs: runs a network on images of its own and gives its outputs.

    The copy is tried against the network; if they differ, or folding fails, the copy has only its weights cast.
    """
    network = network.eval()
    copy = cast("N", fused(network))
    with torch.no_grad():
        seen = _Seen.of(copy, outputs, dtype)
        plain = deepcopy(copy)
        pairs = _fold(copy, seen, dtype)
        if pairs and not _alike(copy, plain, outputs):
            copy, pairs = plain, 0
            seen = _Seen.of(copy, outputs, dtype)
        if dtype != torch.float32:
            _cast(seen.cast, lambda: outputs(copy), dtype)
    return copy, pairs


@dataclass
class _Seen:
    """What a run of a network showed.

    convolutions: by the address of what each gave; the tensors are kept, so that no address is used twice.  pairs: a batch norm
    and the convolution whose tensor it took.  cast: layers that ran where autocast casts their weights.
    """

    kept: list[Tensor] = field(default_factory=list)
    convolutions: dict[int, nn.Conv2d] = field(default_factory=dict)
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, int]] = field(default_factory=list)
    cast: set[nn.Module] = field(default_factory=set)
    calls: Counter[nn.Module] = field(default_factory=Counter)
    readers: Counter[int] = field(default_factory=Counter)

    @staticmethod
    def of(network: N, outputs: Callable[[N], Sequence[Tensor]], dtype: torch.dtype) -> "_Seen":
        seen = _Seen()
        hooks = []
        for module in network.modules():
            if is_plain_convolution(module):
                observed = bool(module._forward_hooks)
                hooks.append(module.register_forward_hook(partial(seen._convolved, observed=observed)))
            elif isinstance(module, nn.BatchNorm2d) and not (module._forward_hooks or module._forward_pre_hooks):
                hooks.append(module.register_forward_pre_hook(seen._normed))
            elif type(module) is nn.Linear:
                hooks.append(module.register_forward_hook(seen._multiplied))
        try:
            # Who calls whom is the same with fp16, which a CPU computes slowly.
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32), _Reads(seen.readers):
                found = outputs(network)
        finally:
            for hook in hooks:
                hook.remove()
        seen.readers.update(_address(each) for each in found)  # what the network returns is read by others
        return seen

    def _convolved(self, module: nn.Module, _: Any, found: Tensor, observed: bool) -> None:
        assert isinstance(module, nn.Conv2d)
        self._multiplied(module, _, found)
        self.kept.append(found)
        self.convolutions[_address(found)] = module
        self.readers[_address(found)] = int(observed)

    def _multiplied(self, module: nn.Module, _: Any, found: Tensor) -> None:
        self.calls[module] += 1
        if torch.is_autocast_enabled("cpu"):
            self.cast.add(module)

    def _normed(self, module: nn.Module, images: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        self.calls[module] += 1
        convolution = self.convolutions.get(_address(images[0]))
        if convolution is not None:
            self.pairs.append((convolution, module, _address(images[0])))


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how many operations read what lies at each address."""

    def __init__(self, readers: Counter[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.readers = readers

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.readers.update({_address(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)})
        return func(*args, **(kwargs or {}))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _fold(network: nn.Module, seen: _Seen, dtype: torch.dtype) -> int:
    """Fold the pairs of a network that nothing stands between, in place. Returns how many."""
    rests: dict[nn.Module, nn.Module] = {}
    for convolution, norm, address in seen.pairs:
        plain = type(norm) in (nn.BatchNorm2d, PooledBatchNorm2d)
        rest = nn.Identity() if plain else behind_timm_norm(norm)
        mean, var = norm.running_mean, norm.running_var
        alone = seen.calls[convolution] == seen.calls[norm] == seen.readers[address] == 1
        if rest is None or mean is None or var is None or not alone:
            continue
        own = [None if each is None else each.double() for each in (convolution.bias, norm.weight, norm.bias)]
        weight, bias = fuse_conv_bn_weights(
            convolution.weight.double(),
            own[0],
            mean.double(),
            var.double(),
            norm.eps,
            own[1],
            own[2],
        )
        weight, bias = (nn.Parameter(each.to(convolution.weight.dtype), requires_grad=False) for each in (weight, bias))
        if not (weight.to(dtype).isfinite().all() and bias.to(dtype).isfinite().all()):  # 65504 is the largest number of fp16
            continue
        convolution.weight, convolution.bias = weight, bias
        rests[norm] = rest
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child in rests:
                setattr(parent, name, rests[child])
    return len(rests)


def _cast(layers: Iterable[nn.Module], run: Callable[[], object], dtype: torch.dtype) -> None:
    """Store the weights of layers in another type, in place, unless the network then no longer runs under autocast."""
    before = [(layer, layer._parameters.copy()) for layer in layers]
    for layer, _ in before:
        layer._parameters.update({name: _frozen(each, dtype) for name, each in layer._parameters.items()})
    try:
        with torch.autocast("cpu", dtype):
            run()
    except RuntimeError:  # some code looks at the type of a layer's weights
        for layer, parameters in before:
            layer._parameters.update(parameters)


def _frozen(weights: nn.Parameter | None, dtype: torch.dtype) -> nn.Parameter | None:
    return None if weights is None else nn.Parameter(weights.to(dtype), requires_grad=False)


def _alike(copy: N, network: N, outputs: Callable[[N], Sequence[Tensor]]) -> bool:
    try:
        found = outputs(copy)
    except Exception:  # a network may look for the norm that is gone, in any way
        return False
    pairs = zip(found, outputs(network), strict=True)
    return all(bool((ours - theirs).abs().max() <= FOLDED_TOLERANCE * theirs.abs().max()) for ours, theirs in pairs)
