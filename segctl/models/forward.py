"""Running a network on images as the datasets hold them."""

from torch import Tensor

from segctl.models.external.foreign import Network
from segctl.models.outputs import Prediction


def forward_uint8(network: Network, images: Tensor) -> Prediction:
    """Normalise images uint8 (B, H, W, 3) as the network wants them, and run it: logits and features at head stride.

    The images must lie on the network's device. Precision, gradients and train or eval mode are the caller's choice.
    """
    prediction: Prediction = network(network.normalize(images))
    return prediction
