"""Annotation files as documents: JSON, XML, YAML or lines of text, parsed without trust in them."""

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import yaml
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from segctl.data.files.archives import File, SpecialFileError, UnreadableError, decode_text
from segctl.errors import InputError
from segctl.schema.yaml import load_yaml

ENDINGS = (".json", ".xml", ".yaml", ".yml", ".txt")
MAX_BYTES = 2**31
"""COCO's largest file of annotations has 1.3 GB."""
MAX_NESTING = 100
AGAIN = "export it again from the tool that wrote it, or copy it again"


@dataclass(frozen=True)
class Document:
    """A parsed file. kind: json, xml, yaml or text.  tree: the JSON or YAML value, the root element, or the lines."""

    path: str
    kind: str
    tree: Any

    def has(self, *keys: str) -> bool:
        """Whether it is a JSON or YAML object with all of these keys."""
        return self.kind in ("json", "yaml") and isinstance(self.tree, dict) and all(key in self.tree for key in keys)


def parse(path: str, file: File) -> Document:
    """Parse a file by its ending. Raises InputError if it cannot be read, is cut short, or is a trap (entities, depth)."""
    where = f"'{file.where}'"
    kind = {"json": "json", "xml": "xml", "yaml": "yaml", "yml": "yaml"}.get(path.rpartition(".")[2].lower(), "text")
    try:
        content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{where} is larger than {MAX_BYTES // 2**30} GiB", "split it by picture")
        return Document(path, kind, _tree(kind, content))
    except (SpecialFileError, UnreadableError) as error:
        raise InputError(f"{where} cannot be read: {error}", AGAIN) from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror or error}", AGAIN) from error
    except json.JSONDecodeError as error:
        # A cut may fall inside a number or a word, and then the error is some letters before the end.
        cut = error.pos > len(error.doc.rstrip()) - 12 or "Unterminated" in error.msg
        what = "it is cut short" if cut else f"{error.msg[:1].lower()}{error.msg[1:]} in line {error.lineno}"
        raise InputError(f"{where} is not valid JSON: {what}", AGAIN) from error
    except ET.ParseError as error:
        raise InputError(f"{where} is not valid XML: {error}", AGAIN) from error
    except DefusedXmlException as error:
        raise InputError(f"{where} declares a document type or entities, which no annotation tool does", AGAIN) from error
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}", AGAIN) from error
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply", AGAIN) from error
    except ValueError as error:  # numbers of thousands of digits
        raise InputError(f"{where} holds a value that cannot be read: {error}", AGAIN) from error


def _tree(kind: str, content: bytes) -> Any:
    match kind:
        case "json":
            text = decode_text(content)
            return json.loads(text, parse_constant=_no_number)
        case "xml":
            return _xml(content)
        case "yaml":
            return load_yaml(decode_text(content))
        case _:
            return [line.strip() for line in decode_text(content).splitlines() if line.strip()]


def _no_number(text: str) -> float:
    raise UnreadableError(f"it holds {text}, which is not a number")


def _xml(content: bytes) -> ET.Element:
    """The root element of XML without entities."""
    parser = DefusedXMLParser(target=_Bounded(), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    # In one piece: expat begins a tag anew with every piece of it, and the points of a polygon are one tag.
    parser.feed(content)
    root: ET.Element = parser.close()
    return root


class _Bounded(ET.TreeBuilder):
    """Builds no deeper than Python may recurse."""

    depth = 0

    def start(self, tag: Any, attrs: Any, /) -> ET.Element:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise RecursionError
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self.depth -= 1
        return super().end(tag)
