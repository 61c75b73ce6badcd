"""Checkpoints: model, optimiser, schedule, random state and the loop's state in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rlvr.errors import DataError
from rlvr.learner.learner import Learner
from rlvr.learner.policy import load_policy, save_policy
from rlvr.rollout import State


def write(folder: Path, learner: Learner, tokenizer: Any, state: State) -> None:
    """Fills `folder` with everything a run needs to go on."""
    save_policy(learner.policy, tokenizer, folder)
    random_state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_state["cuda"] = torch.cuda.get_rng_state_all()
    torch.save({"learner": learner.state(), "random": random_state}, folder / "learner.pt")
    (folder / "state.json").write_text(json.dumps(state.to_json()), encoding="utf-8")


def read(folder: Path, learner: Learner) -> State:
    """Restores model, optimiser, schedule and random state in place; returns the loop's state.

    Raises:
        DataError: A file is missing or damaged.
    """
    try:
        state = State.from_json(json.loads((folder / "state.json").read_text(encoding="utf-8")))
        saved = torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
        learner.policy.load_state_dict(load_policy(str(folder), torch.device("cpu"))[0].state_dict())
        learner.load_state(saved["learner"])
    except Exception as error:  # a damaged file can make the readers of JSON, torch and safetensors raise anything
        raise DataError(
            f"the checkpoint `{folder}` cannot be read: {type(error).__name__}: {error}",
            "delete it to go on from the one before",
        ) from error
    torch.set_rng_state(saved["random"]["cpu"])
    if torch.cuda.is_available() and "cuda" in saved["random"]:
        torch.cuda.set_rng_state_all(saved["random"]["cuda"])
    return state
