"""From features to logits: the classifier, and the auxiliary head of PSPNet (arXiv:1612.01105, section 3.3)."""

from torch import Tensor, nn

from segctl.models.heads.blocks import ConvBNReLU, init_decoder


def classifier(in_channels: int, num_classes: int) -> nn.Conv2d:
    """A 1×1 convolution, (B, in, h, w) -> logits (B, C, h, w); weights Xavier-uniform, bias 0."""
    layer = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class AuxiliaryHead(nn.Module):
    """3×3 to `width`, dropout, classifier: (B, in, h, w) -> logits (B, C, h, w)."""

    def __init__(self, in_channels: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, width, 3)
        init_decoder(self)
        self.dropout: nn.Module = nn.Dropout2d(dropout)
        self.classifier = classifier(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.conv(x)))
        return logits
