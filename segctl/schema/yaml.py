"""YAML for presets: a key stands once, and nothing is repeated by reference, so that the file is what it looks like."""

from collections.abc import Hashable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and with unique keys."""

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
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key.value}' stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The value of a YAML document. Raises yaml.YAMLError, for aliases, repeated keys and endless nesting too."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
