"""Attention by either kernel is equation 1, and so are its gradients."""

import pytest
import torch

from selfsup.models.attention import attend


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    scores = (q @ k.transpose(2, 3)) / q.shape[3] ** 0.5
    weights = torch.where(seen, scores, -torch.inf).exp()
    return weights / weights.sum(dim=3, keepdim=True) @ v


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_equation_1_with_its_gradients(dtype: torch.dtype, causal: bool) -> None:
    inputs = [torch.randn(2, 3, 5, 8, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]
    seen = torch.ones(5, 5, dtype=torch.bool).tril() if causal else torch.rand(2, 1, 5, 5) < 0.7
    seen = seen | torch.eye(5, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):  # which would undo the casts to float32
        got = attend(*inputs, None if causal else seen, causal=causal)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = naive(*exact, seen)
    assert got.dtype == dtype
    near = {"atol": 1e-9, "rtol": 1e-9} if dtype == torch.float64 else {"atol": 2e-2, "rtol": 1e-2}
    torch.testing.assert_close(got.double(), expected, **near)
    weight = torch.randn(expected.shape, dtype=torch.float64)
    (got.double() * weight).sum().backward()
    (expected * weight).sum().backward()
    for x, y in zip(inputs, exact, strict=True):
        torch.testing.assert_close(x.grad.double(), y.grad, **{**near, "atol": max(near["atol"], 5e-2 if dtype == torch.bfloat16 else 0)})


def test_bfloat16_on_a_cpu_is_computed_in_float32() -> None:
    q, k, v = (torch.randn(1, 1, 64, 16, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(q, k, v)
    whole = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert torch.equal(got, whole.bfloat16())
