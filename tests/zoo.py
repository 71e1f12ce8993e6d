"""The zoo: small networks of every family that pruning must handle, with random
weights. `ZOO[name]()` gives (module, inputs).

Own definitions of what torchvision and timm have, written as those write it (sizes in
`forward`, functional calls, bare parameters), and architectures of the transformers
library from small configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Make = Callable[[], tuple[nn.Module, tuple[Any, ...]]]
ZOO: dict[str, Make] = {}


def image(size: int = 32, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size)


def conv(i: int, o: int, k: int = 3, s: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


class Net(nn.Module):
    """Stem, body, pooled classifier."""

    def __init__(self, body: nn.Module, out: int, stem: int = 32, stride: int = 2) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv(3, stem, 3, stride), body, nn.Linear(out, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def net(name: str, body: Callable[[], nn.Module], out: int = 32, stem: int = 32) -> None:
    ZOO[name] = lambda: (Net(body(), out, stem), (image(),))


class Residual(nn.Module):
    def __init__(self, body: nn.Module, scale: float | None = None, width: int = 0) -> None:
        super().__init__()
        self.body = body
        self.gamma = nn.Parameter(torch.full((width, 1, 1), scale)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + (y if self.gamma is None else self.gamma * y)


class SqueezeExcite(nn.Module):
    def __init__(self, c: int, r: int = 8) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(c, r, 1), nn.Conv2d(r, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class EfficientChannel(nn.Module):
    """ECA: a 1-d convolution over the channels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).view(x.shape[0], -1, 1, 1)
        return x * torch.sigmoid(y)


