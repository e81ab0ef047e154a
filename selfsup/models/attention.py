"""Attention, computed in whichever of torch's kernels is fast for it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def attend(
    q: Float[Tensor, "B heads T d"],
    k: Float[Tensor, "B heads S d"],
    v: Float[Tensor, "B heads S d"],
    seen: Tensor | None = None,
    *,
    dropout: float = 0.0,
    causal: bool = False,
) -> Float[Tensor, "B heads T d"]:
    """softmax(Q K^T / sqrt(d)) V in every head (1706.03762, equation 1).

    Args:
        q, k, v: queries, keys and values.
        seen: bool that expands to (B, heads, T, S), True where a query may look at a key; None for everywhere.
        dropout: probability of dropping a weight of attention, 0 to 1.
        causal: no query sees a later key; `seen` is then None.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, seen, dropout, is_causal=causal)
    # On a CPU the kernel's backward pass in bfloat16 takes 2 to 4 times what it takes in float32, casts counted (torch 2.13, measured).
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), seen, dropout, is_causal=causal).to(q.dtype)
