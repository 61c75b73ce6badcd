"""The engine's end of a sync: a weight transfer engine, named `rlvr`, inside vLLM's processes.

vLLM loads `register` in each of its processes, since it is an entry point of the group `vllm.general_plugins`. With
`--weight-transfer-config '{"backend": "rlvr"}'` it then takes weights as a file, as chunks of text or as shared GPU
memory; `rlvr.sampler.weights` is the other end.

Everything happens in `receive_weights`, from the part that says `first` to the one that says `last`, because that is
what the engines of all versions of vLLM call alike.
"""

from __future__ import annotations

import base64
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load, safe_open
from torch import Tensor, nn

from rlvr.sampler.weights import NO_COMMON_DISK, facts, from_handle

BACKEND = "rlvr"

PARENT = "RLVR_VLLM_PARENT"
"""Environment variable: the process that a colocated engine has to end with."""


def register() -> None:
    """Makes the backend known to vLLM. Does nothing where vLLM is too old to transfer weights."""
    parent = multiprocessing.parent_process()
    if parent is not None and os.environ.get(PARENT) == str(parent.pid):
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)  # Ctrl-C in a terminal is for the loop, which ends this process when it has done with it
        threading.Thread(target=_end_with, args=[parent.pid], name="rlvr-guard", daemon=True).start()
    try:
        from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory
    except ImportError:
        return
    with contextlib.suppress(ValueError):  # registered before in this process
        Factory.register_engine(BACKEND, _receiver())


