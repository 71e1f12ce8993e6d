"""Classes that stand where a pruned module cannot keep its own.

`PrunedMultiheadAttention` is attention with fewer heads than its residual width allows
for: the stock class derives the width of its heads from the width of its input, so a
head cannot leave without the stream losing width too. It keeps the parameter names and
the calling convention, and takes `num_heads * head_dim` from its own attributes.
`Skipped` stands for a residual block that was left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ATTENTION = "mlopt.model.replacements.PrunedMultiheadAttention"
SKIPPED = "mlopt.model.replacements.Skipped"
MOVED = {
    "mlopt.pruning.attention.PrunedMultiheadAttention": ATTENTION,
    "mlopt.pruning.depth.Skipped": SKIPPED,
}
"""Where bundles of the first edition say that these classes are."""


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """Takes over the state of a `nn.MultiheadAttention` whose projections were cut to
    `num_heads * head_dim` rows.

    `_qkv_same_embed_dim` is false on instances, so that `nn.TransformerEncoderLayer`
    never takes the fused path, which would read the weights with the stock layout.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Shapes as in `nn.MultiheadAttention`: (L, N, E) or, with `batch_first`, (N,
        L, E); (L, E) without a batch."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        n, length, _ = query.shape
        source = key.shape[1]
        heads, width = self.num_heads, self.head_dim
        assert self.in_proj_weight is not None
        wq, wk, wv = self.in_proj_weight.chunk(3)
        bq, bk, bv = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        q = F.linear(query, wq, bq).reshape(n, length, heads, width).transpose(1, 2)
        k = F.linear(key, wk, bk).reshape(n, source, heads, width).transpose(1, 2)
        v = F.linear(value, wv, bv).reshape(n, source, heads, width).transpose(1, 2)
        bias = self._bias(attn_mask, key_padding_mask, n, heads, q)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * width**-0.5
            weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
            out = F.dropout(weights, dropout, self.training) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        out = self.out_proj(out.transpose(1, 2).reshape(n, length, heads * width))
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _bias(
        self, attn_mask: Tensor | None, padding: Tensor | None, n: int, heads: int, like: Tensor
    ) -> Tensor | None:
        """Both masks as one additive bias that broadcasts to (N, heads, L, S)."""

        def additive(mask: Tensor) -> Tensor:
            if mask.dtype != torch.bool:
                return mask.to(like.dtype)
            return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))

        bias: Tensor | None = None
        if attn_mask is not None:
            bias = additive(attn_mask)
            # A mask a head is (N * heads, L, S) and may not know that heads were cut:
            # one mask for all heads is what can be kept.
            bias = bias.reshape(n, -1, *bias.shape[1:])[:, :heads] if bias.dim() == 3 else bias[None, None]
        if padding is not None:
            pad = additive(padding)[:, None, None, :]
            bias = pad if bias is None else bias + pad
        return bias


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a call, by position or by name."""
    return args[0] if args else next(iter(kwargs.values()), None)


class Skipped(nn.Module):
    """Stands where a block was and passes its first argument on: alone, or first of
    `places` outputs as the block did."""

    places = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = first_argument(args, kwargs)
        return (given, *([None] * (self.places - 1))) if self.places else given
