"""Loading a policy: from where, and what a name that leads nowhere says."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr import ConfigError, MissingDependencyError
from rlvr.learner.policy import choose_device, load_policy, model_path, save_policy

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub; transformers read the variable when they were imported, so it is set in both places."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def whole(fresh_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in Hugging Face format."""
    folder = tmp_path_factory.mktemp("whole")
    save_policy(fresh_model("mistral"), tokenizer, folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def test_a_policy_comes_back_as_it_was(whole: Path, fresh_model: Callable[..., Any], tokenizer: Any) -> None:
    model, found = load_policy(str(whole), CPU)
    assert found.encode("1+2 =?") == tokenizer.encode("1+2 =?")
    assert found.decode(found.encode("1+2 =?")) == "1+2 =?"
    assert found.eos_token_id == tokenizer.eos_token_id
    assert not model.training
    for ours, theirs in zip(model.parameters(), fresh_model("mistral").parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_are_loaded_in_single_precision(folder: Path, fresh_model: Callable[..., Any], tokenizer: Any) -> None:
    save_policy(fresh_model("mistral").bfloat16(), tokenizer, folder)
    assert {parameter.dtype for parameter in load_policy(str(folder), CPU)[0].parameters()} == {torch.float32}


def test_saving_shows_no_progress_bar(
    fresh_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_policy(fresh_model(), tokenizer, tmp_path)
    assert "%" not in capfd.readouterr().err


def test_starters_are_the_folders_that_come_with_the_tasks() -> None:
    assert model_path("starter") == str(importlib.resources.files("rlvr_tasks") / "starter")
    assert model_path("starter-code") == str(importlib.resources.files("rlvr_tasks") / "starter_code")


def test_a_folder_may_be_given_from_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert model_path("~/model") == str(folder)


def test_a_name_that_is_no_path_is_left_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert model_path("gpt2") == "gpt2"


# --------------------------------------------------------------------------------------------- names that lead nowhere


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "a/b/c", "../nowhere"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a model folder: it has no `config\.json`") as caught:
        load_policy(name, CPU)
    assert name in caught.value.message
    assert "`starter`" in caught.value.hint


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no `config\.json`"):
        load_policy(str(tmp_path), CPU)


def test_no_name_at_all() -> None:
    with pytest.raises(ConfigError, match="no model is named") as caught:
        load_policy("", CPU)
    assert "`starter`" in caught.value.hint


@pytest.mark.parametrize("name", ["nobody/nothing-of-the-sort", "not a name!"])
def test_a_name_the_hub_does_not_know(name: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        load_policy(name, CPU)
    assert caught.value.message.startswith(f"the model `{name}` cannot be loaded: ")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"hello, this is not what you are looking for"),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "no-such-model"}'),
        ("config.json", b'{"model_type": "vit"}'),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_folder_that_is_damaged(folder: Path, file: str, content: bytes | None) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(MissingDependencyError, match="cannot be loaded") as caught:
        load_policy(str(folder), CPU)
    assert "\n" not in caught.value.message


def test_weights_of_another_shape(folder: Path) -> None:
    change(folder / "config.json", hidden_size=32)
    with pytest.raises(MissingDependencyError, match="cannot be loaded"):
        load_policy(str(folder), CPU)


def change(file: Path, **values: Any) -> None:
    """Sets values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# ---------------------------------------------------------------------------------------------------- the tokenizer


def test_a_tokenizer_without_an_end(folder: Path) -> None:
    change(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ConfigError, match="has no end-of-sequence token that the model knows") as caught:
        load_policy(str(folder), CPU)
    assert "`eos_token`" in caught.value.hint


def test_an_end_that_the_model_does_not_know(folder: Path) -> None:
    """transformers adds a token that is not in the vocabulary; the model has no number for it and never ends."""
    change(folder / "tokenizer_config.json", eos_token="<nowhere>")
    with pytest.raises(ConfigError, match="has no end-of-sequence token that the model knows"):
        load_policy(str(folder), CPU)


def test_weights_without_a_tokenizer(fresh_model: Callable[..., Any], tmp_path: Path) -> None:
    """For this architecture transformers makes an empty tokenizer, which turns every prompt into nothing."""
    fresh_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no tokenizer"):
        load_policy(str(tmp_path), CPU)


# ------------------------------------------------------------------------------------------------------- the device


def test_the_device_is_the_one_named_or_the_best() -> None:
    assert choose_device("cpu") == CPU
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("").type == best


@pytest.mark.parametrize("name", ["quantum", "cpu:x", "cuda:99", "meta", "xpu"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(MissingDependencyError, match=f"there is no device `{name}` here") as caught:
        choose_device(name)
    assert "`cpu`" in caught.value.hint
