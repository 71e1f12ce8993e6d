"""Networks whose depth is a parameter, for the planning curve, and ResNet-50."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut (He et al., arXiv 1512.03385, as in ResNet-50)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            if inputs != 4 * width
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + (x if self.down is None else self.down(x)))


def resnet(depths: tuple[int, ...], width: int = 64, classes: int = 1000) -> nn.Module:
    """A bottleneck network; (3, 4, 6, 3) is ResNet-50."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = width
    for stage, depth in enumerate(depths):
        for index in range(depth):
            layers.append(Bottleneck(inputs, width * 2**stage, 2 if stage and not index else 1))
            inputs = 4 * width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def resnet50() -> nn.Module:
    """25.6 million parameters, 4.1 billion MACs at 224 pixels."""
    return resnet((3, 4, 6, 3))


def deep(blocks: int) -> nn.Module:
    """A narrow network of `3 * blocks + 3` weight layers."""
    return resnet((blocks,), width=16, classes=10)
