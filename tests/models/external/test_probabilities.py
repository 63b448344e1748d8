"""What a stranger's network returns: logits and probabilities are told apart, and its own reason reaches the user."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.external.foreign import Facts, ForeignNetwork

NAMES = ["a", "b", "c"]


class Answer(nn.Module):
    """Logits of a 3×3 convolution, or what an activation makes of them."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.activation = nn.Conv2d(3, 3, 3, padding=1), activation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(x)
        if self.activation == "softmax":
            return logits.softmax(1)
        if self.activation == "sigmoid":
            return logits.sigmoid()
        return logits.log_softmax(1) if self.activation == "log_softmax" else logits


@pytest.fixture
def image() -> Tensor:
    return torch.randint(0, 256, (1, 24, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def network(activation: str, **facts: object) -> ForeignNetwork:
    return ForeignNetwork(Answer(activation), Facts(**facts), NAMES, [0, 1, 2])


@pytest.mark.parametrize(
    ("activation", "note"),
    [
        ("", ""),
        ("log_softmax", ""),
        ("softmax", "the teacher returns probabilities that sum to 1; their logarithms are taken as its logits"),
        (
            "sigmoid",
            "the teacher returns a probability from 0 to 1 for each class by itself (sigmoid); log(p / (1 - p)) is taken as its "
            "logits",
        ),
    ],
)
def test_a_teacher_is_softmaxed_once_whatever_it_returns(activation: str, note: str, image: Tensor) -> None:
    plain, net = network(""), network(activation)
    assert net.recognise(image) == note
    with torch.no_grad():
        wanted = plain(plain.normalize(image)).logits.softmax(1)
        torch.testing.assert_close(net(net.normalize(image)).logits.softmax(1), wanted, rtol=1e-4, atol=1e-5)


def test_images_are_padded_to_the_multiple_and_the_logits_cut_back(image: Tensor) -> None:
    class Patches(nn.Module):
        """A network that drops the rows and columns that fill no 16×16 patch, and returns logits at stride 4."""

        def forward(self, x: Tensor) -> Tensor:
            height, width = (side // 16 * 16 for side in x.shape[-2:])
            return nn.functional.avg_pool2d(x[..., :height, :width], 4)

    net = ForeignNetwork(Patches(), Facts(multiple=16), NAMES, [0, 1, 2])
    changed = image.clone()
    changed[:, -1] = 255 - image[:, -1]
    with torch.no_grad():
        first, second = (net(net.normalize(each)).logits for each in (image, changed))
    assert first.shape == (1, 3, 6, 8)
    assert not torch.equal(first, second)


def test_blue_comes_first_where_the_network_wants_it(image: Tensor) -> None:
    plain, flipped = network(""), network("", flips_channels=True)
    assert torch.equal(flipped.normalize(image), plain.normalize(image.flip(-1)))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Conv2d(4, 3, 1), "the network takes images of 4 channels, wanted 3 (red, green, blue): "),
        (nn.Conv2d(1, 3, 1), "the network takes images of 1 channels, wanted 3 (red, green, blue): "),
        (nn.Conv2d(3, 3, 1).half(), "the network computes in half precision and cannot take float32 images: Input type"),
    ],
    ids=["four channels", "grey", "half"],
)
def test_the_reason_of_a_script_is_its_own_last_line(net: nn.Module, message: str, image: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its advice to export
        scripted = torch.jit.script(net)  # type: ignore[no-untyped-call]
    foreign = ForeignNetwork(scripted, Facts(), NAMES, [0, 1, 2])
    with pytest.raises(InputError) as error:
        foreign(foreign.normalize(image))
    assert error.value.message.startswith(message)


@pytest.mark.parametrize("kind", [TypeError, IndexError, KeyError, AttributeError, NotImplementedError])
def test_any_error_of_a_network_is_one_sentence(kind: type[Exception], image: Tensor) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise kind("no")

    net = ForeignNetwork(Broken(), Facts(), NAMES, [0, 1, 2])
    with pytest.raises(InputError, match="the network cannot take images of"):
        net(net.normalize(image))
