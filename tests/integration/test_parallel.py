"""One, two and four processes learn the same, with a copy of the weights in each and with a part.

This file is also what each process runs: `python test_parallel.py FOLDER`, the folder with the models and the rows.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from rlvr.algorithms import ALGORITHMS
from rlvr.config import LearnerConfig, LoraConfig
from rlvr.learner.adapters import add_adapters
from rlvr.learner.learner import Learner
from rlvr.learner.modules import Critic
from rlvr.learner.policy import whole
from rlvr.rollout import Row

TEMPERATURE = 0.8
LR = 1e-2
# Large enough for AdamW to be smooth: what is rounding in a gradient would else be a full step.
ADAM_EPSILON = 1e-3
UPDATES = 5


def recipe(name: str, **settings: Any) -> LearnerConfig:
    own = {key.removeprefix("learner."): value for key, value in ALGORITHMS[name].settings.items() if "learner." in key}
    return replace(LearnerConfig(lr=LR, micro_batch_tokens=40), **own | settings)


CONFIGS = {
    "dapo": recipe("dapo", grad_clip=0.05),
    "dapo, fewer micro-batches than processes": recipe("dapo", micro_batch_tokens=16384),
    "gspo": recipe("gspo", clip_low=0.1, clip_high=0.1, kl_coef=0.3, kl_target=0.5, kl_horizon=100, recompute=True),
    "ppo": recipe("ppo", kl_coef=0.1, kl_in="reward", kl_estimator="k1"),
    "corrected": recipe("grpo", correction="sequence", entropy_coef=0.01, updates_per_step=2),
    "lora": recipe("grpo", kl_coef=0.3, grad_clip=0.0),
}
WORLDS = [(2, "ddp"), (2, "fsdp"), (4, "ddp"), (4, "fsdp")]

# ---------------------------------------------------------------------------------------------- in each process


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def tuples(value: Any) -> Any:
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def learn(folder: Path, name: str, shard: Any, accelerator: Any, rows: list[list[Row]]) -> dict[str, Any]:
    """Metrics of each step, and what all weights are in the end."""
    config = CONFIGS[name]
    model, critic, reference = load(folder / "policy"), None, None
    torch.manual_seed(0)
    if name == "lora":
        model = add_adapters(model, LoraConfig(rank=2))
    elif config.kl_coef:
        reference = load(folder / "other")
    if config.advantage == "gae":
        critic = Critic(load(folder / "other"))
        torch.nn.init.normal_(critic.head.weight, std=0.2)
    learner = Learner(model, config, 10, accelerator, reference, critic=critic, max_tokens=12, shard=shard)
    parts = [p.to_local().numel() / p.numel() for p in learner.module.parameters() if isinstance(p, DTensor)]
    for part in learner.optimizer.param_groups:
        part["eps"] = ADAM_EPSILON
    steps = -(-UPDATES // (config.epochs * config.updates_per_step))
    metrics = [learner.update(rows, TEMPERATURE) for _ in range(steps)]
    weights = {
        f"{part}/{i}": whole(p.detach()).clone()
        for part, module in learner.modules.items()
        for i, p in enumerate(module.parameters())
    }
    weights |= {f"as saved/{key}": tensor.clone() for key, tensor in learner.weights()}
    alone = shard == "ddp" and accelerator.process_index == 0  # no other process needs to take part
    logprobs = learner.logprobs_of([3, 4, 5, 6, 7]) if alone or shard == "fsdp" else []
    return {"metrics": metrics, "weights": weights, "logprobs": logprobs, "state": learner.state(), "parts": parts}


def work(folder: Path) -> None:
    from accelerate import Accelerator

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    rows = [
        [Row(**{key: tuples(value) for key, value in row.items()}) for row in group]
        for group in json.loads((folder / "rows.json").read_text())
    ]
    shards = ["ddp", "fsdp"] if accelerator.num_processes > 1 else ["ddp"]
    found = {(shard, name): learn(folder, name, shard, accelerator, rows) for shard in shards for name in CONFIGS}
    torch.save(found, folder / f"{accelerator.num_processes}-{accelerator.process_index}.pt")
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        torch.distributed.destroy_process_group()


# -------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(fresh_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and four groups of rows: one is there twice, one is in part by the environment, one has no
    advantage; the sampler is a little off."""
    from rlvr import SamplingParams
    from rlvr.sampler.transformers import TransformersSampler

    path = tmp_path_factory.mktemp("parallel")
    policy = fresh_model()
    policy.save_pretrained(path / "policy")
    fresh_model(seed=1).save_pretrained(path / "other")
    prompts = [tokenizer.encode(prompt) for prompt in ["1+2=?", "7", "a b c d 3-1=?", "09"]]
    noise = torch.Generator().manual_seed(0)
    groups: list[list[Row]] = [[] for _ in prompts]
    for index, completion in TransformersSampler(policy, tokenizer).sample(prompts, 4, SamplingParams(12, 0.8, seed=1)):
        old = torch.tensor(completion.logprobs)
        old = old + 0.3 * torch.randn(len(old), generator=noise)
        credit = [1.5, -0.5, 0.0, -1.0][len(groups[index])]
        row = Row(tuple(prompts[index]), completion.token_ids, tuple(old.tolist()), credit, reward=credit)
        groups[index].append(replace(row, foreign=((2, 4),)) if row.written > 6 else row)
    assert any(row.foreign for group in groups for row in group)
    groups = [[*group, group[0]] for group in groups]
    (path / "rows.json").write_text(json.dumps([[asdict(row) for row in group] for group in groups]))
    return path


