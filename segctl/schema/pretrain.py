"""What a student's backbone learns from a frozen foundation model, on pictures without labels."""

from typing import Literal

from pydantic import Field

from segctl.schema.spec import Spec

MATCHES = ("cosine", "mse", "cwd")
"""How features are compared: the values of `pretrain.method`."""
TIMM = "timm:"
"""What the name of a teacher of timm begins with, such as timm:vit_small_patch16_dinov3."""


class PretrainSpec(Spec):
    """The last map of a student's backbone follows that of a frozen teacher; nobody reads labels."""

    teacher: str = Field(min_length=1)
    """`timm:NAME`, `hf:ORG/NAME`, or a folder that the transformers library wrote."""
    weights: str = Field("timm", min_length=1)
    """The weights of a teacher of timm: `timm` downloads them, `none` takes random ones, anything else is a local file."""
    method: Literal["cosine", "mse", "cwd"] = "cosine"
    """`cosine`: the angle between the features of a place. `mse`: their squared difference, the teacher's brought to mean 0 and
    deviation 1 at each place. `cwd`: where each channel lights up (arXiv:2011.13256)."""
    adapter: Literal["linear", "mlp"] = "linear"
    """What brings the student's channels to the teacher's: a 1×1 convolution, or two with a GELU between them. It is thrown away
    after the run."""
    grid: Literal["teacher", "student"] = "teacher"
    """Whose places are compared; the other map is resized to them."""
    probe_split: str = Field("train", min_length=1)
    """The split whose labels the linear probe of a validation reads; training never reads them."""
    probe_images: int = Field(100, ge=0, le=100_000)
    """How many labelled pictures the linear probe is fitted to at a validation, evenly spread over the split; 0: no probe."""
