"""Runs that train adapters: what they leave behind, how they go on, and what is refused before a model is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import rlvr
from rlvr import ConfigError
from rlvr.errors import MissingDependencyError
from rlvr.learner import setup
from rlvr.learner.policy import model_path

SETTINGS: dict[str, Any] = {
    "task": "math",
    "steps": 4,
    "save_every": 2,
    "sampler": {"prompts_per_step": 8, "group_size": 8},
    "scorer": {"workers": 1},
    "eval": {"limit": 10},
    "learner": {"lr": 5e-3, "kl_coef": 0.01, "schedule": "constant"},
    "lora": {"rank": 4},
}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's own, when it loads
def test_a_run_leaves_the_merged_model_and_the_adapters_and_goes_on_exactly(tmp_path: Path) -> None:
    run = rlvr.train(**SETTINGS, out=str(tmp_path / "run"))
    base = AutoModelForCausalLM.from_pretrained(model_path("starter"))
    merged = AutoModelForCausalLM.from_pretrained(run.model)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before, after = base(ids).logits, merged(ids).logits
        adapted = PeftModel.from_pretrained(base, run.model / "adapter").eval()
        assert torch.allclose(adapted(ids).logits, after, atol=1e-4)
    assert not torch.allclose(before, after, atol=1e-2)
    assert run.metrics()[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert run.metrics()[-1]["kl"] > 0

    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000004")
    shutil.rmtree(copy / "final")
    again = rlvr.train(resume=copy)
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = load_file(run.model / name), load_file(again.model / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lora": {"rank": 4, "targets": ("q_prj",)}}, ConfigError, "`q_prj`, which is no layer of `starter`"),
        ({"lora": {"rank": 4, "targets": ("q_proj", "elsewhere")}}, ConfigError, "`elsewhere`, which is no layer"),
        ({"lora": {"rank": 4, "quantize": "8bit"}}, MissingDependencyError, "needs bitsandbytes"),
        ({"learner": {"liger": True}}, MissingDependencyError, "Liger's kernels"),
        ({"learner": {"attention": "flex_atention"}}, ConfigError, "no attention backend `flex_atention`"),
        ({"learner": {"kl_coef": 0.1, "reference": "./nowhere"}}, ConfigError, "`./nowhere` is not a model folder"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], error: type, message: str
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was read")

    monkeypatch.setattr(setup, "load_policy", read)
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("rlvr.learner.adapters.importlib.util.find_spec", lambda name: None)
    with pytest.raises(error, match=message) as caught:
        rlvr.train(**(SETTINGS | settings), out=str(tmp_path / "run"))
    assert caught.value.hint
    assert not (tmp_path / "run").exists()
