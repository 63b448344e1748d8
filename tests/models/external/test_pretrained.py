"""Folders of transformers that lack weights, or whose weights have other shapes than their configuration says."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from segctl.errors import InputError
from segctl.models.external.features import load_features
from segctl.models.external.huggingface import load_hugging_face
from tests.mask2former import save_mask2former

NAMES = ["road", "car", "sky"]


def without(folder: Path, *names: str) -> None:
    """Remove weights from the folder's file."""
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in held.items() if name not in names}, folder / "model.safetensors", {"format": "pt"}
    )
    assert set(names) <= held.keys()


def segformer(folder: Path) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=12, id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    net: nn.Module = transformers.SegformerForSemanticSegmentation(config)
    net.save_pretrained(folder)
    return net


def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    total = len(segformer(tmp_path).state_dict())
    without(tmp_path, "decode_head.batch_norm.num_batches_tracked")
    load_hugging_face(tmp_path, str(tmp_path), NAMES)  # a counter is not a weight
    without(
        tmp_path, "decode_head.linear_c.1.proj.weight", "decode_head.linear_c.1.proj.bias", "decode_head.batch_norm.running_var"
    )
    with pytest.raises(InputError) as error:  # transformers renames some weights as it reads them
        load_hugging_face(tmp_path, str(tmp_path), NAMES)
    wanted = f"'{tmp_path}' lacks 3 of the {total} weights of its network, the first is decode_head."
    assert error.value.message.startswith(wanted)


def test_weights_of_other_shapes_are_named(tmp_path: Path) -> None:
    segformer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    more = {
        "id2label": dict(enumerate([*NAMES, "tree"])),
        "label2id": {name: place for place, name in enumerate([*NAMES, "tree"])},
    }
    (tmp_path / "config.json").write_text(json.dumps(config | more), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_hugging_face(tmp_path, str(tmp_path), NAMES)
    assert error.value.message == (
        f"the weights at '{tmp_path}' do not fit its config.json: decode_head.classifier.bias is 3, wanted 4"
    )


def test_a_backbone_may_lack_what_its_features_do_not_depend_on(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    folder = tmp_path
    transformers.ViTModel(config).save_pretrained(folder)
    processor = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    whole = load_features(str(folder), "timm", 3)
    without(folder, "pooler.dense.weight", "pooler.dense.bias")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(load_features(str(folder), "timm", 3)(images), whole(images))
    without(folder, "embeddings.cls_token")
    with pytest.raises(InputError, match=r"lacks 1 of the \d+ weights of its network, the first is embeddings.cls_token"):
        load_features(str(folder), "timm", 3)


@pytest.mark.slow
def test_what_only_the_loss_needs_may_be_missing(tmp_path: Path) -> None:
    """Mask2Former's loss keeps a buffer of floats, which no prediction needs."""
    pytest.importorskip("transformers")
    save_mask2former(tmp_path, NAMES)
    without(tmp_path, "criterion.empty_weight")
    load_hugging_face(tmp_path, str(tmp_path), NAMES)
    without(tmp_path, "class_predictor.bias")
    with pytest.raises(InputError, match=r"lacks 1 of the \d+ weights of its network, the first is class_predictor.bias"):
        load_hugging_face(tmp_path, str(tmp_path), NAMES)
