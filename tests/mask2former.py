"""A Mask2Former of a few thousand weights, as Hugging Face saves it. Needs transformers."""

from collections.abc import Iterable
from pathlib import Path


def save_mask2former(folder: Path, names: Iterable[str]) -> None:
    """Write an untrained network of these classes into a folder."""
    import transformers

    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=5,
        id2label=dict(enumerate(names)),
    )  # fmt: skip
    transformers.Mask2FormerForUniversalSegmentation(config).eval().save_pretrained(folder)
