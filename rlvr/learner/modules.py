"""The trainable modules of a learner: forward passes over a packed micro-batch, for DDP and FSDP2 to wrap."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rlvr.learner.batch import Batch
from rlvr.learner.logprobs import logprobs_and_entropy, token_logprobs
from rlvr.learner.policy import local

ADAPTER = re.compile(r"(^|\.)(lora_|modules_to_save)")  # in the names of parameters that PEFT adds


class PolicyModule(nn.Module):
    """A policy as the learner uses it: log-probabilities of targets in, nothing of the logits out.

    Args:
        model: A causal language model, with adapters (PEFT) or without.

    Attributes:
        chunked: Whether log-probabilities come from the hidden states a few tokens at a time. That takes logits that
            are one linear layer of them and nothing more.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.chunked = has_plain_head(model)

    def forward(
        self, batch: Batch, temperature: float, entropy_gradient: bool = False, without_adapter: bool = False
    ) -> tuple[Tensor, Tensor]:
        """log π of the targets and the entropy of the distributions they were drawn from, both [N], float32.

        Args:
            batch: Micro-batch.
            temperature: Of the softmax.
            entropy_gradient: Whether the entropy has a gradient too.
            without_adapter: Compute with the weights below the adapters.
        """
        with self.model.disable_adapter() if without_adapter else contextlib.nullcontext():  # type: ignore[operator]
            base = base_model(self.model)
            if not self.chunked:
                logits_NV = base(**inputs(batch)).logits.flatten(0, 1)[batch.where_N]
                logprobs_N, entropy_N = logprobs_and_entropy(logits_NV, batch.targets_N, temperature)
                return logprobs_N, entropy_N if entropy_gradient else entropy_N.detach()
            hidden_NH = base.get_decoder()(**inputs(batch)).last_hidden_state.flatten(0, 1)[batch.where_N]
            head = base.get_output_embeddings()
            return token_logprobs(hidden_NH, head.weight, head.bias, batch.targets_N, temperature, entropy_gradient)


class Critic(nn.Module):
    """A value model: the policy's architecture with one output in place of the vocabulary.

    V begins as 0 everywhere, so that the first advantages are returns and not noise.

    Args:
        model: A causal language model of which the trunk is kept; its head is dropped.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        base = base_model(model)
        self.trunk = base.get_decoder()
        weight = next(self.trunk.parameters())
        self.head = nn.Linear(base.config.get_text_config().hidden_size, 1, device=weight.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Tensor:
        """V of what precedes each target [N], float32."""
        hidden_NH = self.trunk(**inputs(batch)).last_hidden_state.flatten(0, 1)[batch.where_N]
        with torch.autocast(hidden_NH.device.type, enabled=False):  # a bfloat16 near 16 is off by up to 0.06
            values_N1 = linear(hidden_NH.float(), self.head.weight.float(), self.head.bias.float())
        return values_N1.squeeze(-1)


@torch.no_grad()
def has_plain_head(model: Any) -> bool:
    """Whether a model's logits are one linear layer of its last hidden states: neither capped nor scaled.

    Both leave traces in the config. What does not is found by comparing, on a few tokens; that alone would not do, as
    a cap changes next to nothing while logits are small.
    """
    base = base_model(model)
    head, config = base.get_output_embeddings(), base.config.get_text_config()
    traces = {k: v for k, v in config.to_dict().items() if "logit" in k and "keep" not in k}
    changed = any(isinstance(v, (int, float)) and not isinstance(v, bool) and v not in (0, 1) for v in traces.values())
    if type(head) is not nn.Linear or changed:
        return False
    training = model.training
    model.eval()
    ids_SL = torch.arange(min(8, len(head.weight)), device=head.weight.device)[None]
    logits_SLV = base(input_ids=ids_SL, use_cache=False).logits.float()
    hidden_SLH = base.get_decoder()(input_ids=ids_SL, use_cache=False).last_hidden_state
    model.train(training)
    apart = (linear(hidden_SLH.to(head.weight.dtype), head.weight, head.bias).float() - logits_SLV).abs().max()
    return bool(apart <= 1e-3 * logits_SLV.std() + 1e-6)


def inputs(batch: Batch) -> dict[str, Any]:
    """A micro-batch as a model's keyword arguments."""
    return {
        "input_ids": batch.ids_SL,
        "attention_mask": batch.attention,
        "position_ids": batch.positions_SL,
        "use_cache": False,
    }


def base_model(model: Any) -> Any:
    """The language model below its adapters, if it has some; adapters stay at work in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model that are the same over and over: what is sharded, compiled and recomputed one by one."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names]


def recompute_layers(model: nn.Module) -> None:
    """Turns gradient checkpointing on: activations within a layer are computed again in the backward pass."""
    base = base_model(model)
    # Its name until transformers renamed it.
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def learning_mode(module: nn.Module, recompute: bool) -> None:
    """Evaluation mode, as dropout would make the ratio to the policy that sampled a matter of chance; but layers that
    recompute do so in training mode only, so these, and not what is in them, are told that they train."""
    module.eval()
    if recompute:
        for layer in module.modules():
            if getattr(layer, "gradient_checkpointing", False):
                layer.training = True


def frozen(model: nn.Module) -> nn.Module:
    """The model, never to be trained."""
    return model.eval().requires_grad_(False)


@torch.no_grad()
def fingerprint(model: nn.Module) -> int:
    """A number that stays the same as long as the weights do, to prove that a reference is frozen.

    Of each parameter it takes the size and up to 256 elements, evenly spread; so it is cheap for a model of any size,
    and sees whatever an optimiser does, but not an edit of single elements. With adapters (PEFT) only what lies below
    them counts. Of a model that is spread over processes, each has the number of its own part. Another compute type has
    another number.

    Args:
        model: Any module.

    Returns:
        48 bits of a SHA-256.
    """
    whole = [local(own).detach().flatten() for name, own in model.named_parameters() if not ADAPTER.search(name)]
    samples = [flat[:: max(1, -(-len(flat) // 256))].float() for flat in whole]
    digest = hashlib.sha256(repr(list(map(len, whole))).encode())
    if samples:
        digest.update(torch.cat([sample.to(samples[0].device) for sample in samples]).cpu().numpy().tobytes())
    return int(digest.hexdigest()[:12], 16)


@torch.no_grad()
def logprobs_of(model: Any, ids: Any, temperature: float = 1.0) -> list[float]:
    """log π(ids[i]) given what precedes it, for i from 1 on, under the softmax at `temperature`; by a plain pass."""
    if len(ids) < 2:
        return []
    model.eval()
    ids_SL = torch.tensor([list(ids)], device=next(model.parameters()).device)
    logits_NV = model(input_ids=ids_SL, use_cache=False).logits[0, :-1]
    found: list[float] = logprobs_and_entropy(logits_NV, ids_SL[0, 1:], temperature)[0].tolist()
    return found
