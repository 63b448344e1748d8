"""The names of devices, judged without torch, so that a typing error costs no import of it."""

import re

from segctl.errors import InputError

_KNOWN = "use cpu, cuda, cuda:0 or mps"


def check_device_name(name: str, option: str = "--device") -> str:
    """The name. Raises InputError unless it is cpu, cuda, mps or a numbered GPU such as cuda:1; a CPU has no number."""
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,4})?", name, re.ASCII):
        raise InputError(f"{option} '{name}' is not a device", _KNOWN)
    return name