@pytest.fixture(scope="module")
def results(folder: Path) -> Callable[[int], list[dict[Any, Any]]]:
    """What so many processes found, one after the other; they are started once."""
    done: dict[int, list[dict[Any, Any]]] = {}

    def of(processes: int) -> list[dict[Any, Any]]:
        if processes not in done:
            done[processes] = []  # which fails the other tests at once, should this not work
            launch(processes, folder)
            files = [folder / f"{processes}-{rank}.pt" for rank in range(processes)]
            done[processes] = [torch.load(file, weights_only=True) for file in files]
        assert done[processes], "they failed"
        return done[processes]

    return of


def launch(processes: int, folder: Path) -> None:
    """Starts processes as torchrun does, and waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"OMP_NUM_THREADS": "1"}
    if processes > 1:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(processes)}
        shared |= {"WORLD_SIZE": str(processes)}
    started = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        command = [sys.executable, __file__, str(folder)]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=shared | own, **pipes))
    try:
        for process in started:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
            process.wait()


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("processes", "shard"), WORLDS)
def test_several_processes_learn_what_one_does(
    results: Callable[[int], list[dict[Any, Any]]], folder: Path, processes: int, shard: str, name: str
) -> None:
    alone = results(1)[0]["ddp", name]
    together = [found[shard, name] for found in results(processes)]
    difference = apart(together[0]["weights"], alone["weights"])
    assert difference < 1e-5
    assert apart_from_start(alone, folder) > 100 * difference + 1e-3
    for ours, theirs in zip(together[0]["metrics"], alone["metrics"], strict=True):
        if shard == "fsdp":  # no process has the whole reference
            theirs = {name: value for name, value in theirs.items() if name != "reference_fingerprint"}
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    assert together[0]["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-4)
    assert together[0]["state"] == pytest.approx(alone["state"])
    parts = together[0]["parts"]
    assert (sum(parts) / len(parts) < 0.75) if shard == "fsdp" else parts == []
    for other in together[1:]:  # to the last bit, since every process decides for itself how a run goes on
        assert apart(other["weights"], together[0]["weights"]) == 0
        assert other["metrics"] == together[0]["metrics"]
        assert other["state"] == together[0]["state"]


def apart_from_start(found: dict[str, Any], folder: Path) -> float:
    """How far the policy went."""
    from safetensors.torch import load_file

    saved = load_file(folder / "policy" / "model.safetensors")
    ours = {key.removeprefix("as saved/"): t for key, t in found["weights"].items() if key.startswith("as saved/")}
    return apart(ours, saved)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
