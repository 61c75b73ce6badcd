"""Loading a policy: a causal language model and its tokenizer, from the starter, a folder, or a hub name."""

from __future__ import annotations

import contextlib
import copy
import importlib.resources
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging

from rlvr.errors import ConfigError, MissingDependencyError
from rlvr.modelserver import FACTS

SHARD_BYTES = 5 * 2**30  # of one file of weights at most

STARTERS = {
    "starter": "starter",
    "starter-code": "starter_code",
    "starter-json": "starter_json",
    "starter-tools": "starter_tools",
}
"""Models that come with the procedural tasks (`starter` with `math`), and the folders they lie in."""


def choose_device(name: str) -> torch.device:
    """The device named, or the best there is for an empty name.

    Raises:
        MissingDependencyError: The device is not on this machine.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    absent = MissingDependencyError(
        f"there is no device `{name}` here", f"this machine has {', '.join(f'`{d}`' for d in available)}"
    )
    try:
        device = torch.device(name or available[0])
    except RuntimeError:
        raise absent from None
    if device.type not in available or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise absent
    return device


def model_path(name: str) -> str:
    """Where a model lies: a starter's folder for its name, else the name itself (a folder or a hub name).

    Raises:
        ConfigError: An empty name, or a path that does not exist.
    """
    if not name:
        raise ConfigError("no model is named", "give `--model`: `starter`, a folder, or a hub name")
    if name in STARTERS:
        return str(importlib.resources.files("rlvr_tasks") / STARTERS[name])
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if folder.exists() or looks_local:
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"`{name}` is not a model folder: it has no `config.json`",
                "`--model` takes a folder in Hugging Face format, a hub name, or `starter`",
            )
        return str(folder)
    return name


def load_policy(name: str, device: torch.device, attention: str = "", **options: Any) -> tuple[Any, Any]:
    """The model on `device`, in evaluation mode, and its tokenizer.

    Args:
        name: Of the model.
        device: Where to.
        attention: Attention backend of transformers; its default if empty.
        options: More for `from_pretrained`; the type of the weights is float32 without.

    Raises:
        ConfigError: The name is empty, no model folder, or that of a reward model, or its tokenizer is missing or has
            no end token.
        MissingDependencyError: The hub does not have it, cannot be reached, or the files cannot be loaded.
    """
    path = model_path(name)
    if (Path(path) / FACTS).is_file():  # with tied embeddings its weights would do, and the head would be dropped
        raise ConfigError(
            f"`{name}` is a reward model, which writes nothing", "`rlvr train` takes it as `--reward.model`"
        )
    try:
        with bars(not Path(path).exists()):
            tokenizer = AutoTokenizer.from_pretrained(path)
            options = {"dtype": torch.float32} | ({"attn_implementation": attention} if attention else {}) | options
            model, report = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **options)
    except Exception as error:  # a damaged folder can make its readers raise anything
        cause = " ".join(str(error).split())[:300]
        raise MissingDependencyError(
            f"the model `{name}` cannot be loaded: {cause}",
            "check the name and the connection, or give the path of a local folder",
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"the weights of `{name}` lack {len(missing)} tensors, `{missing[0]}` for one",
            "they would be random; save the model again, whole",
        )
    if not tokenizer.encode("0", add_special_tokens=False):
        raise ConfigError(f"the model `{name}` has no tokenizer", "save it beside the model, as `tokenizer.json`")
    end, known = tokenizer.eos_token_id, model.get_input_embeddings().num_embeddings
    if end is None or end >= known:
        raise ConfigError(
            f"the tokenizer of `{name}` has no end-of-sequence token that the model knows",
            "set `eos_token` in its `tokenizer_config.json`",
        )
    model.eval()
    return model if getattr(model, "is_quantized", False) else model.to(device), tokenizer


def save_policy(model: Any, tokenizer: Any, folder: str | os.PathLike[str]) -> dict[str, str]:
    """Writes model and tokenizer in Hugging Face format. In a run of several processes each of them has to call it, as
    sharded weights are gathered, one tensor at a time; the first one writes.

    Returns:
        The file that each tensor is in; empty in other processes than the first.
    """
    weights = ((name, whole(tensor)) for name, tensor in named_weights(model))
    if rank():
        for _ in weights:
            pass
        return {}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = write_tensors(weights, folder, "model")
    if len(set(files.values())) > 1:
        size = sum(file.stat().st_size for file in folder.glob("model-*.safetensors"))
        index = {"metadata": {"total_size": size}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.config.dtype = str(base.dtype).removeprefix("torch.")
    base.config.architectures = [type(base).__name__.removeprefix("FSDP")]  # `fully_shard` makes a class of its own
    base.config.save_pretrained(folder)
    if base.can_generate():
        base.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return files


def write_tensors(tensors: Iterable[tuple[str, Tensor]], folder: Path, stem: str, limit: int = 0) -> dict[str, str]:
    """Writes tensors to safetensors files of at most `limit` bytes each (or of one tensor), one after the other, so
    that no more than that is held at a time; 0 takes `SHARD_BYTES`.

    Returns:
        The file that each tensor is in.
    """
    limit = limit or SHARD_BYTES
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}

    def flush() -> None:
        save_file(held, folder / f"{stem}-{len(shards)}.writing", {"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and sum(other.nbytes for other in held.values()) + tensor.nbytes > limit:
            flush()
        held[name] = tensor.detach().cpu().contiguous()
    if held:
        flush()
    files: dict[str, str] = {}
    for number, names in enumerate(shards):
        part = f"-{number + 1:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file = f"{stem}{part}.safetensors"
        (folder / f"{stem}-{number}.writing").rename(folder / file)
        files |= dict.fromkeys(names, file)
    return files


def rank() -> int:
    """The number of this process among those of the run; 0 where it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered, in every process; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def named_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that `save_policy` would write, under the names it would give them, in the type they are kept in.

    Tied tensors come once. They are the model's own, detached, not copies, so use them before the next update; only
    those of a layer with an adapter (PEFT) are copies, with the adapter merged in, and the model stays as it is.

    Raises:
        ConfigError: An adapter cannot be merged.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.no_grad():
        state = merged_state(model)
        for alias, source in model.all_tied_weights_keys.items():
            if alias in state and source in state and same_memory(state[alias], state[source]):
                del state[alias]
        for name in model._keys_to_ignore_on_save or ():
            state.pop(name, None)
        state = revert_weight_conversion(model, state)
    while state:  # a merged copy lives no longer than it has to
        name = next(iter(state))
        yield name, state.pop(name).detach().contiguous()


