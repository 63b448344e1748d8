"""The one split of a batch into micro-batches."""

import pytest
import torch

from segctl.data.batches.micro_batches import largest_micro_batch, micro_batches


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [3, 4, 8, 11])
def test_every_process_has_equally_many_and_none_is_larger_than_the_largest(
    batch_size: int, processes: int, accumulate: int
) -> None:
    shares = [len(range(rank, batch_size, processes)) for rank in range(processes)]
    splits = [micro_batches(share, batch_size, accumulate, processes) for share in shares]
    assert len({len(split) for split in splits}) == 1
    assert max(len(part) for split in splits for part in split) == largest_micro_batch(batch_size, accumulate, processes)
    for share, split in zip(shares, splits, strict=True):
        assert [index for part in split for index in part] == list(range(share))
        wanted = torch.arange(share).tensor_split(len(split))
        assert [list(part) for part in split] == [part.tolist() for part in wanted]
