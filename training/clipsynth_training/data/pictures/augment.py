"""Training pictures from drawn ones: another background, colour, place, size and light.

Everything is drawn from one generator, so that a step of training can be repeated exactly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(pixels: Tensor, tint: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Return RGB float32 [B, 3, size, size] in [0, 1].

    Args:
        pixels: uint8 [B, S, S, 4], straight alpha, S at least ``size``.
        tint: bool [B]: the picture has one colour, which is chosen here.
        size: Side of the result in pixels.
        random: Source of every choice.
    """
    drawn = pixels.permute(0, 3, 1, 2).float() / 255.0
    ground = _backgrounds(len(drawn), size, random)
    light = ground.mean((1, 2, 3), keepdim=True)
    ink = _uniform((len(drawn), 3, 1, 1), random) * 0.45
    ink = torch.where(light > 0.5, ink, 1.0 - ink)  # dark on light, light on dark
    colour = torch.where(tint[:, None, None, None], ink, drawn[:, :3])
    alpha = drawn[:, 3:]
    premultiplied = torch.cat([colour * alpha, alpha], dim=1)
    placed = F.grid_sample(
        premultiplied, _places(len(drawn), size, random), padding_mode="zeros", align_corners=False
    )
    image = placed[:, :3] + (1.0 - placed[:, 3:]) * ground
    return _erase(_relight(image, random), random).clamp(0.0, 1.0)


def _uniform(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=random)


def _backgrounds(batch: int, size: int, random: torch.Generator) -> Tensor:
    """White for a third, else a colour, a gradient or clouds of two colours."""
    first, second = _uniform((2, batch, 3, 1, 1), random)
    # Colours lean to the light side, as walls, skies and pages do.
    first, second = first.sqrt(), second.sqrt()
    kind = _uniform((batch, 1, 1, 1), random)
    coarse = _uniform((batch, 1, 5, 5), random)
    clouds = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    ramp = torch.linspace(0.0, 1.0, size).expand(batch, 1, size, size)
    mix = torch.where(kind > 0.8, clouds, torch.where(kind > 0.6, ramp, torch.zeros(1)))
    coloured = (first + (second - first) * mix).clamp(0.0, 1.0)
    return torch.where(kind < 0.35, torch.ones(1), coloured)


def _places(batch: int, size: int, random: torch.Generator) -> Tensor:
    """Sampling grids [B, size, size, 2]: zoom, turn, shift and mirror."""
    zoom = torch.exp((_uniform((batch,), random) - 0.45) * 0.65)
    angle = torch.randn(batch, generator=random) * math.radians(8.0)
    shift = (_uniform((batch, 2), random) - 0.5) * 0.4
    mirror = torch.where(_uniform((batch,), random) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [
        torch.stack([cos * mirror, -sin, shift[:, 0]], 1),
        torch.stack([sin * mirror, cos, shift[:, 1]], 1),
    ]
    return F.affine_grid(torch.stack(rows, 1), [batch, 4, size, size], align_corners=False)


def _relight(image: Tensor, random: torch.Generator) -> Tensor:
    batch = len(image)
    grey = image.mean(1, keepdim=True)
    colourful = _uniform((batch, 1, 1, 1), random) * 1.4
    colourful = torch.where(_uniform((batch, 1, 1, 1), random) < 0.1, torch.zeros(1), colourful)
    image = grey + (image - grey) * colourful
    contrast = 0.6 + 0.7 * _uniform((batch, 1, 1, 1), random)
    brightness = (_uniform((batch, 3, 1, 1), random) - 0.5) * 0.25
    noise = torch.randn(image.shape, generator=random)
    strength = 0.04 * _uniform((batch, 1, 1, 1), random) ** 2
    return (image - 0.5) * contrast + 0.5 + brightness + noise * strength


def _erase(image: Tensor, random: torch.Generator) -> Tensor:
    """Cover a rectangle of a quarter of the pictures (Zhong et al. 2020, arXiv:1708.04896)."""
    batch, size = len(image), image.shape[-1]
    corner = _uniform((batch, 2), random)
    extent = 0.1 + 0.3 * _uniform((batch, 2), random)
    chosen = _uniform((batch,), random) < 0.25
    axis = (torch.arange(size) + 0.5) / size
    inside = [
        (axis >= corner[:, i, None]) & (axis < corner[:, i, None] + extent[:, i, None])
        for i in range(2)
    ]
    mask = inside[0][:, :, None] & inside[1][:, None, :] & chosen[:, None, None]
    fill = _uniform((batch, 3, 1, 1), random)
    return torch.where(mask[:, None], fill, image)
