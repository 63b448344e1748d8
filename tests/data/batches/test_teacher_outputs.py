"""A teacher's outputs come back to the bit and in their memory order; a changed or swapped one is refused."""

from pathlib import Path

import pytest
import torch

from segctl.data.batches.teacher_outputs import OutputMap, TeacherOutputs
from segctl.errors import SegctlError

MAPS = {
    "main": torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last),
    "features": torch.randn(5, 7, 2, 3, generator=torch.Generator().manual_seed(1)).bfloat16(),
}


def outputs(folder: Path, sides: tuple[bool, ...] = (False,), forward_batch: int = 2) -> TeacherOutputs:
    described = tuple(OutputMap.of(name, maps) for name, maps in MAPS.items())
    return TeacherOutputs(folder / "key", described, tuple("abcde"), sides, forward_batch)


def written(folder: Path, sides: tuple[bool, ...] = (False,)) -> TeacherOutputs:
    made = outputs(folder, sides)
    for chunk in made.chunks():
        for each in made.maps:
            rows = MAPS[each.name][list(chunk.samples)]
            made.write(chunk, each, rows.flip(3) if chunk.mirrored else rows)
    return made


def test_outputs_come_back_to_the_bit_and_in_their_memory_order(tmp_path: Path) -> None:
    found = written(tmp_path).read([(4, False), (0, False), (4, False)])
    for name, maps in MAPS.items():
        assert torch.equal(found[name], maps[[4, 0, 4]])
        assert found[name].dtype == maps.dtype
        assert found[name].stride() == maps[[4, 0, 4]].contiguous(memory_format=_order(maps)).stride()


def _order(maps: torch.Tensor) -> torch.memory_format:
    return torch.contiguous_format if maps.is_contiguous() else torch.channels_last


def test_a_mirrored_image_has_its_own_output(tmp_path: Path) -> None:
    found = written(tmp_path, (False, True)).read([(1, True), (1, False)])
    assert torch.equal(found["main"][0], MAPS["main"][1].flip(2))
    assert torch.equal(found["main"][1], MAPS["main"][1])


def test_one_map_of_one_pixel_or_one_channel_comes_back(tmp_path: Path) -> None:
    for shape in ((2, 3, 1, 1), (2, 1, 4, 5)):
        maps = torch.randn(shape).to(memory_format=torch.channels_last)
        made = TeacherOutputs(tmp_path / str(shape), (OutputMap.of("main", maps),), ("a", "b"), (False,), 1)
        made.write(made.chunks()[0], made.maps[0], maps)
        assert torch.equal(made.read([(1, False), (0, False)])["main"], maps[[1, 0]])


def test_samples_are_cut_into_files_of_whole_forward_passes(tmp_path: Path) -> None:
    made = TeacherOutputs(tmp_path, (), tuple(map(str, range(50))), (False, True), 6)
    assert [(chunk.number, chunk.samples, chunk.mirrored) for chunk in made.chunks()[:6]] == [
        (0, range(12), False), (1, range(12, 24), False), (2, range(24, 36), False), (3, range(36, 48), False),
        (4, range(48, 50), False), (0, range(12), True),
    ]  # fmt: skip


def test_the_size_is_known_before_and_what_is_there_is_not_counted(tmp_path: Path) -> None:
    main, features = 3 * 4 * 6 * 4 + 8, 7 * 2 * 3 * 2 + 8
    made = outputs(tmp_path)
    assert made.total_bytes() == made.missing_bytes() == 5 * (main + features)
    made.write(made.chunks()[0], made.maps[0], MAPS["main"])
    assert made.missing_bytes() == 5 * features
    assert [each.name for each in made.missing(made.chunks()[0])] == ["features"]
    written(tmp_path)
    assert made.missing_bytes() == 0
    assert made.total_bytes() == sum(path.stat().st_size for path in made.folder.iterdir())


def test_a_file_cut_short_counts_as_not_there(tmp_path: Path) -> None:
    made = written(tmp_path)
    path = made.file(made.maps[0], made.chunks()[0])
    path.write_bytes(path.read_bytes()[:-1])
    assert [each.name for each in made.missing(made.chunks()[0])] == ["main"]


@pytest.mark.parametrize("place", [0, 100, 3 * 4 * 6 * 4 + 3, -1], ids=["first", "within", "checksum", "last"])
def test_a_flipped_bit_is_refused(place: int, tmp_path: Path) -> None:
    made = written(tmp_path)
    path = made.file(made.maps[0], made.chunks()[0])
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    row, name = (4, "e") if place == -1 else (0, "a")
    with pytest.raises(SegctlError) as refused:
        made.read([(row, False)])
    assert str(refused.value) == (
        f"cannot read the teacher's output for '{name}' from '{path}': its content does not match its checksum; "
        "delete that file and add --resume to the command: missing files are computed again"
    )


def test_another_samples_output_is_refused(tmp_path: Path) -> None:
    made = written(tmp_path, (False, True))
    plain, mirrored = (made.file(made.maps[0], chunk) for chunk in made.chunks())
    mirrored.write_bytes(plain.read_bytes())
    with pytest.raises(SegctlError, match="its content does not match its checksum"):
        made.read([(0, True)])


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegctlError, match=r"'c' from '.*main-plain-00000.rows': No such file or directory"):
        outputs(tmp_path).read([(2, False)])
