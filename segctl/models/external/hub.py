"""Whether the hub of timm's weights can be reached. Asked first, because the hub's own client retries for most of a minute."""

from pathlib import Path

import requests

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""A repository's weights, the preferred file first."""
TIMEOUT_S = 3.0


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
