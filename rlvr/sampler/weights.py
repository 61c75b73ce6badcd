"""What the learner's side of a sync writes: the policy's weights as a file or as chunks of text. Needs no vLLM.

A sync over vLLM's weight transfer interface is

    init_weight_transfer_engine({"facts": facts(config)})   refuses another model than the learner's; with `path` and
                                                            `nonce` also a file that it cannot read, or another
    start_weight_update()                                   with is_checkpoint_format=False where it takes that
    update_weights(file_update(path))                       or each of `updates(...)` in turn, or `handle_updates(...)`
    finish_weight_update()

`rlvr.sampler.vllm_worker` is the other end.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef, rebuild_cuda_tensor, reduce_tensor

CHUNK_BYTES = 32 * 2**20

NO_COMMON_DISK = "no common disk"
"""What the error of an engine holds that cannot read the probe file."""


def facts(config: Any) -> dict[str, Any]:
    """What tells one architecture from another, out of a model's Hugging Face config; by the names used in it."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    return {name: getattr(text, name) for name in names if getattr(text, name, None) is not None}


def write_weights(weights: Iterable[tuple[str, Tensor]], path: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a safetensors file, whole or not at all.

    Args:
        weights: Names and tensors; what is tied to an earlier one is left out.
        path: The file, replaced where it exists.
        dtype: What floating-point tensors are converted to; None leaves them.
    """
    tensors = {name: _plain(tensor, dtype) for name, tensor in _untied(weights)}
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, partial)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def chunks(
    weights: Iterable[tuple[str, Tensor]], size: int = CHUNK_BYTES, dtype: torch.dtype | None = None
) -> Iterator[str]:
    """Gives the weights as base64 texts of safetensors files, each of about `size` bytes or of one larger tensor.

    No more than one of them is in memory at a time. Args as in `write_weights`.
    """
    held: dict[str, Tensor] = {}
    filled = 0
    for name, tensor in _untied(weights):
        tensor = _plain(tensor, dtype)
        if held and filled + tensor.nbytes > size:
            yield base64.b64encode(save(held)).decode("ascii")
            held, filled = {}, 0
        held[name] = tensor
        filled += tensor.nbytes
    if held:
        yield base64.b64encode(save(held)).decode("ascii")


def updates(
    weights: Iterable[tuple[str, Tensor]], size: int = CHUNK_BYTES, dtype: torch.dtype | None = None
) -> Iterator[dict[str, Any]]:
    """Gives what `update_weights` has to be called with, one after the other, to send the weights as `chunks`."""
    pending = ""
    first = True
    for text in chunks(weights, size, dtype):
        if pending:
            yield {"data": pending, "first": first, "last": False}
            first = False
        pending = text
    yield {"data": pending, "first": first, "last": True}


def file_update(path: Path) -> dict[str, Any]:
    """What `update_weights` has to be called with to load a file that `write_weights` wrote."""
    return {"path": str(path), "first": True, "last": True}


def handle_updates(weights: Iterable[tuple[str, Tensor]]) -> tuple[dict[str, Any], Sequence[Tensor]]:
    """What `update_weights` has to be called with to share CUDA tensors, and what must stay alive until it is done."""
    held: list[Tensor] = []
    handles: list[dict[str, Any]] = []
    for name, tensor in _untied(weights):
        tensor = tensor.detach().contiguous()
        held.append(tensor)
        _, args = reduce_tensor(tensor)
        handles.append({"name": name, "args": [_to_json(value) for value in args]})
    return {"handles": handles, "first": True, "last": True}, held


def from_handle(args: Sequence[Any], device: int) -> Tensor:
    """The tensor that another process of this machine shares; `args` as `handle_updates` gives them."""
    values = [_from_json(value) for value in args]
    values[0], values[4] = Tensor, torch.storage.TypedStorage
    values[6] = device  # the number that the other process knows the same device by may differ
    return rebuild_cuda_tensor(*values)


def _to_json(value: Any) -> Any:
    """A part of a handle as JSON: types by name, bytes as base64, classes left out."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, type):
        return None
    return list(value) if isinstance(value, tuple) else value


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return tuple(value) if isinstance(value, list) else value
    return base64.b64decode(value["bytes"]) if "bytes" in value else getattr(torch, value["dtype"])


def _untied(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Leaves out tensors that are the same memory as an earlier one."""
    seen: dict[tuple[Any, ...], StorageWeakRef] = {}
    for name, tensor in weights:
        storage = StorageWeakRef(tensor.untyped_storage())  # while it is kept, no other storage is of its number
        place = (storage.cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        if place not in seen:
            seen[place] = storage
            yield name, tensor


def _plain(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor on the CPU, contiguous, without gradient."""
    tensor = tensor.detach()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.to("cpu").contiguous()
