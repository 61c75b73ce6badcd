"""Shared fixtures. torch is imported inside those that need it, so that tests without a model stay quick."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and no clock: the machine may be busy.
settings.register_profile("rlvr", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rlvr")

ALPHABET = "0123456789+-=?abcdefghij "


def make_tokenizer() -> Any:
    """One token per character of `ALPHABET`; no chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<end>", "<unk>", *ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", padding_side="left"
    )


def make_model(tokenizer: Any, family: str = "qwen2", seed: int = 0) -> Any:
    """A causal language model of a few thousand random weights, far from uniform; about 1 token in 20 ends."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)  # tiny matrices: threads only wait for each other
    sizes: dict[str, Any] = {
        "qwen2": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
        },
        "mistral": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "sliding_window": 6,
        },
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},  # learned positions, and dropout
    }
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.4,
        **sizes[family],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).float().eval()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def fresh_model(tokenizer: Any) -> Callable[..., Any]:
    """`fresh_model(family="qwen2", seed=0)` makes a model that a test may change."""
    return lambda family="qwen2", seed=0: make_model(tokenizer, family, seed)


@pytest.fixture(scope="session")
def model(fresh_model: Callable[..., Any]) -> Any:
    """A model for tests that only read it."""
    return fresh_model()


@pytest.fixture
def accelerator() -> Iterator[Any]:
    """accelerate on the CPU in single precision; its process-wide state is forgotten afterwards."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def needs_docker() -> None:
    """For tests that need a container engine and the sandbox image: skipped without them, a failure where CI is set."""
    from rlvr_sandboxes.engine import client
    from rlvr_sandboxes.image import require

    from rlvr import MissingDependencyError

    try:
        with closing(client()) as engine:
            require(engine)
    except MissingDependencyError as error:
        if os.environ.get("CI", "").lower() in ("", "0", "false", "no", "off"):
            pytest.skip(f"{error.message}: {error.hint}")
        pytest.fail(f"{error.message}: {error.hint}")
