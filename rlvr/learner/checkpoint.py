"""What fills a checkpoint: policy, optimiser, schedule, random state and the loop's state.

    state.json               the loop's state
    config.json, model*.safetensors, tokenizer*   the policy in Hugging Face format: to be loaded, evaluated, served
    learner/state.json       the learner's small state: schedule, controllers
    learner/rank-N*.safetensors   what process N holds of all else: moments, further modules, its random state
    learner/rank-N.json      which tensor each of these is a piece of, and where it lies in it

A piece is a box of a tensor. Whoever restores reads the boxes that it needs, wherever they are, so that a run may go on
with another number of processes, sharded or not. A weight that the model's files hold as it is, is not written again:
its piece is there. Weights that are not trained are not written; they are those of the model that a run starts from.

All of this is JSON and safetensors. `torch.distributed.checkpoint` does the same and unpickles what it reads.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.parallel import DistributedDataParallel

from rlvr.errors import DataError
from rlvr.learner.policy import local, named_weights, rank, save_policy, write_tensors
from rlvr.rollout import State

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")  # what compiling and recomputing put into names


class Restorable(Protocol):
    """What a checkpoint needs of a learner.

    Attributes:
        policy: The model itself, as `named_weights` takes it.
        modules: By name, every module that is trained; the policy among them. Sharded or not, DDP or not.
        optimizer: Over parameters of these modules.
    """

    @property
    def policy(self) -> Any: ...
    @property
    def modules(self) -> Mapping[str, nn.Module]: ...
    @property
    def optimizer(self) -> Any: ...

    def state(self) -> dict[str, Any]:
        """All else that changes, as JSON values: schedule, controllers."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes it over; modules and optimiser have been restored by then."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of the tensor `key`, which is of `shape` and `dtype` as a whole: the tensor `name` in `file`."""

    key: str
    file: str
    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str


# ----------------------------------------------------------------------------------------------------------- writing


def write(folder: Path, learner: Restorable, tokenizer: Any, state: State) -> dict[str, Any]:
    """Fills `folder` with everything a run needs to go on. Every process of a run has to call it; the first one makes
    the folder before, and may take it for complete after.

    Returns:
        What a manifest should say of it.
    """
    barrier()
    trained = list(tensors(learner))  # first, as FSDP shards again what a forward pass has gathered
    files = save_policy(learner.policy, tokenizer, folder)
    exported = {place(tensor): name for name, tensor in named_weights(learner.policy)}
    inside, me = folder / "learner", f"rank-{rank()}"
    inside.mkdir(exist_ok=True)
    parts: dict[str, Tensor] = {}
    pieces: list[Piece] = []
    for key, tensor in trained:
        part, offset = own_part(tensor)
        kind = (tuple(tensor.shape), str(tensor.dtype))
        if (name := exported.get(place(tensor))) is not None:
            if rank() == 0:
                pieces.append(Piece(key, f"../{files[name]}", name, (0,) * tensor.dim(), *kind))
        elif part is not None:
            parts[key] = part
            pieces.append(Piece(key, "", key, offset, *kind))
    for key, tensor in random_states():
        parts[key] = tensor
        pieces.append(Piece(key, "", key, (0,), tuple(tensor.shape), str(tensor.dtype)))
    written = write_tensors(parts.items(), inside, me)
    rows = (json.dumps(asdict(piece) | {"file": piece.file or written[piece.key]}) for piece in pieces)
    (inside / f"{me}.json").write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    if rank() == 0:
        (inside / "state.json").write_text(json.dumps(learner.state(), indent=1) + "\n", encoding="utf-8")
        (folder / "state.json").write_text(json.dumps(state.to_json()), encoding="utf-8")
    for file in [inside / f"{me}.json", *(inside / name for name in set(written.values()))]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())  # only the machine that wrote a file can be sure to do so
    barrier()
    return {"processes": dist.get_world_size() if distributed() else 1}


def tensors(learner: Restorable) -> Iterator[tuple[str, Tensor]]:
    """Everything that training changes, by a name that no wrapper and no number of processes changes."""
    names = {}
    for module_name, module in learner.modules.items():
        for name, tensor in kept(module):
            names[id(tensor)] = f"{module_name}/{name}"
            yield f"{module_name}/{name}", tensor
    for group in learner.optimizer.param_groups:
        for parameter in group["params"]:
            for field, value in learner.optimizer.state.get(parameter, {}).items():
                yield f"optimizer/{field}/{names[id(parameter)]}", torch.as_tensor(value)


def kept(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Trained parameters, tied ones once, and buffers that belong to the state."""
    inner = module.module if isinstance(module, DistributedDataParallel) else module
    named = inner.state_dict(keep_vars=True)
    wanted = {id(tensor) for tensor in inner.parameters() if tensor.requires_grad} | set(map(id, inner.buffers()))
    for name, tensor in named.items():
        if id(tensor) in wanted:
            wanted.remove(id(tensor))
            for wrapper in WRAPPERS:
                name = name.replace(wrapper, "")
            yield name, tensor


def place(tensor: Tensor) -> tuple[Any, ...]:
    """What tells whether two tensors are the same one."""
    with torch.no_grad():
        own = local(tensor)
        return own.data_ptr(), own.device, own.dtype, tensor.shape


