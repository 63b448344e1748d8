import torch

from segctl.models.heads.unet import UNetHead


def test_every_step_takes_the_size_of_its_skip_and_the_last_the_image_s():
    head = UNetHead(channels=(4, 5, 6, 7, 8), strides=(2, 4, 8, 16, 32), base=2)
    assert head.out_channels == 2
    assert [step[1][0].out_channels for step in head.steps] == [32, 16, 8, 4, 2]
    assert [step[0][0].in_channels for step in head.steps] == [8 + 7, 32 + 6, 16 + 5, 8 + 4, 4]
    size = (45, 67)
    maps = [
        torch.randn(1, channels, -(-size[0] // stride), -(-size[1] // stride))
        for channels, stride in [(4, 2), (5, 4), (6, 8), (7, 16), (8, 32)]
    ]
    assert head(maps, size).shape == (1, 2, 45, 67)


def test_a_map_of_stride_one_joins_the_last_step():
    head = UNetHead(channels=(3, 4, 5, 6, 7, 8), strides=(1, 2, 4, 8, 16, 32), base=2)
    assert head.steps[-1][0][0].in_channels == 4 + 3


def test_steps_without_a_map_go_on_alone():
    head = UNetHead(channels=(5, 6, 7, 8), strides=(4, 8, 16, 32), base=1)
    assert [step[0][0].in_channels for step in head.steps] == [8 + 7, 16 + 6, 8 + 5, 4, 2]
    maps = [torch.randn(1, channels, side, side) for channels, side in [(5, 9), (6, 5), (7, 3), (8, 2)]]
    assert head(maps, (33, 33)).shape == (1, 1, 33, 33)