def same_memory(a: Tensor, b: Tensor) -> bool:
    return local(a).data_ptr() == local(b).data_ptr() and a.shape == b.shape


def merged_state(model: Any) -> dict[str, Tensor]:
    """`model.state_dict()` as it would be had its adapters (PEFT) been merged and taken away.

    Raises:
        ConfigError: An adapter cannot be merged.
    """
    state: dict[str, Tensor] = model.state_dict()
    for name, module in model.named_modules():
        if hasattr(module, "get_base_layer"):
            own = adapted(name, module).state_dict()
        elif hasattr(module, "original_module"):  # PEFT's name for a module that is trained as a whole
            own = trained(name, module).state_dict()
        else:
            continue
        kept = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
        state = kept | {f"{name}.{key}": tensor for key, tensor in own.items()}
    return state


def adapted(name: str, layer: Any) -> Any:
    """A layer with its active adapters merged in: a copy, unless there is nothing to merge."""
    if layer.merged or layer.disable_adapters:
        return layer.get_base_layer()
    layer = copy.deepcopy(layer)
    try:
        layer.merge()
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"the adapter of `{name}` cannot be merged into its layer: {error}",
            "take LoRA, or train without an adapter",
        ) from error
    return layer.get_base_layer()


def trained(name: str, wrapper: Any) -> Any:
    """What a wrapper computes with at the moment: the module that was trained, or the one before."""
    if wrapper.disable_adapters or not wrapper.active_adapters:
        return wrapper.original_module
    if not hasattr(wrapper, "modules_to_save"):
        raise ConfigError(f"`{name}` cannot be merged", "train it as a whole (PEFT's `modules_to_save`)")
    return wrapper.modules_to_save[wrapper.active_adapters[0]]


@contextlib.contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Shows or hides transformers' progress bars: worth seeing for a download, noise for a local folder."""
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        yield
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
