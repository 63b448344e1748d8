"""CIRKD's networks: parameter counts of the published code, and a plain reading of a file under its published names."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import PRESET, toy_run

from segctl.errors import InputError
from segctl.models import at_label_size, build_model
from segctl.models.external.cirkd import CirkdSegmenter, backbone_names
from segctl.models.external.weights import fill_network
from segctl.schema.models import ModelSpec
from segctl.train.tasks import SupervisedTask

MEAN_BGR = torch.tensor([104.00698793, 116.66876762, 122.67891434])
COUNTS = {
    ("deeplabv3", "resnet101"): 61_118_950,
    ("deeplabv3", "resnet18"): 13_607_974,
    ("pspnet", "resnet18"): 12_919_334,
    ("deeplabv3", "mobilenetv2_100"): 3_233_171,
}
"""61.12, 13.61, 12.92 and 3.23 million in the README of winycg/CIRKD at 2d8ad0f; counted on its code, auxiliary head included."""


def spec(head: str, backbone: str, **changes) -> ModelSpec:
    aux = backbone != "mobilenetv2_100"
    return ModelSpec(**({"family": "cirkd", "head": head, "backbone": backbone, "weights": "none", "aux": aux} | changes))


@pytest.mark.parametrize(
    ("head", "backbone"),
    [pytest.param(*pair, marks=pytest.mark.slow) if pair[1] == "resnet101" else pair for pair in COUNTS],
)
def test_the_parameter_count_is_the_published_one(head, backbone):
    with torch.device("meta"):
        model = build_model(spec(head, backbone), 19)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[head, backbone]


class Published:
    """A file under its published names, read in the plainest way. Each layer draws its weights when it is first used."""

    def __init__(self) -> None:
        self.table: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(0)

    def _tensor(self, name: str, *shape: int, low: float = -0.1, high: float = 0.1) -> Tensor:
        if name not in self.table:
            self.table[name] = low + (high - low) * torch.rand(shape, generator=self.random)
        return self.table[name]

    def conv(self, x: Tensor, name: str, out: int, k: int = 1, stride=1, dilation=1, groups=1, bias=False) -> Tensor:
        weight = self._tensor(f"{name}.weight", out, x.shape[1] // groups, k, k)
        return F.conv2d(
            x, weight, self._tensor(f"{name}.bias", out) if bias else None, stride, dilation * (k // 2), dilation, groups
        )

    def norm(self, x: Tensor, name: str) -> Tensor:
        width = x.shape[1]
        bias, mean = (self._tensor(f"{name}.{part}", width) for part in ("bias", "running_mean"))
        scale, variance = (self._tensor(f"{name}.{part}", width, low=0.5, high=1.5) for part in ("weight", "running_var"))
        return F.batch_norm(x, mean, variance, scale, bias)

    def resnet18(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for index, (width, stride) in enumerate(((64, 2), (64, 1), (128, 1)), start=1):
            x = F.relu(self.norm(self.conv(x, f"pretrained.conv{index}", width, 3, stride), f"pretrained.bn{index}"))
        x = F.max_pool2d(x, 3, 2, 1)
        third = x
        for layer, (width, stride, first, then) in enumerate(
            ((64, 1, 1, 1), (128, 2, 1, 1), (256, 1, 1, 2), (512, 1, 2, 4)), start=1
        ):
            third = x
            for block in (0, 1):
                at = f"pretrained.layer{layer}.{block}"
                y = self.conv(x, f"{at}.conv1", width, 3, stride if block == 0 else 1, first if block == 0 else then)
                y = self.norm(self.conv(F.relu(self.norm(y, f"{at}.bn1")), f"{at}.conv2", width, 3, 1, then), f"{at}.bn2")
                if block == 0:  # the stem ends with 128 channels, so that every layer changes the width
                    x = self.norm(self.conv(x, f"{at}.downsample.0", width, 1, stride), f"{at}.downsample.1")
                x = F.relu(x + y)
        return third, x

    def mobilenet(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.conv(x, "pretrained.net.features.0.0", 32, 3, 2), "pretrained.net.features.0.1"))
        number = 0
        for grow, out, blocks, stride, first, then in (
            (1, 16, 1, 1, 1, 1), (6, 24, 2, 2, 1, 1), (6, 32, 3, 2, 1, 1), (6, 64, 4, 1, 1, 2),
            (6, 96, 3, 1, 2, 2), (6, 160, 3, 1, 2, 4), (6, 320, 1, 1, 4, 4),
        ):  # fmt: skip
            for block in range(blocks):
                number += 1
                at, y, hidden = f"pretrained.net.features.{number}.conv", x, x.shape[1] * grow
                layer = 0
                if grow > 1:
                    y, layer = F.relu6(self.norm(self.conv(y, f"{at}.0", hidden), f"{at}.1")), 3
                y = self.conv(y, f"{at}.{layer}", hidden, 3, stride if block == 0 else 1, then if block else first, groups=hidden)
                y = self.conv(F.relu6(self.norm(y, f"{at}.{layer + 1}")), f"{at}.{layer + 3}", out)
                y = self.norm(y, f"{at}.{layer + 4}")
                x = x + y if block else y
        return x

    def pyramid(self, x: Tensor) -> Tensor:
        parts = [x]
        for index, bins in enumerate((1, 2, 3, 6), start=1):
            y = self.conv(F.adaptive_avg_pool2d(x, bins), f"head.psp.conv{index}.0", x.shape[1] // 4)
            y = F.relu(self.norm(y, f"head.psp.conv{index}.1"))
            parts.append(F.interpolate(y, x.shape[-2:], mode="bilinear", align_corners=True))
        return F.relu(self.norm(self.conv(torch.cat(parts, 1), "head.block.0", 128, 3), "head.block.1"))

    def aspp(self, x: Tensor) -> Tensor:
        parts = [F.relu(self.norm(self.conv(x, "head.aspp.b0.0", 128), "head.aspp.b0.1"))]
        for index, rate in enumerate((12, 24, 36), start=1):
            at = f"head.aspp.b{index}.block"
            parts.append(F.relu(self.norm(self.conv(x, f"{at}.0", 128, 3, dilation=rate), f"{at}.1")))
        pooled = self.conv(x.mean((2, 3), keepdim=True), "head.aspp.b4.gap.1", 128)
        parts.append(F.relu(self.norm(pooled, "head.aspp.b4.gap.2")).expand_as(parts[0]))
        x = F.relu(self.norm(self.conv(torch.cat(parts, 1), "head.aspp.project.0", 128), "head.aspp.project.1"))
        return F.relu(self.norm(self.conv(x, "head.block.0", 128, 3), "head.block.1"))

    def aux(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x, "auxlayer.block.0", 64, 3), "auxlayer.block.1"))
        return self.conv(x, "auxlayer.block.4", 19, bias=True)


@pytest.mark.parametrize(
    ("head", "backbone"), [("pspnet", "resnet18"), ("deeplabv3", "resnet18"), ("deeplabv3", "mobilenetv2_100")]
)
def test_a_published_file_gives_the_published_logits(head, backbone, tmp_path):
    picture = torch.randint(0, 256, (1, 41, 57, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    x = (picture.flip(-1).float() - MEAN_BGR).permute(0, 3, 1, 2)
    file = Published()
    third, last = file.resnet18(x) if backbone == "resnet18" else (None, file.mobilenet(x))
    features = file.pyramid(last) if head == "pspnet" else file.aspp(last)
    logits = file.conv(features, "head.classifier" if head == "pspnet" else "head.block.4", 19, bias=True)
    aux = None if third is None else file.aux(third)
    torch.save({f"module.{name}": tensor for name, tensor in file.table.items()}, tmp_path / "best.pth")

    model = build_model(spec(head, backbone), 19).eval()
    assert isinstance(model, CirkdSegmenter)
    problem, note = fill_network(model, tmp_path / "best.pth", model.rename)
    assert problem == ""
    assert "prefix 'module.'" in note
    with torch.no_grad():
        found = model(model.normalize(picture))
    for mine, theirs in ((found.logits, logits), (found.features, features), (found.aux_logits, aux)):
        if theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    wanted = F.interpolate(logits, (41, 57), mode="bilinear", align_corners=True)
    sized = at_label_size(found.logits, (41, 57), found.align_corners)
    torch.testing.assert_close(sized, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.slow
def test_large_batches_are_upsampled_with_aligned_corners_too():
    run = toy_run(
        PRESET | {"loss": [{"kind": "cross_entropy"}]},
        model={"family": "cirkd", "backbone": "resnet18", "head": "pspnet", "weights": "none", "aux": False, "width": None},
        data={"crop": [256, 256]},
    )
    torch.manual_seed(0)
    task = SupervisedTask(build_model(run.model, 19).eval(), run.labels, run.loss)
    images = torch.randint(0, 256, (1, 256, 256, 3), dtype=torch.uint8)
    label = torch.randint(0, 19, (1, 256, 256), dtype=torch.uint8)
    with torch.no_grad():
        found = task(images, label).loss
        logits = task.model(task.model.normalize(images)).logits
        large = F.interpolate(logits, (256, 256), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, F.cross_entropy(large, label.long()), rtol=1e-5, atol=1e-6)


def test_imagenet_weights_are_read_and_turned_to_rgb(tmp_path):
    file = Published()
    file.resnet18(torch.zeros(1, 3, 16, 16))
    table = {name.removeprefix("pretrained."): tensor for name, tensor in file.table.items()}
    torch.save(table | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet18-imagenet.pth")
    model = build_model(spec("pspnet", "resnet18", weights=str(tmp_path / "resnet18-imagenet.pth")), 19)
    assert torch.equal(model.backbone.net.conv1[0].weight, table["conv1.weight"][:, [2, 1, 0]])
    assert torch.equal(model.backbone.net.bn1.running_var, table["bn3.running_var"])


def test_other_tables_keep_their_names():
    own = build_model(spec("pspnet", "resnet18"), 19)
    assert own.rename(own.state_dict()).keys() == own.state_dict().keys()
    assert backbone_names({"layer1.0.conv1.weight": torch.zeros(1)}, "resnet18").keys() == {"layer1.0.conv1.weight"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "timm"}, "whose 'resnet18' timm has no weights for"),
        ({"backbone": "resnet18d"}, "got 'resnet18d' with family 'cirkd'"),
        ({"head": "unet"}, "wanted pspnet or deeplabv3"),
        ({"output_stride": 16}, "wanted 8 and null"),
        ({"backbone": "mobilenetv2_100", "aux": True}, "as it was published"),
    ],
)
def test_what_was_not_published_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        build_model(ModelSpec(**(spec("pspnet", "resnet18").model_dump() | changes)), 19)


def test_dropout_drops_single_values():
    model = build_model(spec("pspnet", "resnet18"), 3).train()
    torch.manual_seed(0)
    features = model(torch.randn(2, 3, 64, 64)).features
    zeros = (model.dropout(torch.ones_like(features)) == 0).flatten(2)
    assert 0 < float(zeros.float().mean()) < 0.2
    assert not zeros.all(2).any()
