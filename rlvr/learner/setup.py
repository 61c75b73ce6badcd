"""Makes the learner of a run from its config: policy with or without adapters, reference, value model."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlvr.config import LearnerConfig, TrainConfig
from rlvr.errors import ConfigError, MissingDependencyError, nearest
from rlvr.learner.adapters import add_adapters, check_adapters, quantization
from rlvr.learner.correction import Level
from rlvr.learner.learner import Learner
from rlvr.learner.modules import Critic, decoder_layers
from rlvr.learner.policy import load_policy, model_path


@dataclass(frozen=True, slots=True)
class Loaded:
    """A learner and its tokenizer."""

    learner: Learner
    tokenizer: Any


def check_learner(config: TrainConfig) -> None:
    """Finds mistakes that need no weights.

    Raises:
        ConfigError: A reference that is no model folder, or adapters that fit nowhere.
        MissingDependencyError: What a setting needs is not installed.
    """
    if config.lora.rank:
        check_adapters(config.model, config.lora)
    if config.learner.reference not in ("", "none"):
        model_path(config.learner.reference)
    if config.learner.liger and not importlib.util.find_spec("liger_kernel"):
        raise MissingDependencyError(
            "`learner.liger` needs Liger's kernels, which are not installed", "pip install liger-kernel"
        )
    attention = config.learner.attention
    known = {"eager", *ALL_ATTENTION_FUNCTIONS.keys()}
    if attention and attention not in known and "/" not in attention:  # with one it is a kernel of the hub
        near = nearest(attention, known)
        raise ConfigError(
            f"transformers has no attention backend `{attention}`",
            f"did you mean `{near}`?" if near else "`sdpa` is its default",
        )
    if attention.startswith("flash_attention") and not torch.cuda.is_available():
        raise MissingDependencyError(
            f"`learner.attention` `{attention}` needs a GPU, and there is none here", "leave it out"
        )
    if config.lora.quantize != "none" and sharding(config.learner) == "fsdp":
        raise ConfigError("`lora.quantize` does not go with `learner.shard` `fsdp`", "`--learner.shard ddp`")


def load_learner(config: TrainConfig, device: torch.device, accelerator: Accelerator, correct: Level) -> Loaded:
    """Loads the policy and what its algorithm needs beside it.

    Args:
        config: Of the run.
        device: Where to.
        accelerator: Of this process.
        correct: How the difference between sampler and learner is corrected.

    Raises:
        ConfigError: A model that cannot be used.
        MissingDependencyError: A model that cannot be loaded.
    """
    own, lora = config.learner, config.lora
    shard = sharding(own)
    sharded = shard == "fsdp" and accelerator.num_processes > 1
    place = torch.device("cpu") if sharded else device  # its layers go to the device one by one
    options: dict[str, Any] = {}
    if (quantized := quantization(lora)) is not None:
        options = {"quantization_config": quantized, "device_map": {"": str(device)}}
    elif lora.rank and accelerator.mixed_precision == "bf16" and not sharded:
        options = {"dtype": torch.bfloat16}  # it is not trained, and computes in that type anyway
    model, tokenizer = load_policy(config.model, place, own.attention, **options)
    if own.liger:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model)
    if lora.rank:
        model = add_adapters(model, lora)
    reference = critic = None
    separate = own.reference not in ("", "none")
    if own.kl_coef and (separate or not lora.rank):
        name = own.reference if separate else config.model
        reference, speech = load_policy(name, place, own.attention, **options)
        if speech.get_vocab() != tokenizer.get_vocab():
            raise ConfigError(
                f"the reference `{name}` has another vocabulary than `{config.model}`",
                "KL is between distributions over the same tokens: name a model of the same family",
            )
    if own.advantage == "gae":
        trunk = load_policy(config.model, place, own.attention, **options)[0]
        critic = Critic(add_adapters(trunk, lora) if lora.rank else trunk)
    if own.compile:
        for layer in (layer for module in (model, critic) if module is not None for layer in decoder_layers(module)):
            layer.compile(dynamic=True)
    learner = Learner(
        model,
        own,
        config.steps * own.epochs * own.updates_per_step,
        accelerator,
        reference,
        correct,
        critic,
        config.sampler.max_tokens,
        config.seed,
        shard,
    )
    return Loaded(learner, tokenizer)


def sharding(config: LearnerConfig) -> Literal["ddp", "fsdp"]:
    """How weights are spread over processes; `auto` is as accelerate's launcher was told."""
    if config.shard != "auto":
        return config.shard
    return "fsdp" if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1") else "ddp"
