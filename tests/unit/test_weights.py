"""Writing weights: whole files, chunks of bounded size, tied tensors once."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from torch import Tensor

from rlvr.sampler import weights
from rlvr.sampler.weights import chunks, facts, file_update, updates, write_weights


def some() -> list[tuple[str, Tensor]]:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(6, 4))
    return [
        ("embed", table),
        ("matrix", torch.randn(4, 6).T),
        ("count", torch.tensor([3])),
        ("norm", torch.ones(4)),
        ("head", table),
        ("part", table[:3].clone()),
        ("empty", torch.zeros(0)),
        ("void", torch.zeros(0)),
    ]


def check(found: dict[str, Tensor]) -> None:
    expected = dict(some())
    del expected["head"]
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.detach()), name


def test_a_file_holds_every_tensor_once(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("from before")
    write_weights(iter(some()), path)
    check(load_file(path))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o444 == 0o444, "another user's server may have to read it"


def test_tensors_that_are_made_one_after_the_other_in_the_same_memory_are_not_tied(tmp_path: Path) -> None:
    write_weights(((f"w{number}", torch.full((1000,), float(number))) for number in range(50)), tmp_path / "w")
    found = load_file(tmp_path / "w")
    assert {name: tensor[0].item() for name, tensor in found.items()} == {f"w{n}": float(n) for n in range(50)}
    sent = [load(base64.b64decode(text)) for text in chunks(((f"w{n}", torch.zeros(1000)) for n in range(50)), 1)]
    assert len(sent) == 50


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("from before")

    def full(tensors: Any, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_weights(some(), path)
    assert path.read_text() == "from before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_floating_point_is_converted_and_nothing_else(tmp_path: Path) -> None:
    write_weights(some(), tmp_path / "w", torch.bfloat16)
    found = load_file(tmp_path / "w")
    assert {name: tensor.dtype for name, tensor in found.items() if tensor.dtype != torch.bfloat16} == {
        "count": torch.int64
    }


@pytest.mark.parametrize(("size", "number"), [(1, 6), (200, 2), (10**6, 1)])
def test_chunks_are_of_about_the_size_asked_for(size: int, number: int) -> None:
    blobs = [load(base64.b64decode(text)) for text in chunks(some(), size)]
    assert len(blobs) == number
    check({name: tensor for blob in blobs for name, tensor in blob.items()})
    for blob in blobs:
        assert len(blob) == 1 or sum(tensor.nbytes for tensor in blob.values()) <= size


def test_chunks_are_made_one_at_a_time() -> None:
    taken = []

    def source() -> Iterator[tuple[str, Tensor]]:
        for number in range(100):
            taken.append(number)
            yield f"w{number}", torch.zeros(10)

    parts = chunks(source(), 40)
    next(parts)
    assert len(taken) <= 2


@pytest.mark.parametrize("size", [1, 200, 10**6])
def test_the_first_and_the_last_part_say_so(size: int) -> None:
    parts = list(updates(some(), size))
    assert [part["first"] for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [part["last"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [part["data"] for part in parts] == list(chunks(some(), size))
    assert file_update(Path("/x")) == {"path": "/x", "first": True, "last": True}


def test_no_weights_are_one_part_that_is_empty() -> None:
    assert list(updates([])) == [{"data": "", "first": True, "last": True}]


def test_the_facts_of_a_model_are_those_of_its_text_part() -> None:
    class Config:
        model_type, vocab_size, hidden_size, num_hidden_layers = "qwen2", 315, 96, 3

    class Whole:
        model_type = "both"

        def get_text_config(self) -> Config:
            return Config()

    expected = {"model_type": "qwen2", "vocab_size": 315, "hidden_size": 96, "num_hidden_layers": 3}
    assert facts(Config()) == facts(Whole()) == expected


def test_handles_go_through_json() -> None:
    """The arguments that rebuild a shared CUDA tensor, of which JSON knows neither bytes nor types."""
    args = (
        Tensor, torch.Size([2, 3]), (3, 1), 0, torch.storage.TypedStorage, torch.bfloat16, 0, b"\x00\xff", 24, 512,
        False, b"counter", 0, b"event", True,
    )  # fmt: skip
    written = [weights._to_json(value) for value in args]
    back = [weights._from_json(value) for value in json.loads(json.dumps(written))]
    assert back == [None, (2, 3), (3, 1), 0, None, *args[5:]]
