"""Log-probabilities from hidden states against those from logits, forward and backward, however they are cut up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlvr.learner import logprobs as module
from rlvr.learner.logprobs import chunks, logprobs_and_entropy, token_logprobs

Inputs = tuple[Tensor, Tensor, Tensor | None]


def problem(tokens: int, bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Inputs, Tensor]:
    """Hidden states of width 4, head of a vocabulary of 7, bias, ids."""
    generator = torch.Generator().manual_seed(tokens)
    hidden, weight, b = (
        torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for size in ((tokens, 4), (7, 4), (7,))
    )
    return (hidden, weight, b if bias else None), torch.randint(7, (tokens,), generator=generator)


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logp = (torch.nn.functional.linear(hidden, weight, bias) / temperature).log_softmax(dim=-1)
    return logp.gather(1, ids[:, None])[:, 0], -(logp.exp() * logp).sum(dim=-1)


def gradients(outputs: Any, inputs: Inputs) -> list[Tensor]:
    logprobs, entropy = outputs
    weights = torch.linspace(-1, 2, len(logprobs), dtype=logprobs.dtype)
    loss = (weights * logprobs).sum()
    if entropy.requires_grad:
        loss = loss + (weights.flip(0) * entropy).sum()
    return list(torch.autograd.grad(loss, [x for x in inputs if x is not None]))


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("per_chunk", [1, 2, 100])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_values_and_gradients_are_those_of_all_logits_at_once(
    tokens: int,
    per_chunk: int,
    bias: bool,
    temperature: float,
    entropy_gradient: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 7 * per_chunk)
    inputs, ids = problem(tokens, bias)
    ours = token_logprobs(*inputs, ids, temperature, entropy_gradient)
    theirs = plain(*inputs, ids, temperature)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    assert ours[1].requires_grad == entropy_gradient
    expected = gradients((theirs[0], theirs[1] if entropy_gradient else theirs[1].detach()), inputs)
    for mine, other in zip(gradients(ours, inputs), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.4])
def test_gradients_by_finite_differences(bias: bool, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 14)
    inputs, ids = problem(5, bias)

    def both(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight, *rest = tensors
        return token_logprobs(hidden, weight, rest[0] if rest else None, ids, temperature, True)

    assert torch.autograd.gradcheck(both, tuple(x for x in inputs if x is not None))


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_of_one_of_the_two_is_enough(which: int) -> None:
    inputs, ids = problem(5, True)
    ours, theirs = token_logprobs(*inputs, ids, 0.7, True)[which], plain(*inputs, ids, 0.7)[which]
    tensors = [x for x in inputs if x is not None]
    for mine, other in zip(
        torch.autograd.grad(ours.sum(), tensors), torch.autograd.grad(theirs.sum(), tensors), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("trained", ["hidden", "weight", "bias"])
def test_only_what_is_trained_has_a_gradient(trained: str) -> None:
    (hidden, weight, bias), ids = problem(3, True)
    assert bias is not None
    named = {"hidden": hidden, "weight": weight, "bias": bias}
    for name, tensor in named.items():
        tensor.requires_grad_(name == trained)
    token_logprobs(hidden, weight, bias, ids)[0].sum().backward()
    expected = torch.autograd.grad(plain(hidden, weight, bias, ids, 1.0)[0].sum(), named[trained])[0]
    torch.testing.assert_close(named[trained].grad, expected, rtol=1e-10, atol=1e-10)
    assert all(tensor.grad is None for name, tensor in named.items() if name != trained)


def test_no_token_has_a_gradient_of_zero() -> None:
    inputs, ids = problem(0, True)
    logprobs, entropy = token_logprobs(*inputs, ids)
    assert logprobs.shape == entropy.shape == (0,)
    assert all((gradient == 0).all() for gradient in gradients((logprobs, entropy), inputs))


@pytest.mark.parametrize("per_chunk", [2, 100])
def test_under_autocast_only_the_products_are_rounded(per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 7 * per_chunk)
    inputs, ids = problem(9, True, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = token_logprobs(*inputs, ids, 0.7, True)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    theirs = plain(*inputs, ids, 0.7)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0.03, atol=0.06)
        assert not torch.equal(mine, other)
    pairs = zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True)
    for mine, other in pairs:
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.02 * other.norm()


def test_half_precision_is_summed_in_single() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(2, 8, generator=generator), torch.randn(5000, 8, generator=generator)
    ids = torch.tensor([3, 4999])
    low = token_logprobs(hidden.bfloat16(), weight.bfloat16(), None, ids)
    logits = hidden.bfloat16() @ weight.bfloat16().T
    high = logits.double().log_softmax(dim=-1)
    assert low[0].dtype == low[1].dtype == torch.float32
    torch.testing.assert_close(low[0].double(), high.gather(1, ids[:, None])[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(low[1].double(), -(high.exp() * high).sum(dim=-1), atol=1e-4, rtol=0)


def test_the_entropy_of_a_uniform_and_of_a_certain_choice() -> None:
    hidden, weight = torch.tensor([[0.0], [1.0]]), torch.tensor([[50.0], [0.0], [0.0], [0.0]])
    for found in (
        token_logprobs(hidden, weight, None, torch.tensor([2, 0])),
        logprobs_and_entropy(hidden @ weight.T, torch.tensor([2, 0]), 1.0),
    ):
        assert found[0].tolist() == pytest.approx([-math.log(4), 0], abs=1e-6)
        assert found[1].tolist() == pytest.approx([math.log(4), 0], abs=1e-6)


def test_log_probabilities_from_logits_are_those_of_the_tempered_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 11, generator=generator, requires_grad=True)
    ids = torch.randint(11, (6,), generator=generator)
    ours, entropy = logprobs_and_entropy(logits, ids, 0.7)
    theirs = (logits / 0.7).log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(ours, theirs)
    of_both = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    torch.testing.assert_close(entropy, of_both, atol=1e-5, rtol=1e-5)
    for mine, other in ((ours, theirs), (entropy, of_both)):
        (a,), (b,) = (torch.autograd.grad(x.sum(), logits, retain_graph=True) for x in (mine, other))
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@given(st.integers(0, 500), st.integers(1, 50), st.integers(1, 400))
def test_chunks_take_every_token_once_and_are_as_equal_as_can_be(tokens: int, vocabulary: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_LOGITS", most)
        found = chunks(tokens, vocabulary)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(tokens))
    sizes = [part.stop - part.start for part in found]
    assert all(size >= 1 and (size == 1 or size * vocabulary <= most) for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
