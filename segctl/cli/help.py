"""How help looks: `-h` works, flags show no type, and required arguments are shown without braces."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from segctl.errors import InputError

CONTEXT: dict[Any, Any] = {"help_option_names": ["-h", "--help"]}
"""For the outermost app; commands inherit it."""


class _Plain:
    """Mixed into Typer's command and group."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""  # Typer writes <bool> after a flag, which takes no value
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        # Typer writes {NAME}...; the field writes NAME..., and [NAME] for what may be left out.
        return [piece.replace("{", "").replace("}", "").replace("......", "...") for piece in pieces]


class PlainCommand(_Plain, TyperCommand):
    """A command with plain help that refuses empty values: an unset variable of a script would mean the default."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, argument in zip(["", *args], args, strict=False):
            option, sign, value = argument.partition("=")
            if before == "--":
                break  # no option follows; click checks the rest
            named = option if sign and option.startswith("--") else before
            if not (value if sign and option.startswith("--") else argument):
                what = named if named.startswith("-") else "an argument"
                raise InputError(f"{what} is empty", "give a value, or leave it out; a variable of the shell may be unset")
        return super().parse_args(ctx, args)


class PlainGroup(_Plain, TyperGroup):
    """A group of commands with plain help."""


class RootGroup(PlainGroup):
    """The outermost group, its commands in the order in which a person needs them; Typer puts groups last."""

    ORDER = (
        "data",
        "presets",
        "train",
        "distill",
        "pretrain",
        "compare",
        "eval",
        "predict",
        "export",
        "push",
        "bench",
        "report",
        "demo",
    )

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return [*(name for name in self.ORDER if name in names), *(name for name in names if name not in self.ORDER)]
