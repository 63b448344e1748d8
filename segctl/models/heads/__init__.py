"""Segmentation heads, one paper per file."""

from importlib import import_module

from segctl.models.heads.base import Head
from segctl.schema.models import HEADS

__all__ = ["Head", "head_class"]


def head_class(name: str) -> type[Head]:
    """The class behind a name in HEADS.

    The file is imported here, because schema imports no torch and cannot hold the class itself.
    """
    file, kind = HEADS[name].split(".")
    found: type[Head] = getattr(import_module(f"segctl.models.heads.{file}"), kind)
    return found
