"""The linear head."""

import torch

from segctl.models.heads.linear import LinearHead


def test_it_is_batch_norm_of_the_last_map_and_nothing_else() -> None:
    head = LinearHead(8)
    assert sum(parameter.numel() for parameter in head.parameters()) == 2 * 8
    last = 3 + 5 * torch.randn(2, 8, 5, 7)
    found = head([torch.zeros(2, 4, 10, 14), last], (40, 56))
    wanted = (last - last.mean((0, 2, 3), keepdim=True)) / (last.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(found, wanted)
