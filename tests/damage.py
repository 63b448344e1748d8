"""Damage to files, as disks and editors do it."""

import json
import zipfile
from pathlib import Path
from typing import Any


def flip_bit(path: Path, member: str = "data/0") -> None:
    """Flip one bit in the middle of a tensor of a file that torch wrote, or in the last tensor of a .safetensors file."""
    if path.suffix == ".safetensors":
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
        return
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(member))
    content = bytearray(path.read_bytes())
    # A member's data follows its local header, which has 30 bytes, its name and padding.
    name, extra = (int.from_bytes(content[info.header_offset + at : info.header_offset + at + 2], "little") for at in (26, 28))
    content[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 4
    path.write_bytes(content)


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON object."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
