"""Reading weights from a local file, and why they do not fit."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segctl.errors import InputError
from segctl.files import damage_of_zip

WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "teacher",
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "student",
)  # fmt: skip
"""Keys under which training scripts store the weights, averaged ones first; tables under other keys are read after these."""

AVERAGED = ("ema", "averag", "teacher", "encoder_q", "shadow")
"""Parts of a prefix that tell which of several copies of a network is meant: the averaged one (of MoCo, the trained one)."""

CLASSIFIERS = ("fc.", "classifier.", "head.")
"""Prefixes of a classifier's weights. A file may hold them for any backbone, because feature maps need no classifier."""

SPARE = ("num_batches_tracked", "pixel_mean", "pixel_std")
"""Ends of names that a file may lack: batch norm's counters, and the pixels' mean and deviation."""

VARIANCE = "running_var"
"""The end of the names of batch norms' variances."""

DEPTH = 4
"""How deep tables of weights may be nested in a file."""

StateDict = dict[str, Tensor]
Rename = Callable[[StateDict], StateDict]


def unpickled(file: Path, hint: str = "") -> Any:
    """The content of a PyTorch file, tensors on the CPU; runs none of its code.

    Raises InputError with `hint` for a file that cannot be read or does not match its own checksums.
    """
    if damage := damage_of_zip(file):
        raise InputError(f"'{file}' is damaged: {damage}", hint or "get it again")
    try:
        with _harmless_objects():
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds of errors for bytes that are not a checkpoint
        if "TorchScript" in str(error):
            raise InputError(
                f"'{file}' is a TorchScript program, wanted a file of plain weights",
                "give it by --teacher, without --teacher-preset",
            ) from error
        if strangers := _strangers(file):
            raise InputError(
                f"'{file}' holds objects beside its weights ({_some(strangers)}), and reading them could run code",
                "where the file was made, save only the weights: `torch.save(network.state_dict(), 'weights.pt')`",
            ) from error
        raise InputError(
            f"cannot read '{file}': it is damaged, cut short, or not a PyTorch file of plain weights", hint
        ) from error


