"""YAML for presets: the file is what it looks like.

A key occurs once, and nothing is repeated by reference.  Plain words are read as YAML 1.2 reads them: only `true` and `false` are
booleans, `1e-4` is a number, and `yes`, `1:30` and `2024-02-30` are text, so that a typo is refused where a number is wanted.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, with unique text keys and the plain words of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML reads it from the class)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not allowed; write the block out", event.start_mark
            )
        found: Node | None = super().compose_node(parent, index)
        return found

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key.value}' occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for tag, first, pattern in (
    ("bool", "tTfF", r"true|True|TRUE|false|False|FALSE"),
    ("int", "-+0123456789", r"[-+]?(0|[1-9][0-9]{0,299})|0x[0-9a-fA-F]{1,300}"),
    (
        "float",
        "-+.0123456789",
        r"[-+]?(\.[0-9]{1,300}|(0|[1-9][0-9]{0,299})(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,4})?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


def load_yaml(text: str) -> Any:
    """The value of a YAML document.

    Raises yaml.YAMLError, also for aliases, repeated keys, endless nesting and values that cannot be made (`!!int abc`).
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise yaml.YAMLError(f"it holds a value that cannot be read: {error}") from error
