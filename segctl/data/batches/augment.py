"""The operations of `data.augment` that change the pixels of a view, by OpenCV on uint8 or uint16."""

from functools import singledispatch
from typing import Any

import cv2
import numpy as np

from segctl.ignored import IGNORED
from segctl.schema.data import (
    AffineSpec,
    BlurSpec,
    ColorSpec,
    CutoutSpec,
    GreySpec,
    JpegSpec,
    NoiseSpec,
    VerticalFlipSpec,
)

PADDING_RGB = (124, 116, 104)
"""ImageNet's mean in RGB, with which an image is padded."""
Padding = tuple[int, ...]
RGB_ALONE = (ColorSpec, JpegSpec, GreySpec)
"""The operations that know what red, green and blue are."""
UINT8_ALONE = (ColorSpec, JpegSpec, NoiseSpec)
"""The operations that count in 256 levels. How much of 65536 levels a picture uses is for its sensor to say, so the same strength
would be too much for one dataset and nothing for the next."""


@singledispatch
def apply(step: Any, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    """Change an image (h, w, N) and its label uint8 (h, w) in place, as one operation of `data.augment` says.

    image: uint8, or uint16 for all kinds but those of UINT8_ALONE.  N is 3, red, green and blue, for the kinds of RGB_ALONE.
    padding: what an image is filled with where nothing is known.
    """
    raise TypeError(f"no way to augment by {step!r}")


@apply.register
def _color(step: ColorSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    brightness, contrast, saturation = (
        random.uniform(max(0.0, 1 - span), 1 + span) for span in (step.brightness, step.contrast, step.saturation)
    )
    hue = random.uniform(-step.hue, step.hue)
    # Brightness multiplies; contrast then stretches around the image's mean grey. Both are one table of 256 values.
    grey = brightness * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
    values = np.arange(256) * brightness
    cv2.LUT(image, _table((values - grey) * contrast + grey), dst=image)
    if step.saturation or step.hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # the circle of hues is 256 long
        levels = np.arange(256)
        tables = np.stack([(levels + round(hue * 256)) % 256, _table(levels * saturation), levels], -1).astype(np.uint8)
        cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB_FULL, dst=image)


def _table(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


@apply.register
def _blur(step: BlurSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    cv2.GaussianBlur(image, (0, 0), random.uniform(*step.sigma), dst=image)


@apply.register
def _noise(step: NoiseSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    noise = random.standard_normal(image.shape, np.float32)
    noise *= np.float32(random.uniform(*step.std))
    cv2.add(image, noise, dst=image, dtype=cv2.CV_8U)


@apply.register
def _jpeg(step: JpegSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    low, high = step.quality
    quality = int(random.integers(low, high + 1))
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    cv2.cvtColor(np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB, dst=image)


@apply.register
def _grey(step: GreySpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB, dst=image)


@apply.register
def _vertical_flip(
    step: VerticalFlipSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding
) -> None:
    image[:] = cv2.flip(image, 0).reshape(image.shape)  # it drops the axis of a single band
    label[:] = cv2.flip(label, 0)


@apply.register
def _affine(step: AffineSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    height, width = label.shape
    turn, lean = np.deg2rad(random.uniform(-step.degrees, step.degrees)), np.deg2rad(random.uniform(-step.shear, step.shear))
    shift = np.array([random.uniform(-step.translate, step.translate) * side for side in (width, height)])
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array([[1, np.tan(lean)], [0, 1]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([turned, centre + shift - turned @ centre])
    for first in range(0, image.shape[2], 4):  # OpenCV knows borders of four numbers
        part = np.ascontiguousarray(image[..., first : first + 4])
        border = padding[first : first + 4]
        warped = cv2.warpAffine(part, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=border)
        image[..., first : first + 4] = warped.reshape(part.shape)  # it drops the axis of a single band
    label[:] = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=IGNORED)


@apply.register
def _cutout(step: CutoutSpec, image: np.ndarray, label: np.ndarray, random: np.random.Generator, padding: Padding) -> None:
    height, width = label.shape
    for _ in range(step.holes):
        rows, columns = (max(1, round(random.uniform(*step.size) * side)) for side in (height, width))
        top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
        image[top : top + rows, left : left + columns] = padding
        label[top : top + rows, left : left + columns] = IGNORED
