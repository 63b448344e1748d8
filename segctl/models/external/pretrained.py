"""Load a network of Hugging Face's transformers, and refuse a folder that lacks weights: it makes random ones for them."""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segctl.errors import InputError, first_line
from segctl.models.external.weights import shape_in_words


def load_pretrained(loader: Any, folder: Path, source: str, hint: str, answer: Callable[[nn.Module, Tensor], Tensor]) -> Any:
    """The network in a folder, in float32 on the CPU, in eval mode; every weight that its answer depends on is the folder's.

    loader: a class of transformers.  source: the folder, or `hf:ORG/NAME`, for sentences.  hint: what the folder must hold.
    answer: runs the network on images float (1, 3, H, W) and returns what will be taken of it.  Raises InputError.
    """
    log = importlib.import_module("transformers").logging  # an extra, which mypy need not find
    verbosity = log.get_verbosity()
    log.set_verbosity(logging.ERROR)  # its table of what is missing becomes a sentence below
    try:
        # Without ignore_mismatched_sizes it says only that some shape is wrong, and not which.
        net, info = loader.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # transformers raises many kinds
        reason = first_line(error).partition(" For details look")[0]
        raise InputError(f"cannot load the network at '{source}': {reason}", hint) from error
    finally:
        log.set_verbosity(verbosity)
    net = net.float().eval()  # transformers 5 loads the type that was saved, and images come in float32
    if info["mismatched_keys"]:
        name, got, wanted = min(info["mismatched_keys"], key=lambda each: str(each[0]))
        raise InputError(
            f"the weights at '{source}' do not fit its config.json: {name} is {shape_in_words(got)}, "
            f"wanted {shape_in_words(wanted)}",
            "put back the config.json that was saved with these weights (the number of classes is that of id2label)",
        )
    if missing := _needed(net, set(info["missing_keys"]), answer):
        raise InputError(
            f"'{source}' lacks {len(missing)} of the {len(net.state_dict())} weights of its network, the first is {missing[0]}",
            "get the folder again; weights that are missing would be random",
        )
    return net


def _needed(net: nn.Module, missing: set[str], answer: Callable[[nn.Module, Tensor], Tensor]) -> list[str]:
    """Those of the missing weights that learn and that the answer depends on: not a pooler, the loss, or an index of positions.

    A parameter counts where the answer has a gradient by it, and a buffer where its module takes part. All count if the network
    takes no image that is tried here.
    """
    state = {name: tensor for name, tensor in net.state_dict(keep_vars=True).items() if name in missing}
    # Integers are counters and positions; a parameter that never learns is a table that the network computes.
    state = {
        name: tensor
        for name, tensor in state.items()
        if tensor.is_floating_point() and (tensor.requires_grad or not isinstance(tensor, nn.Parameter))
    }
    if not state:
        return []
    ran: set[nn.Module] = set()
    hooks = [module.register_forward_pre_hook(lambda module, _: ran.add(module)) for module in net.modules()]
    own = getattr(getattr(net.config, "vision_config", net.config), "image_size", None)
    try:
        for side in [own, 128, 224, 512] if isinstance(own, int) else [128, 224, 512]:
            try:
                with torch.enable_grad():
                    found = answer(net, torch.zeros(1, 3, side, side))
            except Exception:  # each network fails in its own way on sizes that it was not made for
                continue
            learnt = [name for name, tensor in state.items() if tensor.requires_grad]
            slopes = torch.autograd.grad(found.sum(), [state[name] for name in learnt], allow_unused=True) if learnt else ()
            reached = {name for name, slope in zip(learnt, slopes, strict=True) if slope is not None}
            buffers = {name for name in state if name not in learnt and net.get_submodule(name.rpartition(".")[0]) in ran}
            return [name for name in state if name in reached | buffers]
        return list(state)
    finally:
        for hook in hooks:
            hook.remove()
