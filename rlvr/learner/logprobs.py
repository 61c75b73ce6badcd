"""Log-probabilities of tokens from hidden states, without the logits of a whole micro-batch.

Logits are computed for a few tokens at a time, forward and again backward, so that memory grows with the vocabulary
and not with vocabulary times tokens. Gradients are in closed form: with `p = softmax(z)`, `H` its entropy and
temperature τ,

    d log p_y / dz = (1_y - p) / τ        dH / dz = -p (log p + H) / τ

Shape suffixes: N tokens, H hidden width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 2**22  # of one chunk: 16 MiB in float32


def token_logprobs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    ids_N: Tensor,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """log π(id) under the softmax at `temperature`, and its entropy in nats; both [N], in float32 (or float64).

    Args:
        hidden_NH: Last hidden states at the tokens' places [N, H].
        weight_VH: Weight of the output layer [V, H].
        bias_V: Its bias [V].
        ids_N: The tokens [N].
        temperature: Of the softmax.
        entropy_gradient: Whether the entropy has a gradient too.
    """
    logprobs_N, entropy_N = _TokenLogprobs.apply(hidden_NH, weight_VH, bias_V, ids_N, temperature)
    return logprobs_N, entropy_N if entropy_gradient else entropy_N.detach()


def logprobs_and_entropy(logits_NV: Tensor, ids_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same from logits [N, V], for models whose logits are more than one linear layer; gradient to both."""
    logp_NV = (logits_NV.float() / temperature).log_softmax(dim=-1)
    return logp_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1), -(logp_NV.exp() * logp_NV).sum(dim=-1)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        device = hidden_NH.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VH.dtype
        wide = torch.promote_types(low, torch.float32)
        logprobs_N, entropy_N, log_z_N = (hidden_NH.new_empty(len(ids_N), dtype=wide) for _ in range(3))
        with torch.autocast(device, enabled=False):
            head_VH = weight_VH.to(low)
            for part in chunks(len(ids_N), len(weight_VH)):
                z_CV = logits(hidden_NH[part].to(low), head_VH, bias_V, temperature, wide)
                log_z_C = z_CV.logsumexp(dim=-1)
                logprobs_N[part] = z_CV.gather(-1, ids_N[part, None]).squeeze(-1) - log_z_C
                p_CV = (z_CV - log_z_C[:, None]).exp_()
                entropy_N[part] = log_z_C - (p_CV.mul_(z_CV)).sum(dim=-1)
                log_z_N[part] = log_z_C
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, ids_N, log_z_N, entropy_N)
        ctx.temperature, ctx.low, ctx.wide = temperature, low, wide
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, ids_N, log_z_N, entropy_N = ctx.saved_tensors
        of_logprobs_N, of_entropy_N = gradients
        if of_logprobs_N is None:
            of_logprobs_N = torch.zeros_like(log_z_N)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden_NH = torch.empty_like(hidden_NH) if needs_hidden else None
        d_weight_VH = torch.zeros_like(weight_VH, dtype=ctx.wide) if needs_weight else None
        d_bias_V = torch.zeros_like(bias_V, dtype=ctx.wide) if needs_bias and bias_V is not None else None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            head_VH = weight_VH.to(ctx.low)
            for part in chunks(len(ids_N), len(weight_VH)):
                h_CH = hidden_NH[part].to(ctx.low)
                d_CV = logits(h_CH, head_VH, bias_V, ctx.temperature, ctx.wide)
                d_CV.sub_(log_z_N[part, None])  # log p
                if of_entropy_N is None:
                    d_CV.exp_().mul_(-of_logprobs_N[part, None])
                else:
                    above_CV = (d_CV + entropy_N[part, None]).mul_(of_entropy_N[part, None])
                    d_CV.exp_().mul_(-(above_CV.add_(of_logprobs_N[part, None])))
                d_CV.scatter_add_(-1, ids_N[part, None], of_logprobs_N[part, None])
                if ctx.temperature != 1:
                    d_CV.div_(ctx.temperature)
                if d_bias_V is not None:
                    d_bias_V += d_CV.sum(dim=0)
                d_low_CV = d_CV.to(ctx.low)
                if d_hidden_NH is not None:
                    d_hidden_NH[part] = (d_low_CV @ head_VH).to(d_hidden_NH)
                if d_weight_VH is not None:
                    if ctx.low == ctx.wide:
                        d_weight_VH.addmm_(d_low_CV.T, h_CH)
                    else:
                        d_weight_VH += d_low_CV.T @ h_CH
        cast = d_weight_VH.to(weight_VH) if d_weight_VH is not None else None
        return d_hidden_NH, cast, d_bias_V.to(bias_V) if d_bias_V is not None else None, None, None


def logits(h_CH: Tensor, head_VH: Tensor, bias_V: Tensor | None, temperature: float, wide: torch.dtype) -> Tensor:
    """Logits over the temperature [C, V], in the wide type."""
    z_CV = (h_CH @ head_VH.T).to(wide)
    if bias_V is not None:
        z_CV.add_(bias_V)
    return z_CV.div_(temperature) if temperature != 1 else z_CV


def chunks(tokens: int, vocabulary: int) -> list[slice]:
    """Runs of tokens, as equal as can be, each with at most `CHUNK_LOGITS` logits (or a single token)."""
    number = -(-tokens // max(CHUNK_LOGITS // vocabulary, 1))
    return [slice(i * tokens // number, (i + 1) * tokens // number) for i in range(number)]