class SelectiveKernel(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.c = c
        self.paths = nn.ModuleList([conv(c, c, 3), conv(c, c, 5)])
        self.down, self.up = conv(c, 16, 1), nn.Conv2d(16, 2 * c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([path(x) for path in self.paths], 1)
        attention = self.up(self.down(y.sum(1).mean((2, 3), keepdim=True)))
        attention = torch.softmax(attention.view(x.shape[0], 2, self.c, 1, 1), 1)
        return (y * attention).sum(1)


class SplitAttention(nn.Module):
    """ResNeSt: radix 2, grouped convolution, softmax over the radix."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = conv(c, 2 * c, 3, groups=2)
        self.fc1, self.fc2 = nn.Conv2d(c, 16, 1), nn.Conv2d(16, 2 * c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        b, rc = y.shape[:2]
        y = y.reshape(b, 2, rc // 2, *y.shape[2:])
        a = self.fc2(F.relu(self.fc1(y.sum(1).mean((2, 3), keepdim=True)))).view(b, 2, -1)
        return (y * torch.softmax(a, 1).reshape(b, 2, -1, 1, 1)).sum(1)


class Shuffle(nn.Module):
    """ShuffleNet V2: half of the channels pass, then all are shuffled."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv(c // 2, c // 2, 1),
            conv(c // 2, c // 2, 3, groups=c // 2, act=False),
            conv(c // 2, c // 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0, eps=1e-6
        )
        return self._conv_forward(x, w.reshape_as(self.weight), self.bias)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        ).permute(0, 3, 1, 2)


class GlobalResponse(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, c)), nn.Parameter(torch.zeros(1, 1, 1, c))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (g / (g.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


class ConvNeXtBlock(nn.Module):
    def __init__(self, c: int, response: bool = False) -> None:
        super().__init__()
        self.dw, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)
        self.response = GlobalResponse(4 * c) if response else nn.Identity()
        self.gamma = nn.Parameter(1e-6 * torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.down(self.response(F.gelu(self.up(y))))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class Dense(nn.Module):
    def __init__(self, c: int, growth: int = 16, count: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(conv(c + i * growth, 32, 1), conv(32, growth)) for i in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class CrossStage(nn.Module):
    """CSPNet: one convolution, split in two halves by a size kept in an attribute."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.width = 2 * c
        self.expand, self.blocks, self.join = (
            conv(c, 2 * c, 1),
            nn.Sequential(conv(c, c), conv(c, c)),
            conv(2 * c, c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.expand(x).split(self.width // 2, dim=1)
        return self.join(torch.cat([a, self.blocks(b)], 1))


class HighResolution(nn.Module):
    """HRNet: two resolutions that are summed into each other."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.to_low, self.high, self.low = conv(c, 2 * c, 3, 2), conv(c, c), conv(2 * c, 2 * c)
        self.up, self.down = conv(2 * c, c, 1, act=False), conv(c, 2 * c, 3, 2, act=False)

    def forward(self, x: Tensor) -> Tensor:
        high, low = self.high(x), self.low(self.to_low(x))
        fused = F.relu(high + F.interpolate(self.up(low), size=high.shape[-2:], mode="bilinear"))
        low = F.relu(low + self.down(high))
        return torch.cat([fused, F.interpolate(low, size=high.shape[-2:], mode="nearest")], 1)


class Res2(nn.Module):
    """Res2Net: slices of the channels go through one another."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.width = c // 4
        self.first, self.last = conv(c, c, 1), conv(c, c, 1)
        self.convs = nn.ModuleList(conv(c // 4, c // 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.first(x), self.width, 1)
        out, y = [], parts[0]
        for i, layer in enumerate(self.convs):
            y = layer(parts[i] if i == 0 else y + parts[i])
            out.append(y)
        return x + self.last(torch.cat([*out, parts[3]], 1))


class Ghost(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.out = o
        self.primary, self.cheap = conv(i, o // 2, 1), conv(o // 2, o // 2, 3, groups=o // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.out]


class Inception(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(c, 16, 1), nn.Sequential(conv(c, 24, 1), conv(24, 32)), conv(c, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x), self.c(F.avg_pool2d(x, 3, 1, 1))], 1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 32), conv(32, 64, 3, 2), conv(64, 128, 3, 2)
        self.up1, self.up2 = nn.ConvTranspose2d(128, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)
        self.d1, self.d2, self.out = conv(128, 64), conv(64, 32), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        y = self.d1(torch.cat([self.up1(self.c(b)), b], 1))
        return self.out(self.d2(torch.cat([self.up2(y), a], 1)))


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.up, self.out = (
            nn.Sequential(conv(3, 64, 5), conv(64, 64)),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.Conv2d(32, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.pixel_shuffle(self.up(self.body(x)), 2))


class BlurPool(nn.Module):
    """Anti-aliasing: a fixed depthwise kernel whose width is an attribute."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.channels = c
        self.register_buffer("kernel", torch.ones(c, 1, 3, 3) / 9, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=2, padding=1, groups=self.channels)


net(
    "resnet_basic",
    lambda: nn.Sequential(
        *(Residual(nn.Sequential(conv(32, 32), conv(32, 32, act=False))) for _ in range(3))
    ),
)
net(
    "resnet_bottleneck",
    lambda: nn.Sequential(
        *(Residual(nn.Sequential(conv(32, 16, 1), conv(16, 16), conv(16, 32, 1))) for _ in range(3))
    ),
)
net(
    "resnext_grouped",
    lambda: Residual(nn.Sequential(conv(32, 64, 1), conv(64, 64, 3, groups=8), conv(64, 32, 1))),
)
net(
    "mobilenet_depthwise",
    lambda: Residual(nn.Sequential(conv(32, 96, 1), conv(96, 96, 3, groups=96), conv(96, 32, 1, act=False))),
)
net(
    "efficientnet_se",
    lambda: Residual(
        nn.Sequential(conv(32, 96, 1), conv(96, 96, 3, groups=96), SqueezeExcite(96), conv(96, 32, 1))
    ),
)
net("eca", lambda: Residual(nn.Sequential(conv(32, 64), EfficientChannel(), conv(64, 32))))
net("selective_kernel", lambda: nn.Sequential(SelectiveKernel(32), conv(32, 32)))
net("split_attention", lambda: nn.Sequential(SplitAttention(32), conv(32, 32)))
net("shufflenet", lambda: nn.Sequential(conv(32, 64, 1), Shuffle(64), Shuffle(64), conv(64, 32, 1)))
net(
    "weight_standardised",
    lambda: Residual(
        nn.Sequential(
            StandardisedConv(32, 64, 3, padding=1), nn.ReLU(), StandardisedConv(64, 32, 3, padding=1)
        )
    ),
)
net(
    "group_norm",
    lambda: Residual(
        nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.ReLU(), nn.Conv2d(64, 32, 1))
    ),
)
net(
    "instance_norm",
    lambda: nn.Sequential(
        nn.Conv2d(32, 64, 3), nn.InstanceNorm2d(64, affine=True), nn.ReLU(), nn.Conv2d(64, 32, 1)
    ),
)
net("layer_norm_2d", lambda: nn.Sequential(nn.Conv2d(32, 64, 1), LayerNorm2d(64), nn.Conv2d(64, 32, 3)))
net("convnext", lambda: nn.Sequential(ConvNeXtBlock(32), ConvNeXtBlock(32)))
net("convnext_v2", lambda: nn.Sequential(ConvNeXtBlock(32, True), ConvNeXtBlock(32, True)))
net("layer_scale", lambda: Residual(nn.Sequential(conv(32, 64), conv(64, 32)), 1e-5, 32))
net("densenet", lambda: nn.Sequential(Dense(32), conv(96, 32, 1)))
net("cspnet", lambda: nn.Sequential(CrossStage(32), CrossStage(32)))
net("hrnet", lambda: nn.Sequential(HighResolution(32), conv(96, 32, 1)))
net("res2net", lambda: nn.Sequential(conv(32, 64, 1), Res2(64), Res2(64), conv(64, 32, 1)))
net("ghostnet", lambda: nn.Sequential(Ghost(32, 64), Ghost(64, 64), conv(64, 32, 1)))
net("inception", lambda: nn.Sequential(Inception(32), conv(64, 64), conv(64, 32)))
net(
    "convmixer",
    lambda: nn.Sequential(
        *(nn.Sequential(Residual(conv(32, 32, 5, groups=32)), conv(32, 32, 1)) for _ in range(3))
    ),
)
net("blur_pool", lambda: nn.Sequential(conv(32, 64), BlurPool(64), conv(64, 32)))
net("parametric_relu", lambda: nn.Sequential(nn.Conv2d(32, 64, 3), nn.PReLU(64), nn.Conv2d(64, 32, 3)))
net(
    "max_unpooled",
    lambda: nn.Sequential(
        conv(32, 64),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bicubic"),
        nn.ReflectionPad2d(1),
        conv(64, 32),
    ),
)
ZOO["unet"] = lambda: (UNet(), (image(),))
ZOO["super_resolution"] = lambda: (SuperResolution(), (image(16),))
ZOO["vgg"] = lambda: (
    nn.Sequential(
        conv(3, 32),
        nn.MaxPool2d(2),
        conv(32, 64),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.Dropout(),
        nn.Linear(128, 10),
    ),
    (image(),),
)
ZOO["conv3d"] = lambda: (
    nn.Sequential(
        nn.Conv3d(3, 32, 3),
        nn.BatchNorm3d(32),
        nn.ReLU(),
        nn.Conv3d(32, 32, 3),
        nn.Flatten(),
        nn.Linear(32 * 64, 5),
    ),
    (torch.randn(2, 3, 8, 8, 8),),
)
ZOO["conv1d"] = lambda: (
    nn.Sequential(
        nn.Conv1d(4, 64, 5),
        nn.BatchNorm1d(64),
        nn.GELU(),
        nn.Conv1d(64, 64, 3, dilation=2),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(64, 5),
    ),
    (torch.randn(2, 4, 64),),
)


class Attention(nn.Module):
    """As timm writes it: one linear layer for all three, heads and head width as
    attributes."""

    def __init__(self, dim: int, heads: int, rope: bool = False, bias_table: int = 0) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim, self.rope = heads, dim // heads, dim, rope
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.table = (
            nn.Parameter(torch.randn((2 * bias_table - 1) ** 2, heads) * 0.02) if bias_table else None
        )
        if bias_table:
            at = torch.stack(
                torch.meshgrid(torch.arange(bias_table), torch.arange(bias_table), indexing="ij")
            ).flatten(1)
            relative = (at[:, :, None] - at[:, None, :]) + bias_table - 1
            self.register_buffer("index", relative[0] * (2 * bias_table - 1) + relative[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rope:
            angle = (
                torch.arange(n, dtype=x.dtype)[:, None]
                * torch.arange(self.head_dim // 2, dtype=x.dtype)[None]
                / 10.0
            )
            cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
            q, k = (
                y * cos + torch.cat([-y[..., self.head_dim // 2 :], y[..., : self.head_dim // 2]], -1) * sin
                for y in (q, k)
            )
        a = (q * self.scale) @ k.transpose(-2, -1)
        if self.table is not None:
            a = a + self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)[None]
        return self.proj((a.softmax(-1) @ v).transpose(1, 2).reshape(b, n, self.attn_dim))


class FromStream(Attention):
    """As older code writes it: the width of the heads is that of the stream, so only
    the graph can lose heads."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class GroupedQuery(nn.Module):
    def __init__(self, dim: int, heads: int, kv: int) -> None:
        super().__init__()
        self.dim = dim // heads
        self.groups = heads // kv
        self.q, self.k, self.v, self.o = (
            nn.Linear(dim, dim),
            nn.Linear(dim, kv * self.dim),
            nn.Linear(dim, kv * self.dim),
            nn.Linear(dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, -1, self.dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k, v = (y.repeat_interleave(self.groups, 1) for y in (k, v))
        return self.o(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, n, -1)
        )


class Linear(nn.Module):
    """Linear attention: keys times values first, no softmax over positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        y = torch.einsum("bhnd,bhde->bhne", q, torch.einsum("bhnd,bhne->bhde", k, v)) / (
            q @ k.sum(2)[..., None] + 1e-6
        )
        return self.o(y.transpose(1, 2).reshape(b, n, -1))


class Mlp(nn.Module):
    def __init__(self, dim: int, gated: bool = False) -> None:
        super().__init__()
        self.gated = gated
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(2 * dim if gated else 4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.gated:
            a, b = y.chunk(2, -1)
            return self.down(F.silu(a) * b)
        return self.down(F.gelu(y))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, mlp: nn.Module, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = norm(), attention, norm(), mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    """Patches, a class token, positions as bare parameters, blocks."""

    def __init__(self, make: Callable[[], nn.Module], dim: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.cls, self.pos = (
            nn.Parameter(torch.zeros(1, 1, dim)),
            nn.Parameter(torch.randn(1, 17, dim) * 0.02),
        )
        self.blocks, self.norm, self.head = (
            nn.Sequential(*(make() for _ in range(depth))),
            nn.LayerNorm(dim),
            nn.Linear(dim, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls.expand(y.shape[0], -1, -1), y], 1) + self.pos
        return self.head(self.norm(self.blocks(y))[:, 0])


class Window(nn.Module):
    """Swin: window partition, cyclic shift, attention with a bias table."""

    def __init__(self, dim: int, shift: int) -> None:
        super().__init__()
        self.shift, self.norm1, self.norm2, self.attention, self.mlp = (
            shift,
            nn.LayerNorm(dim),
            nn.LayerNorm(dim),
            Attention(dim, 4, bias_table=4),
            Mlp(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attention(y).view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.blocks, self.head = (
            nn.Conv2d(3, 64, 4, 4),
            nn.Sequential(Window(64, 0), Window(64, 2)),
            nn.Linear(128, 10),
        )
        self.merge = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.patch(x).permute(0, 2, 3, 1))
        y = torch.cat([y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]], -1)
        return self.head(self.merge(y).mean((1, 2)))


class Mixer(nn.Module):
    def __init__(self, dim: int, tokens: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.tokens, self.channels = (
            nn.LayerNorm(dim),
            nn.LayerNorm(dim),
            Mlp(tokens),
            Mlp(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class SpatialGate(nn.Module):
    """gMLP: half of the hidden width gates the other through a normalisation over it
    and a mix of the tokens."""

    def __init__(self, dim: int, tokens: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)
        self.inner, self.mix = nn.LayerNorm(2 * dim), nn.Linear(tokens, tokens)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.gelu(self.up(self.norm(x))).chunk(2, -1)
        return x + self.down(a * self.mix(self.inner(b).transpose(1, 2)).transpose(1, 2))


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(4, 1, 64))
        self.encode, self.attention, self.mlp, self.head = (
            nn.Linear(12, 64),
            nn.MultiheadAttention(64, 8),
            Mlp(64),
            nn.Linear(64, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        memory = self.encode(x)
        y, _ = self.attention(
            self.queries.expand(-1, memory.shape[1], -1), memory, memory, need_weights=False
        )
        return self.head(self.mlp(y))


class Language(nn.Module):
    """Tied embeddings, rotary positions, gated MLPs, RMS norms."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed, self.blocks, self.norm = (
            nn.Embedding(50, 64),
            nn.Sequential(make(), make()),
            nn.RMSNorm(64),
        )
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], both: bool) -> None:
        super().__init__()
        self.embed, self.cell, self.head = (
            nn.Embedding(50, 64),
            kind(64, 64, 2, batch_first=True, bidirectional=both),
            nn.Linear(64 * (1 + both), 10),
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(ids))[0][:, -1])


def tokens() -> tuple[Tensor]:
    return (torch.randint(0, 50, (2, 12)),)


layer = lambda: nn.LayerNorm(64)  # noqa: E731
ZOO["vit"] = lambda: (Vision(lambda: Block(Attention(64, 8), Mlp(64), layer)), (image(),))
ZOO["vit_from_stream"] = lambda: (Vision(lambda: Block(FromStream(64, 8), Mlp(64), layer)), (image(),))
ZOO["vit_linear_attention"] = lambda: (Vision(lambda: Block(Linear(64, 8), Mlp(64), layer)), (image(),))
ZOO["vit_gated"] = lambda: (
    Vision(lambda: Block(Attention(64, 8, rope=True), Mlp(64, True), layer)),
    (image(),),
)
ZOO["vit_torch"] = lambda: (
    Vision(lambda: nn.TransformerEncoderLayer(64, 8, 256, batch_first=True)),
    (image(),),
)
ZOO["mixer"] = lambda: (Vision(lambda: Mixer(64, 17)), (image(),))
ZOO["gmlp"] = lambda: (Vision(lambda: SpatialGate(64, 17)), (image(),))
ZOO["swin"] = lambda: (Swin(), (image(),))
ZOO["cross_attention"] = lambda: (CrossAttention(), (torch.randn(9, 2, 12),))
ZOO["language_rotary"] = lambda: (
    Language(lambda: Block(Attention(64, 8, rope=True), Mlp(64, True), lambda: nn.RMSNorm(64))),
    tokens(),
)
ZOO["language_grouped_queries"] = lambda: (
    Language(lambda: Block(GroupedQuery(64, 8, 4), Mlp(64, True), lambda: nn.RMSNorm(64))),
    tokens(),
)
ZOO["lstm"] = lambda: (Recurrent(nn.LSTM, True), tokens())
ZOO["gru"] = lambda: (Recurrent(nn.GRU, False), tokens())


def _hugging_face() -> None:
    """Architectures of the transformers library; their classes are imported when they
    are made."""
    text = {
        "vocab_size": 128,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    grouped = {**text, "num_key_value_heads": 2}
    vision = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 32,
        "patch_size": 8,
    }
    both = {
        "vocab_size": 128,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
    }
    both |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    sound = {
        "conv_dim": [32, 32],
        "conv_stride": [5, 2],
        "conv_kernel": [10, 3],
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16,
    }
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    ids = lambda n=16: torch.randint(3, 120, (2, n))  # noqa: E731

    def add(kind: str, inputs: Callable[[], tuple[Any, ...]], head: str = "Model", **config: Any) -> None:
        def make() -> tuple[nn.Module, tuple[Any, ...]]:
            import transformers

            made = getattr(transformers, f"{kind}Config")(**config)
            return getattr(transformers, f"{kind}{head}")(made).eval(), inputs()

        ZOO[f"hf_{kind.lower()}{'' if head == 'Model' else '_' + head.lower()}"] = make

    for kind in ("Bert", "Roberta", "Electra", "MPNet", "LayoutLM"):
        add(kind, lambda: (ids(),), **text)
    add("Bert", lambda: (ids(),), "ForSequenceClassification", **text)
    add("DistilBert", lambda: (ids(),), vocab_size=128, dim=64, n_layers=2, n_heads=4, hidden_dim=128)
    add("Albert", lambda: (ids(),), embedding_size=32, **text)
    add("DebertaV2", lambda: (ids(),), **text)
    add("SqueezeBert", lambda: (ids(),), embedding_size=64, **text)
    add("FNet", lambda: (ids(),), vocab_size=128, hidden_size=64, num_hidden_layers=2, intermediate_size=128)
    add("ModernBert", lambda: (ids(),), cls_token_id=1, sep_token_id=2, **special, **text)
    add(
        "GPT2",
        lambda: (ids(),),
        "LMHeadModel",
        vocab_size=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    add(
        "OPT",
        lambda: (ids(),),
        "ForCausalLM",
        ffn_dim=128,
        word_embed_proj_dim=64,
        max_position_embeddings=64,
        **text,
    )
    add("Bloom", lambda: (ids(),), "ForCausalLM", vocab_size=128, hidden_size=64, n_layer=2, n_head=4)
    add("GPTNeoX", lambda: (ids(),), "ForCausalLM", **text)
    for kind in ("Llama", "Mistral", "Qwen2", "StableLm"):
        add(kind, lambda: (ids(),), "ForCausalLM", **grouped)
    add("Gemma2", lambda: (ids(),), "ForCausalLM", head_dim=16, **grouped)
    add("Phi3", lambda: (ids(),), "ForCausalLM", **special, **grouped)
    add("Mixtral", lambda: (ids(),), "ForCausalLM", num_local_experts=4, **grouped)
    add("Mamba", lambda: (ids(),), "ForCausalLM", vocab_size=128, hidden_size=64, num_hidden_layers=2)
    mask = lambda: torch.ones(2, 16, dtype=torch.long)  # noqa: E731
    add(
        "T5",
        lambda: (ids(), mask(), ids(8)),
        "ForConditionalGeneration",
        vocab_size=128,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
    )
    add(
        "Bart",
        lambda: (ids(), mask(), ids(8)),
        "ForConditionalGeneration",
        max_position_embeddings=64,
        **both,
    )
    add(
        "Whisper", lambda: (torch.randn(2, 16, 60), None, ids(8)),
        num_mel_bins=16, max_source_positions=30, max_target_positions=32, decoder_start_token_id=1, **special, **both,
    )  # fmt: skip
    for kind in ("ViT", "DeiT", "Beit", "CLIPVision"):
        add(kind, lambda: (image(),), **vision)
    add("Dinov2", lambda: (image(),), **vision)
    small = {
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 32,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
    }
    add("Swin", lambda: (image(64),), "ForImageClassification", **small)
    add(
        "ConvNext",
        lambda: (image(64),),
        "ForImageClassification",
        hidden_sizes=[32, 64],
        depths=[2, 2],
        num_stages=2,
    )
    add("MobileViT", lambda: (image(64),), "ForImageClassification", image_size=64)
    add(
        "Wav2Vec2",
        lambda: (torch.randn(2, 2000),),
        num_conv_pos_embedding_groups=4,
        **sound,
        **{**text, "vocab_size": 32},
    )


_hugging_face()