def _end_with(parent: int) -> None:
    """Ends this process once its parent is gone, be it killed; vLLM's workers end with it by themselves."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _receiver() -> Any:
    """The class that vLLM creates, derived from its own, which differ between versions."""
    from vllm.distributed.weight_transfer import base

    @dataclass
    class InitInfo(base.WeightTransferInitInfo):
        facts: dict[str, Any]
        path: str | None = None
        nonce: str = ""

    @dataclass
    class UpdateInfo(base.WeightTransferUpdateInfo):
        path: str | None = None
        data: str | None = None
        handles: list[dict[str, Any]] | None = None
        first: bool = False
        last: bool = False

    class Receiver(base.WeightTransferEngine):
        init_info_cls = InitInfo
        update_info_cls = UpdateInfo

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.under_way: Update | None = None

        def init_transfer_engine(self, init_info: Any) -> None:
            config = getattr(self, "model_config", None)
            check_facts(init_info.facts, config.hf_config if config else self.model.config)
            if init_info.path is not None:
                check_probe(Path(init_info.path), init_info.nonce)

        def start_weight_update(self) -> None:
            self.abandon()

        def receive_weights(self, update_info: Any, load_weights: Any = None) -> None:
            if update_info.first:
                self.abandon()
                self.under_way = Update(self.model, getattr(self, "model_config", None))
            if self.under_way is None:
                raise ValueError("the part of an update that says `first` is missing")
            try:
                with contextlib.closing(tensors(update_info)) as received:
                    self.under_way.load(received)
                    if update_info.last:
                        self.under_way.finish()
            except BaseException:
                self.abandon()
                raise
            if update_info.last:
                self.under_way = None

        def finish_weight_update(self) -> None:
            self.abandon()

        def abandon(self) -> None:
            if self.under_way is not None:
                self.under_way.abandon()
                self.under_way = None

        def shutdown(self) -> None:
            pass

        @staticmethod
        def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
            raise NotImplementedError("rlvr sends its weights itself")

    return Receiver


def check_facts(learner: dict[str, Any], config: Any) -> None:
    """Compares the learner's model with the one that is served.

    Raises:
        ValueError: They differ; names in what.
    """
    served = facts(config)
    apart = [
        f"{name} {served[name]}, not {value}" for name, value in learner.items() if served.get(name, value) != value
    ]
    if apart:
        raise ValueError(f"the model served is not the learner's: it has {'; '.join(apart)}")


def check_probe(path: Path, nonce: str) -> None:
    """Reads the learner's probe file.

    Raises:
        ValueError: It is not there, or another; the text begins with `NO_COMMON_DISK`.
    """
    try:
        found = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ValueError(f"{NO_COMMON_DISK}: {error}") from error
    if found != nonce:
        raise ValueError(f"{NO_COMMON_DISK}: `{path}` is another file here")


def tensors(update_info: Any) -> Generator[tuple[str, Tensor], None, None]:
    """What a part of an update holds. Tensors of a file live as long as the iteration.

    Raises:
        ValueError: It holds none or several forms, or cannot be read.
    """
    forms = [form for form in ("path", "data", "handles") if getattr(update_info, form) is not None]
    if len(forms) != 1:
        raise ValueError(f"a part of an update has one of `path`, `data` and `handles`, not {len(forms)} of them")
    if update_info.path is not None:
        with safe_open(update_info.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                yield name, file.get_tensor(name)
    elif update_info.data is not None:
        yield from load(base64.b64decode(update_info.data)).items()
    else:
        for handle in update_info.handles:
            yield handle["name"], from_handle(handle["args"], torch.cuda.current_device())


class Update:
    """Weights that replace those of a model, layer by layer, in the memory that compiled code and graphs know.

    Args:
        model: vLLM's model.
        config: vLLM's config of it, where it is known.
    """

    def __init__(self, model: Any, config: Any = None) -> None:
        from vllm.model_executor.model_loader import reload

        self.model = model
        self.config = config or SimpleNamespace(dtype=_dtype(model))
        self.wanted = {name for name, _ in model.named_parameters()}
        self.loaded: set[str] | None = set()
        self.linears: list[tuple[Any, Any]] = [
            (layer, layer.cpu_linear) for layer in model.modules() if hasattr(layer, "cpu_linear")
        ]
        reload.initialize_layerwise_reload(model)

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Loads tensors under the names that they have in a checkpoint.

        Raises:
            ValueError: One is not the model's, or of another shape; names it.
        """
        reading = ""
        shape: tuple[int, ...] = ()

        def noted() -> Iterator[tuple[str, Tensor]]:
            nonlocal reading, shape
            for name, tensor in weights:
                reading, shape = name, tuple(tensor.shape)
                yield name, tensor
            reading = ""

        try:
            with torch.no_grad():
                found = self.model.load_weights(noted())
        except Exception as error:  # each model has loaders of its own
            if not reading:
                raise
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"the model served takes no `{reading}` of shape {list(shape)}: {cause}") from error
        if found is None:  # a model that does not say
            self.loaded = None
        elif self.loaded is not None:
            self.loaded |= set(found)

    def finish(self) -> None:
        """Puts the new weights in use.

        Raises:
            ValueError: Some were not among what was loaded; names them.
        """
        from vllm.model_executor.layers.linear import LinearBase
        from vllm.model_executor.model_loader.reload import layerwise

        for name, layer in self.model.named_modules():  # several tensors of a checkpoint can be one of vLLM's
            info = layerwise.get_layerwise_info(layer)
            if info.can_load() and isinstance(layer, LinearBase) and 0 < info.load_numel < info.load_numel_total:
                raise ValueError(f"some of the weights in `{name}` of the model served were not sent")
        known = self.loaded is not None and getattr(self.model, "quant_config", None) is None
        if known and (missing := sorted(self.wanted - (self.loaded or set()))):
            raise ValueError(f"{len(missing)} weights of the model served were not sent, `{missing[0]}` for one")
        with torch.no_grad():
            layerwise.finalize_layerwise_reload(self.model, self.config)
            for layer, linear in self.linears:
                refresh(layer, linear)

    def abandon(self) -> None:
        """Gives layers that are not whole yet their former weights."""
        from vllm.model_executor.model_loader.reload import layerwise

        for layer in list(self.model.modules()):
            info = layerwise.get_layerwise_info(layer)
            if info.can_load():
                if info.kernel_tensors is not None:
                    layerwise._place_kernel_tensors(layer, info)
                info.reset()
        with torch.no_grad():
            layerwise.finalize_layerwise_reload(self.model, self.config)
            for layer, linear in self.linears:
                refresh(layer, linear)


def refresh(layer: Any, linear: Any) -> None:
    """Makes `linear`, by which a layer multiplied before an update on a CPU, multiply by the new weights.

    vLLM's linear layers on CPUs multiply by a packed copy of their weights, which a function holds. Reloading gives
    layers a new function, except those that are tied to another; and compiled code goes on with the old one's copy. So
    the new copies take the places of the old.
    """
    if layer.cpu_linear is linear and layer.weight.numel():  # tied: the weights changed, the copy was not renewed
        layer.quant_method.process_weights_after_loading(layer)
    new = layer.cpu_linear
    if new is linear or getattr(new, "__code__", None) is not getattr(linear, "__code__", None):
        return
    for old_cell, new_cell in zip(linear.__closure__ or (), new.__closure__ or (), strict=True):
        old, fresh = old_cell.cell_contents, new_cell.cell_contents
        if isinstance(old, Tensor):
            old.copy_(fresh)
        elif isinstance(getattr(old, "handler_tensor", None), Tensor):
            before = old.handler_tensor.clone()
            old.handler_tensor.copy_(fresh.handler_tensor)
            fresh.handler_tensor.copy_(before)  # it frees what it holds when it goes
    layer.cpu_linear = linear


def _dtype(model: nn.Module) -> torch.dtype:
    """The type that the model computes in; layers whose weights are packed have none left."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point() and p.numel()), torch.float32)
