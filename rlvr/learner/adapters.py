"""LoRA and QLoRA through PEFT: low-rank adapters are trained, the weights below them stay as they are.

LoRA: Hu et al. 2021, arXiv:2106.09685. QLoRA: Dettmers et al. 2023, arXiv:2305.14314. The policy without its adapters
is the model that training started from, so that a KL to it needs no second copy.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from rlvr.config import LoraConfig
from rlvr.errors import ConfigError, MissingDependencyError, nearest
from rlvr.learner.policy import model_path, rank, whole


def check_adapters(name: str, config: LoraConfig) -> None:
    """Finds mistakes in `config` from the model's architecture alone, before its weights are read.

    Raises:
        ConfigError: A target is the name of no layer that an adapter can be put on.
        MissingDependencyError: What quantizes is not installed, or needs a GPU.
    """
    if config.quantize != "none" and not importlib.util.find_spec("bitsandbytes"):
        raise MissingDependencyError(
            f"`lora.quantize` {config.quantize} needs bitsandbytes, which is not installed", "pip install bitsandbytes"
        )
    if config.quantize == "4bit" and not torch.cuda.is_available():
        raise MissingDependencyError(
            "`lora.quantize` 4bit needs a GPU: on a CPU bitsandbytes packs 4-bit weights in a way that has no gradient",
            "`--lora.quantize 8bit` works without one",
        )
    if not config.targets:
        return
    try:
        architecture = AutoConfig.from_pretrained(model_path(name))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(architecture)
    except ConfigError:
        raise
    except Exception:  # whatever is wrong with the model, loading it says it better
        return
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding, Conv1D))]
    ends = sorted({layer.rpartition(".")[2] for layer in layers})
    for target in config.targets:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            near = nearest(target, ends)
            raise ConfigError(
                f"`lora.targets` has `{target}`, which is no layer of `{name}`",
                f"did you mean `{near}`?" if near else f"its layers are {', '.join(f'`{end}`' for end in ends)}",
            )


def add_adapters(model: Any, config: LoraConfig, head: str = "") -> Any:
    """The model with adapters (PEFT) that change nothing yet; only they can be trained, and the module named `head`, if
    any, which is trained as a whole."""
    if config.quantize != "none":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    adapters = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha or 2 * config.rank,
        target_modules=list(config.targets) or "all-linear",
        modules_to_save=[head] if head else None,
        task_type="SEQ_CLS" if head else "CAUSAL_LM",
    )
    with warnings.catch_warnings():  # PEFT asks for a name that transformers has given up
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model, adapters).eval()


def save_adapters(model: Any, folder: Path) -> None:
    """Writes the adapters alone, as PEFT does. In a run of several processes each of them has to call it."""
    own = {name: whole(tensor) for name, tensor in get_peft_model_state_dict(model).items()}
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in own.items()}, folder / SAFETENSORS_WEIGHTS_NAME)
        model.peft_config[model.active_adapter].save_pretrained(folder)


def quantization(config: LoraConfig) -> BitsAndBytesConfig | None:
    """How the weights below the adapters are kept; None as they are."""
    if config.quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if config.quantize == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return None
