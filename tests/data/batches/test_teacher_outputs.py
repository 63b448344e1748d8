"""Answers come back to the bit and in their order in memory, and never another's or a changed one."""

from pathlib import Path

import pytest
import torch

from segctl.data.batches.teacher_outputs import Answers, Part
from segctl.errors import SegctlError

MAPS = {
    "main": torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last),
    "features": torch.randn(5, 7, 2, 3, generator=torch.Generator().manual_seed(1)).bfloat16(),
}


def answers(folder: Path, sides: tuple[bool, ...] = (False,), at_once: int = 2) -> Answers:
    parts = tuple(Part.of(name, maps) for name, maps in MAPS.items())
    return Answers(folder / "key", parts, tuple("abcde"), sides, at_once)


def kept(folder: Path, sides: tuple[bool, ...] = (False,)) -> Answers:
    made = answers(folder, sides)
    for piece in made.pieces():
        for part in made.parts:
            rows = MAPS[part.name][list(piece.samples)]
            made.write(piece, part, rows.flip(3) if piece.mirrored else rows)
    return made


def test_answers_come_back_to_the_bit_and_as_they_lay_in_memory(tmp_path: Path) -> None:
    found = kept(tmp_path).read([(4, False), (0, False), (4, False)])
    for name, maps in MAPS.items():
        assert torch.equal(found[name], maps[[4, 0, 4]])
        assert found[name].dtype == maps.dtype
        assert found[name].stride() == maps[[4, 0, 4]].contiguous(memory_format=_order(maps)).stride()


def _order(maps: torch.Tensor) -> torch.memory_format:
    return torch.contiguous_format if maps.is_contiguous() else torch.channels_last


def test_a_mirrored_picture_has_an_answer_of_its_own(tmp_path: Path) -> None:
    found = kept(tmp_path, (False, True)).read([(1, True), (1, False)])
    assert torch.equal(found["main"][0], MAPS["main"][1].flip(2))
    assert torch.equal(found["main"][1], MAPS["main"][1])


def test_one_map_of_one_pixel_or_one_channel_comes_back(tmp_path: Path) -> None:
    for shape in ((2, 3, 1, 1), (2, 1, 4, 5)):
        maps = torch.randn(shape).to(memory_format=torch.channels_last)
        made = Answers(tmp_path / str(shape), (Part.of("main", maps),), ("a", "b"), (False,), 1)
        made.write(made.pieces()[0], made.parts[0], maps)
        assert torch.equal(made.read([(1, False), (0, False)])["main"], maps[[1, 0]])


def test_samples_are_cut_into_files_of_whole_forward_passes(tmp_path: Path) -> None:
    made = Answers(tmp_path, (), tuple(map(str, range(50))), (False, True), 6)
    assert [(piece.number, piece.samples, piece.mirrored) for piece in made.pieces()[:6]] == [
        (0, range(12), False), (1, range(12, 24), False), (2, range(24, 36), False), (3, range(36, 48), False),
        (4, range(48, 50), False), (0, range(12), True),
    ]  # fmt: skip


def test_the_size_is_known_before_and_what_is_there_is_not_counted(tmp_path: Path) -> None:
    main, features = 3 * 4 * 6 * 4 + 8, 7 * 2 * 3 * 2 + 8
    made = answers(tmp_path)
    assert made.total_bytes() == made.lacking_bytes() == 5 * (main + features)
    made.write(made.pieces()[0], made.parts[0], MAPS["main"])
    assert made.lacking_bytes() == 5 * features
    assert [part.name for part in made.lacking(made.pieces()[0])] == ["features"]
    kept(tmp_path)
    assert made.lacking_bytes() == 0
    assert made.total_bytes() == sum(path.stat().st_size for path in made.folder.iterdir())


def test_a_file_cut_short_counts_as_not_there(tmp_path: Path) -> None:
    made = kept(tmp_path)
    path = made.file(made.parts[0], made.pieces()[0])
    path.write_bytes(path.read_bytes()[:-1])
    assert [part.name for part in made.lacking(made.pieces()[0])] == ["main"]


@pytest.mark.parametrize("place", [0, 100, 3 * 4 * 6 * 4 + 3, -1], ids=["first", "within", "checksum", "last"])
def test_a_flipped_bit_is_never_an_answer(place: int, tmp_path: Path) -> None:
    made = kept(tmp_path)
    path = made.file(made.parts[0], made.pieces()[0])
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    row, name = (4, "e") if place == -1 else (0, "a")
    with pytest.raises(SegctlError) as refused:
        made.read([(row, False)])
    assert str(refused.value) == (
        f"cannot read the teacher's answer to '{name}' in '{path}': it is not what was written; "
        "delete that file and go on with --resume: what is not there is made again"
    )


def test_another_samples_answer_is_refused(tmp_path: Path) -> None:
    made = kept(tmp_path, (False, True))
    plain, mirrored = (made.file(made.parts[0], piece) for piece in made.pieces())
    mirrored.write_bytes(plain.read_bytes())
    with pytest.raises(SegctlError, match="it is not what was written"):
        made.read([(0, True)])


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegctlError, match=r"'c' in '.*main-plain-00000.rows': No such file or directory"):
        answers(tmp_path).read([(2, False)])
