"""Three small networks, written the way people write them: nothing here knows that it
will be pruned."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network: (n, channels, h, w) to (n, classes)."""

    def __init__(
        self, width: int, depths: tuple[int, ...], channels: int, classes: int, big_stem: bool
    ) -> None:
        super().__init__()
        if big_stem:
            self.stem = nn.Sequential(
                nn.Conv2d(channels, width, 7, 2, 3, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, 1),
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
        blocks: list[nn.Module] = []
        inputs = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                outputs = width * 2**stage
                blocks.append(ResidualBlock(inputs, outputs, 2 if stage and not index else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value: (n, t,
    width) to the same."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.causal = heads, width // heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: torch.Tensor = self.out(y.transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))
        return out


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each with a shortcut."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        y: torch.Tensor = self.mlp(self.norm2(x))
        return x + y


class VisionTransformer(nn.Module):
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929): (n, channels, size,
    size) to (n, classes)."""

    def __init__(
        self, size: int, patch: int, channels: int, width: int, depth: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.image_size = size
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        logits: torch.Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class ByteModel(nn.Module):
    """A causal language model over bytes: (n, t) of int64 to (n, t, 256) logits."""

    def __init__(self, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.blocks(self.embedding(ids) + self.position)))
        return logits


def digits_resnet(width: int = 32) -> ResNet:
    """For 1x32x32 digits."""
    return ResNet(width, (2, 2, 2), 1, 10, big_stem=False)


def resnet18(classes: int = 1000) -> ResNet:
    """ResNet-18's shape for 3x224x224 images, weights random."""
    return ResNet(64, (2, 2, 2, 2), 3, classes, big_stem=True)


def digits_vit(width: int = 64, depth: int = 4) -> VisionTransformer:
    """For 1x32x32 digits."""
    return VisionTransformer(32, 4, 1, width, depth, 4, 10)


def vit_base() -> VisionTransformer:
    """ViT-B/16's shape for 3x224x224 images (86.6M parameters), weights random."""
    return VisionTransformer(224, 16, 3, 768, 12, 12, 1000)


def byte_lm(width: int = 128, depth: int = 4) -> ByteModel:
    """For sequences of 64 bytes."""
    return ByteModel(64, width, depth, 8)
