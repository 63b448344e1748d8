"""The hub of Hugging Face: whether it can be reached, and the files of a repository.

Whether it answers is asked first, because the hub's own client retries for most of a minute.
"""

import importlib
from pathlib import Path
from typing import Any

import requests

from segctl.errors import InputError, first_line
from segctl.runs import HUB, MODEL_FILE

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""A repository's weights, the preferred file first."""
TIMEOUT_S = 3.0
NETWORK_FILES = [
    "README.md",
    "run.yaml",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
]
PICKLED = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
"""Weights of a repository without .safetensors; transformers reads them with weights_only, which runs no code."""


def hub_address() -> str:
    """The hub's address; HF_ENDPOINT may have changed it."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def cached_weights(repository: str) -> Path | None:
    """The downloaded weights of a hub repository such as `timm/resnet18d.ra2_in1k` on this machine, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in WEIGHT_FILES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def why_unreachable(address: str) -> str:
    """Why nothing can be downloaded from `address`; empty if a server answers there without an error of its own (5xx)."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        status = requests.head(address, timeout=TIMEOUT_S, allow_redirects=False).status_code
    except requests.RequestException:
        return f"{address} does not answer"
    return f"{address} answers with an error ({status})" if status >= 500 else ""


def is_gated(error: BaseException | None) -> bool:
    """Whether the hub refused a download because the person has not accepted the repository's terms, or is not logged in."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if type(error).__name__ == "GatedRepoError" or status in (401, 403):
            return True
        error = error.__cause__ or error.__context__
    return False


def require_hub() -> Any:
    """The package huggingface_hub. Raises InputError where it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            "a repository on Hugging Face needs the package 'huggingface_hub'", "install it with `pip install huggingface_hub`"
        ) from error


def said_by_hub(error: BaseException) -> str:
    """What an error of the hub's client says, in a line, without the person's token, which some of its errors repeat."""
    token = str(require_hub().get_token() or "")
    text = first_line(error)[:300]
    return text.replace(token, "<token>") if token else text


def repository_folder(source: str) -> Path:
    """The files of a network at `hf:ORG/NAME`, in this machine's cache; downloads what is missing. Raises InputError.

    What follows `hf:` may also be a folder of this machine.
    """
    name = source.removeprefix(HUB)
    if Path(name).is_dir():
        return Path(name)
    hub = require_hub()
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=NETWORK_FILES))
        if not any(folder.glob("*.safetensors")):
            folder = Path(hub.snapshot_download(name, allow_patterns=[*NETWORK_FILES, *PICKLED]))
        return folder
    except Exception as error:  # the hub's errors change with the HTTP library beneath it
        raise InputError(
            f"cannot get '{source}': {said_by_hub(error)}",
            "check the name; for a private repository, or one with terms to accept, log in or set HF_TOKEN; without a network, "
            "give a folder that holds the repository",
        ) from None  # the chain may hold the token


def is_pushed_run(folder: Path) -> bool:
    """Whether a repository's folder is a run that `segctl push` wrote, and not a network of transformers."""
    return (folder / "run.yaml").is_file() and (folder / MODEL_FILE).is_file()


def pushed_run(source: str) -> Path:
    """The folder of the run at `hf:ORG/NAME`. Raises InputError for a repository that segctl did not push."""
    folder = repository_folder(source)
    if not is_pushed_run(folder):
        raise InputError(
            f"'{source}' is not a run that `segctl push` wrote: it lacks run.yaml or {MODEL_FILE}",
            "a network of transformers can only teach: `segctl distill --teacher`"
            if (folder / "config.json").is_file()
            else "check the name",
        )
    return folder