def own_part(tensor: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    """What of a tensor this process has to write, if anything, and where that lies. What several hold, one writes."""
    part, offset = held(tensor)
    if isinstance(tensor, DTensor):
        mesh = tensor.device_mesh
        first = all(not p.is_replicate() or mesh.get_local_rank(i) == 0 for i, p in enumerate(tensor.placements))
    else:
        first = rank() == 0
    return (part if first and (part.numel() or not tensor.numel()) else None), offset


def held(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What this process holds of a tensor, and where that lies in the whole."""
    with torch.no_grad():
        if isinstance(tensor, DTensor):
            mesh, placements = tensor.device_mesh, tensor.placements
            _, offset = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
            return tensor.to_local(), tuple(offset)
        return tensor.detach(), (0,) * tensor.dim()


def random_states() -> Iterator[tuple[str, Tensor]]:
    """The random state of this process."""
    yield f"random/{rank()}/cpu", torch.get_rng_state()
    if torch.cuda.is_available():
        yield f"random/{rank()}/cuda", torch.cuda.get_rng_state()


# ----------------------------------------------------------------------------------------------------------- reading


def read(folder: Path, learner: Restorable) -> State:
    """Restores modules, optimiser, schedule and random state in place; returns the loop's state. A process that had
    no part in the writing keeps the random state that it has.

    Raises:
        DataError: A file is missing or damaged, or of another model.
    """
    try:
        state = State.from_json(json.loads((folder / "state.json").read_text(encoding="utf-8")))
        own = json.loads((folder / "learner" / "state.json").read_text(encoding="utf-8"))
        with Pieces(folder / "learner") as pieces, torch.no_grad():
            load_tensors(learner, pieces)
            if left := pieces.left():
                raise ValueError(f"`{left[0]}` is not in this model")
            learner.load_state(own)
            load_random_states(pieces)
    except Exception as error:  # a damaged file can make the readers of JSON and safetensors raise anything
        raise DataError(
            f"the checkpoint `{folder}` cannot be read: {type(error).__name__}: {error}",
            "delete it to go on from the one before",
        ) from error
    return state


def load_tensors(learner: Restorable, pieces: Pieces) -> None:
    """Copies modules in place and gives the optimiser the state that it had; its rates and decays stay as they are."""
    names = {}
    for module_name, module in learner.modules.items():
        for name, tensor in kept(module):
            names[id(tensor)] = f"{module_name}/{name}"
            pieces.fill(f"{module_name}/{name}", tensor)
    optimizer = learner.optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    numbers = {names[id(each)]: number for number, each in enumerate(parameters) if id(each) in names}
    for key in [key for key in pieces.left() if key.startswith("optimizer/")]:
        _, field, name = key.split("/", 2)
        if name not in numbers:
            raise ValueError(f"`{name}` is not in this model, or not trained")
        parameter, (shape, dtype) = parameters[numbers[name]], pieces.kind(key)
        value = torch.empty_like(parameter if shape == parameter.shape else torch.empty(shape), dtype=dtype)
        pieces.fill(key, value)
        state[numbers[name]][field] = value
    optimizer.load_state_dict({"state": dict(state), "param_groups": optimizer.state_dict()["param_groups"]})


def load_random_states(pieces: Pieces) -> None:
    """Takes up the random state of the process that had this number, if there was one."""
    for key, now in random_states():
        if pieces.has(key):
            pieces.fill(key, now)
            (torch.set_rng_state if key.endswith("cpu") else torch.cuda.set_rng_state)(now)


class Pieces(ExitStack):
    """The tensors of a checkpoint, read by the boxes that this process needs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._pieces: dict[str, list[Piece]] = defaultdict(list)
        for index in folder.glob("rank-*.json"):
            for row in json.loads(index.read_text(encoding="utf-8")):
                piece = Piece(**row | {"offset": tuple(row["offset"]), "shape": tuple(row["shape"])})
                self._pieces[piece.key].append(piece)
        self._read: set[str] = set()

    def has(self, key: str) -> bool:
        return key in self._pieces

    def kind(self, key: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and type of a tensor as a whole."""
        piece = self._pieces[key][0]
        dtype: torch.dtype = getattr(torch, piece.dtype.removeprefix("torch."))
        return piece.shape, dtype

    def left(self) -> list[str]:
        """What has not been read, but for random states."""
        return sorted(key for key in self._pieces.keys() - self._read if not key.startswith("random/"))

    def fill(self, key: str, tensor: Tensor) -> None:
        """Copies what this process holds of a tensor.

        Raises:
            ValueError: The checkpoint has no such tensor, or one of another kind, or not all of it.
        """
        if key not in self._pieces:
            raise ValueError(f"it has no `{key}`")
        shape, dtype = self.kind(key)
        if (shape, dtype) != (tuple(tensor.shape), tensor.dtype):
            raise ValueError(f"`{key}` is {dtype} {list(shape)} there, and {tensor.dtype} {list(tensor.shape)} here")
        target, start = held(tensor)
        filled = 0
        for piece in self._pieces[key]:
            filled += self._copy(piece, target, start)
        if filled != target.numel():
            raise ValueError(f"of {target.numel()} numbers of `{key}` it has {filled}")
        self._read.add(key)

    def _copy(self, piece: Piece, target: Tensor, start: tuple[int, ...]) -> int:
        """Copies where a piece and `target`, which lies at `start`, meet; returns how many numbers that are."""
        source = self._open(piece.file).get_slice(piece.name)
        size = source.get_shape()
        low = [max(a, b) for a, b in zip(piece.offset, start, strict=True)]
        high = [min(a + n, b + m) for a, n, b, m in zip(piece.offset, size, start, target.shape, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return 0
        if not size:
            target.copy_(self._open(piece.file).get_tensor(piece.name))
            return 1
        there = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, piece.offset, strict=True))
        here = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, start, strict=True))
        part = source[there]
        target[here].copy_(part)
        return int(part.numel())

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = self.enter_context(safe_open(self._folder / file, "pt"))
        return self._files[file]


# ---------------------------------------------------------------------------------------------------------- processes


def distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def barrier() -> None:
    """Waits for all processes of the run."""
    if distributed():
        dist.barrier()