def _harmless_objects() -> AbstractContextManager[Any]:
    """Let torch read what training scripts keep beside the weights and what runs no code: their arguments, and NumPy numbers."""
    numbers = {type(np.dtype(kind)) for kind in ("bool", "u1", "i2", "i4", "i8", "f2", "f4", "f8")}
    scalar = np.float64(0).__reduce__()[0]  # its module was renamed in NumPy 2, and older files have the older name
    names = [(scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
    return torch.serialization.safe_globals([argparse.Namespace, np.dtype, *numbers, *names])  # type: ignore[list-item]


def _strangers(file: Path) -> list[str]:
    """The names of the objects in a file that torch refuses to make; empty if torch did not write it."""
    try:
        with _harmless_objects():
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # as for torch.load
        return []


def read_tables(file: Path) -> dict[str, StateDict]:
    """Every mapping of names to tensors in a .safetensors or PyTorch file by its place, such as `ema`; likeliest first.

    Raises InputError if the file cannot be read or holds none.
    """
    tables = dict(_tables(read_safetensors(file)[0] if file.suffix == ".safetensors" else unpickled(file), (), DEPTH))
    if not tables:
        raise InputError(f"'{file}' holds no weights: wanted a mapping of names to tensors", "save a network's state_dict()")
    return tables


def _tables(content: Any, place: tuple[str, ...], depth: int) -> Iterator[tuple[str, StateDict]]:
    if not isinstance(content, Mapping):
        return
    rank = {key: number for number, key in enumerate(WRAPPERS)}
    inner = [(str(key), value) for key, value in content.items() if isinstance(value, Mapping)]
    for key, value in sorted(inner, key=lambda item: rank.get(item[0], len(rank))) if depth else []:
        yield from _tables(value, (*place, key), depth - 1)
    if table := {str(name): value for name, value in content.items() if isinstance(value, Tensor)}:
        yield ".".join(place), table


def read_safetensors(file: Path, hint: str = "") -> tuple[StateDict, dict[str, str]]:
    """The tensors of a .safetensors file, on the CPU, and the texts in its header. Raises InputError with `hint`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            # Clones: the library maps the file into memory, and a file that shrinks later would end the process.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"cannot read '{file}': it is damaged, cut short, or not a .safetensors file", hint) from error


class Found(NamedTuple):
    """A network's weights in a file: where they stand there, and how many names outside that prefix are left aside."""

    table: StateDict
    place: str
    prefix: str
    left: list[str]

    def note(self, file: Path) -> str:
        """What was assumed about the file, in a sentence; empty for a file that holds these weights and nothing else."""
        parts = [f"under '{self.place}'"] if self.place else []
        parts += [f"without the prefix '{self.prefix}'"] if self.prefix else []
        parts += [f"leaving {len(self.left)} other names aside ({_some(self.left)})"] if self.left else []
        return f"the weights in '{file}' are read {', '.join(parts)}" if parts else ""


def find_weights(file: Path, wanted: Iterable[str], plain: Callable[[str], str] = str, rename: Rename = dict) -> Found:
    """The weights in a file whose names are the `wanted` ones after one prefix; if there are none, the table that comes nearest.

    plain: brings a name to the form in which names are compared. Nothing is guessed: with one prefix all names are found, or the
    file does not fit. Raises InputError if the file cannot be read, or holds the network several times.
    """
    needed = {plain(name) for name in wanted if not name.endswith(SPARE)}
    nearest: tuple[int, Found] | None = None
    for place, given in read_tables(file).items():
        table = rename(given)
        votes = Counter(prefix for name in table for prefix, rest in _cuts(name) if plain(rest) in needed)
        fits = [prefix for prefix, count in votes.items() if count == len(needed)]
        if len(fits) > 1 and "" not in fits:
            meant = [prefix for prefix in fits if any(part in prefix.lower() for part in AVERAGED)]
            if len(meant) != 1:
                raise InputError(
                    f"'{file}' holds the network {len(fits)} times, under {' and '.join(map(repr, sorted(fits)))}",
                    "save the weights of only one of them",
                )
            fits = meant
        best = "" if "" in fits or not votes else fits[0] if fits else votes.most_common(1)[0][0]
        inside = {name.removeprefix(best): tensor for name, tensor in table.items() if name.startswith(best)}
        found = Found(inside, place, best, [name for name in table if not name.startswith(best)])
        if fits:
            return found
        score = votes.get(best, 0)
        if nearest is None or score > nearest[0]:
            nearest = score, found
    assert nearest is not None  # read_tables gives at least one
    return nearest[1]


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a name into a prefix that ends in a dot, or an empty one, and the rest."""
    start = 0
    while start >= 0:
        yield name[:start], name[start:]
        dot = name.find(".", start)
        start = dot + 1 if dot >= 0 else -1


class Filling(NamedTuple):
    """Why a file's weights do not fit a network (empty if they were put into it), and a note on how the file was read."""

    problem: str
    note: str


def fill_network(model: torch.nn.Module, file: Path, rename: Rename = dict) -> Filling:
    """Put the weights in a .safetensors or PyTorch file into a whole network, under the names that segctl gives them.

    Names that begin with none of the network's own parts, such as `criterion.weight`, are left aside. Raises InputError if the
    file cannot be read or holds a number that is not finite.
    """
    state = model.state_dict()
    spare = {name: tensor for name, tensor in state.items() if name.endswith(SPARE)}
    found = _without_strangers(find_weights(file, state, rename=rename), state)
    table = dense(found.table, file)
    problem = first_misfit(state, spare | table)
    if not problem:
        require_finite(table, file)
        model.load_state_dict(spare | table)
    return Filling(problem, found.note(file))


def fill_backbone(net: torch.nn.Module, known: Iterable[str], file: Path, rename: Rename = dict) -> Filling:
    """Put the weights in a .safetensors or PyTorch file into a network of feature maps, under the names timm gives them.

    rename: turns a table of published names into one of timm's.
    known: the names of the whole timm network, of which `net` is a part. Weights of its other parts are ignored. Any other name
    in the same part of the file shows that it is of another network; that one may hold all names of this one too, as ResNet34
    does those of ResNet18. Raises InputError as `fill_network` does.
    """
    state = net.state_dict()
    known = list(known)
    places = {_plain(name): name for name in state}
    found = _without_strangers(
        find_weights(file, state, _plain, rename), [*known, *(name.removeprefix("model.") for name in state)]
    )
    spare = {_plain(name) for name in known}
    of_others = [name for name in found.table if _plain(name) not in spare | places.keys() and not name.startswith(CLASSIFIERS)]
    if of_others:
        problem = f"{len(of_others)} of its {len(found.table)} weights are of another network ({_some(of_others)})"
        return Filling(problem, "")
    taken = dense({places[_plain(name)]: tensor for name, tensor in found.table.items() if _plain(name) in places}, file)
    counters = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    problem = first_misfit(state, counters | taken)
    if not problem:
        require_finite(taken, file)
        net.load_state_dict(counters | taken)
    return Filling(problem, found.note(file))


def _without_strangers(found: Found, own: Iterable[str]) -> Found:
    """Leave aside what belongs to none of the network's own parts (the first parts of the names): a loss, a projection head."""
    parts = {name.split(".")[0].split("_")[0] for name in own}
    aside = [name for name in found.table if name.split(".")[0].split("_")[0] not in parts and not name.startswith(CLASSIFIERS)]
    if len(aside) == len(found.table):
        return found
    table = {name: tensor for name, tensor in found.table.items() if name not in set(aside)}
    return found._replace(table=table, left=[*found.left, *aside])


def _plain(name: str) -> str:
    """One form of a name: timm's feature wrappers turn `blocks.0.conv` into `blocks_0.conv` or `model.blocks.0.conv`."""
    return name.removeprefix("model.").replace(".", "_")


def first_misfit(wanted: Mapping[str, Tensor], got: Mapping[str, Any]) -> str:
    """Why `got` cannot fill `wanted`: missing names, unknown names, a shape, or integers for learnt numbers; empty if it can."""
    missing = [name for name in wanted if not isinstance(got.get(name), Tensor)]
    if missing:
        return f"{len(missing)} of {len(wanted)} weights are missing ({_some(missing)})"
    unknown = [name for name in got if name not in wanted]
    if unknown:
        return f"{len(unknown)} weights are unknown ({_some(unknown)})"
    for name, tensor in wanted.items():
        if tensor.shape != got[name].shape:
            return f"{name} is {shape_in_words(got[name].shape)}, wanted {shape_in_words(tensor.shape)}"
        if tensor.is_floating_point() and not got[name].is_floating_point():
            return f"{name} holds numbers of type {str(got[name].dtype).removeprefix('torch.')}, wanted floating point"
    return ""


def dense(weights: Mapping[str, Tensor], file: Path) -> StateDict:
    """Weights of any shape as plain tensors; sparse ones are filled in. Raises InputError for those without plain numbers."""
    found = {}
    for name, tensor in weights.items():
        kind = "quantised" if tensor.is_quantized else "nested" if tensor.is_nested else "without values (meta)" * tensor.is_meta
        if not kind and tensor.layout != torch.strided:
            try:
                tensor = tensor.to_dense()
            except RuntimeError:  # torch cannot fill in every layout
                kind = f"of the layout {tensor.layout}"
        if kind:
            raise InputError(
                f"'{file}': {name} is a tensor {kind}, wanted plain numbers",
                "save the weights again from the network in float32: `torch.save(network.state_dict(), 'weights.pt')`",
            )
        found[name] = tensor
    return found


def require_finite(weights: Mapping[str, Tensor], where: Path | str) -> None:
    """Refuse weights, of any shape, with a NaN or an infinite number, or without a meaning: a run diverged, or a file is damaged.

    Raises InputError.
    """
    broken = [name for name, tensor in weights.items() if not_finite(tensor)]
    if broken:
        raise InputError(
            f"'{where}': {len(broken)} of {len(weights)} weights hold NaN or infinite numbers ({_some(broken)})",
            "its training diverged, or the file is damaged: give another file, or copy it again",
        )
    if problem := meaningless(weights):
        raise InputError(f"'{where}': {problem}", "the file is damaged: give another file, or copy it again")


def require_usable(net: torch.nn.Module, where: Path | str) -> None:
    """`require_finite` for the parameters of a network and the variances of its batch norms; other buffers may be infinite."""
    variances = {name: tensor for name, tensor in net.named_buffers() if name.endswith(VARIANCE)}
    require_finite({**dict(net.named_parameters()), **variances}, where)


def meaningless(weights: Mapping[str, Any]) -> str:
    """Why finite weights make no network, in words: negative variances, or nothing but zeros. Empty for weights that do."""
    tensors = {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    negative = [name for name, tensor in tensors.items() if name.endswith(VARIANCE) and bool((tensor < 0).any())]
    if negative:
        return f"{len(negative)} of its batch norms have negative variances ({_some(negative)})"
    learnt = [tensor for name, tensor in tensors.items() if not name.endswith((*SPARE, "running_mean", VARIANCE))]
    return "all its weights are 0" if learnt and not any(bool(tensor.any()) for tensor in learnt) else ""


def not_finite(value: Any) -> bool:
    """Whether a value of a file is a tensor with a NaN or an infinite number in it."""
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def shape_in_words(shape: Iterable[int]) -> str:
    """A shape for a message, such as 19×256×1×1."""
    return "×".join(map(str, shape)) or "one number"
