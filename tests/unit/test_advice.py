"""`rlvr advise`: the stage that follows from what there is, bytes as a real learner takes them, commands that parse."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlvr.advice import (
    CASES,
    GIB,
    Hardware,
    Setup,
    Shape,
    Situation,
    advise,
    choose,
    memory,
    model_of,
    peak,
    read_model,
    read_params,
    shape_of,
    table,
)
from rlvr.cli import main
from rlvr.errors import ConfigError, UsageError
from rlvr.guards import GUARDS

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "choose-a-stage.md"
GPU, LAPTOP = Hardware(1, 24, 16, 64), Hardware(0, 0, 2, 8)


def situation(data: str, checker: str = "none", params: float = 0.5e9, **more: Any) -> Situation:
    hardware = more.pop("hardware", GPU)
    return Situation(tuple(data.split()), checker, "Qwen/Qwen2.5-0.5B", shape_of(params), hardware, **more)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- which stage


@pytest.mark.parametrize(
    ("data", "checker", "solves", "key"),
    [
        ("prompts", "exact", "some", "verify"),
        ("prompts gold pairs", "exact", "some", "verify"),  # a checker comes before all data
        ("prompts gold", "exact", "none", "form-then-verify"),
        ("prompts", "exact", "none", "no-signal"),
        ("prompts", "exact", "most", "sharpen"),
        ("prompts", "partial", "some", "partial"),
        ("prompts", "learned", "some", "learned"),
        ("pairs", "none", "some", "pairs"),
        ("pairs prompts", "none", "some", "reward-model"),
        ("pairs prompts judge", "none", "some", "pairs"),
        ("labels gold", "none", "some", "labels"),
        ("prompts judge", "none", "some", "judge"),
        ("gold", "none", "some", "gold"),
        ("prompts", "none", "some", "nothing"),
        ("none", "none", "some", "nothing"),
    ],
)
def test_what_there_is_decides_the_stage(data: str, checker: str, solves: str, key: str) -> None:
    assert choose(situation(data, checker, solves=solves)) == key


def test_where_a_reference_does_not_fit_a_method_without_one_is_advised() -> None:
    """3B with a reference, all in float32, is beyond 64 GiB; without one it is not."""
    small = situation("pairs", params=3e9, hardware=Hardware(1, 64, 16, 64))
    assert choose(small) == "pairs-small"
    assert choose(replace(small, hardware=Hardware(1, 141, 16, 64))) == "pairs"
    assert choose(replace(small, lora=16)) == "pairs"  # below adapters the reference is free


def test_every_row_of_the_table_can_be_reached_and_names_guards_that_exist() -> None:
    reached = {
        choose(situation(data, checker, solves=solves))
        for data in ("none", "prompts", "gold", "labels", "pairs", "judge", "pairs prompts")
        for checker in ("none", "partial", "exact", "learned")
        for solves in ("none", "some", "most")
    } | {choose(situation("pairs", params=3e9, hardware=Hardware(1, 64, 16, 64)))}
    assert reached == set(CASES)
    for case in CASES.values():
        assert set(case.guards) <= set(GUARDS)


def test_the_guide_has_the_table() -> None:
    assert table() in GUIDE.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------- its memory


def bytes_of(*tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(("algorithm", "rank"), [("ppo", 0), ("grpo", 0), ("ppo", 4), ("dapo", 0)])
def test_bytes_are_those_of_a_real_learner(algorithm: str, rank: int) -> None:
    """Weights, gradients and moments of policy, reference and critic, counted tensor by tensor after an update."""
    import torch
    from accelerate import Accelerator

    from rlvr.learner.setup import load_learner
    from rlvr.rollout import Row
    from rlvr.settings import resolve_run

    flags: dict[str, Any] = {"task": "math", "algorithm": algorithm, "device": "cpu", "lora.rank": rank}
    if algorithm != "dapo":
        flags["learner.kl_coef"] = 0.1
    config = resolve_run(flags).config
    learner = load_learner(config, torch.device("cpu"), Accelerator(cpu=True), "off").learner
    rows = [Row((5, 6), (7, 8, 9), (-1.0, -2.0, -1.0), advantage) for advantage in (1.0, -1.0)]
    kept: list[int] = []
    learner.optimizer.register_step_pre_hook(lambda optimizer, *_: kept.append(gradients(optimizer)))
    learner.update([rows], 1.0)

    parameters = [p for module in learner.modules.values() for p in module.parameters()]
    if learner.reference is not None:
        parameters += list(learner.reference.parameters())
    unique = {p.data_ptr(): p for p in parameters}.values()
    moments = [t for state in learner.optimizer.state.values() for name, t in state.items() if "exp_avg" in name]
    measured = bytes_of(*unique) + max(kept) + bytes_of(*moments)

    shape = read_model("starter")
    assert shape is not None
    told = memory("train", algorithm, replace(situation("prompts", "exact", hardware=LAPTOP), shape=shape), Setup(rank))
    counted = [part for part in told if not part.estimate and "scores" not in part.name]
    assert sum(part.bytes for part in counted) == pytest.approx(measured, rel=1e-9)
    assert len(counted) == (1 + (algorithm != "dapo") + (algorithm == "ppo") if not rank else 4)


def gradients(optimizer: Any) -> int:
    return bytes_of(*(p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None))


def test_activations_are_those_that_autograd_keeps() -> None:
    """The estimate, against the tensors that a backward pass of a small model waits for, in float32."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}
    kept = {}
    for layers in (1, 3):
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, num_hidden_layers=layers, **sizes))
        own = {parameter.data_ptr() for parameter in model.parameters()}
        found: dict[int, int] = {}

        def keep(tensor: Any, own: set[int] = own, found: dict[int, int] = found) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = model.model(input_ids=torch.arange(64)[None], use_cache=False).last_hidden_state
        kept[layers] = sum(found.values())
        del hidden
    measured = (kept[3] - kept[1]) / 2
    shape = Shape(128, 384, 1, 4, 2, 64)
    here = replace(situation("prompts", "exact", hardware=LAPTOP), shape=shape, micro_tokens=64)
    told = next(part for part in memory("train", "dapo", here, Setup()) if "activations" in part.name)
    assert told.bytes == pytest.approx(measured, rel=0.1)


def test_the_sizes_of_known_models_give_their_parameters() -> None:
    """Published counts: Qwen2.5 0.5B has 494 million parameters, 7B has 7.616 billion."""
    small = shape_of(0.494e9)
    assert replace(small, given=0).params == pytest.approx(494_032_768)
    assert replace(shape_of(7.6e9), given=0).params == pytest.approx(7_615_616_512)


def test_sampling_and_learning_take_turns() -> None:
    parts = memory("train", "dapo", situation("prompts", "exact"), Setup())
    by = {when: sum(part.bytes for part in parts if part.when == when) for when in ("always", "sampling", "learning")}
    assert by["sampling"] > 0 < by["learning"]
    assert peak(parts) == by["always"] + max(by["sampling"], by["learning"])


def test_adapters_take_the_place_of_a_reference_and_of_most_moments() -> None:
    whole = memory("prefer", "dpo", situation("pairs"), Setup())
    adapted = memory("prefer", "dpo", situation("pairs"), Setup(lora=16))
    assert any("reference" in part.name for part in whole)
    assert not any("reference" in part.name for part in adapted)
    assert not any("reference" in part.name for part in memory("prefer", "orpo", situation("pairs"), Setup()))
    assert peak(adapted) < peak(whole)


def test_what_does_not_fit_is_made_smaller_until_it_does() -> None:
    """By recomputing, by sharding over GPUs, by adapters, by quantizing; and where nothing helps it says so."""
    own = situation("prompts", "exact", params=7e9)
    for hardware, flag in (
        (Hardware(1, 180, 16, 200), ""),
        (Hardware(8, 80, 16, 900), "--learner.shard"),
        (Hardware(1, 48, 16, 200), "--lora.rank"),
    ):
        (step,) = advise(replace(own, hardware=hardware)).steps
        assert step.fits
        assert flag in " ".join(step.command)
        assert ("--lora.rank" in step.command) == (flag == "--lora.rank")
    (step,) = advise(replace(own, hardware=Hardware(1, 4, 4, 16))).steps
    assert not step.fits
    assert "4bit" in step.command


# -------------------------------------------------------------------------------------------------- its commands


@pytest.mark.parametrize("hardware", [LAPTOP, GPU, Hardware(8, 80, 64, 900)], ids=["laptop", "gpu", "gpus"])
@pytest.mark.parametrize("key", [key for key, case in CASES.items() if case.chain])
def test_every_command_parses(
    key: str, hardware: Hardware, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with `--dry-run`, which resolves all of its settings."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "runs" / "reward" / "final"
    made.mkdir(parents=True)
    (made / "reward_model.json").write_text('{"mean": 0, "deviation": 1, "max_length": 64}')
    for params in (0.5e9, 7e9, 70e9):
        own = replace(situation("prompts", params=params), hardware=hardware, **WAYS[key])
        advice = advise(own)
        if key == "pairs-small":  # depends on the size
            continue
        assert advice.key == key
        for step in advice.steps:
            words = list(step.command)
            command = words[words.index(step.stage, 1) :]
            assert main([*command, "--dry-run"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("key", ["gold", "pairs", "labels", "reward-model"])
@pytest.mark.parametrize("gpus", [1, 3, 5, 7, 8, 12, 48])
def test_rows_of_an_update_divide_among_the_gpus(key: str, gpus: int) -> None:
    """And for KTO each process can take them by two."""
    step = advise(replace(situation("prompts"), hardware=Hardware(gpus, 80, 64, 900), **WAYS[key])).steps[0]
    given = dict(zip(step.command, step.command[1:], strict=False))
    rows = int(given.get("--batch-size", 32))
    assert rows >= 32
    assert rows % (gpus * (2 if key == "labels" else 1)) == 0
    assert ("--batch-size" in given) == bool(32 % (gpus * (2 if key == "labels" else 1)))


def test_kto_keeps_two_rows_where_memory_is_short() -> None:
    """It sets each row beside another; the memory told is that of two rows of one completion each."""
    own = situation("labels", params=7e9, hardware=Hardware(1, 16, 16, 64))
    (step,) = advise(own).steps
    assert step.command[step.command.index("--micro-batch-size") + 1] == "2"
    assert any(part.name == f"activations of {2 * own.context:,} tokens" for part in step.memory)


def test_without_a_gpu_it_says_that_sampling_is_slow() -> None:
    (step,) = advise(situation("prompts gold", "exact", hardware=Hardware(0, 0, 2, 24))).steps
    assert step.fits
    assert "without a GPU this is slow: a step writes 256 completions" in step.note
    assert not advise(situation("prompts", "exact", params=1e6, hardware=LAPTOP)).steps[0].note
    assert not advise(situation("prompts", "exact")).steps[0].note


WAYS: dict[str, dict[str, Any]] = {
    "verify": {"checker": "exact"},
    "form-then-verify": {"checker": "exact", "data": ("gold",), "solves": "none"},
    "no-signal": {"checker": "exact", "solves": "none"},
    "sharpen": {"checker": "exact", "solves": "most"},
    "partial": {"checker": "partial"},
    "pairs": {"data": ("pairs",), "lora": 8},
    "pairs-small": {"data": ("pairs",)},
    "labels": {"data": ("labels",)},
    "gold": {"data": ("gold",)},
    "judge": {"data": ("judge",)},
    "reward-model": {"data": ("pairs", "prompts")},
    "learned": {"checker": "learned"},
}


# ----------------------------------------------------------------------------------------------- the command line


def test_it_prints_stage_memory_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", "prompts", "--checker", "exact", "--params", "0.5B", "--gpus", "1", "--gpu-memory", "24"]
    assert main(["advise", *flags]) == 0
    out = capsys.readouterr().out
    assert "rlvr train (dapo)" in out
    assert "rlvr train --model Qwen/Qwen2.5-0.5B-Instruct --task gsm8k --algorithm dapo" in out
    assert "vLLM's copy of the policy" in out
    assert "fits into the 22.1 GiB" in out
    assert main(["advise", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["case"] == "verify"
    assert found["steps"][0]["fits"] is True
    assert found["steps"][0]["memory"][0]["bytes"] == 16 * 0.5e9


def test_it_exits_with_1_where_nothing_fits_or_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--data", "prompts", "--checker", "none", "--params", "0.5B"]) == 1
    assert "collect something to learn from" in capsys.readouterr().out
    flags = ["--data", "gold", "--checker", "none", "--params", "70B", "--gpus", "1", "--gpu-memory", "8"]
    assert main(["advise", *flags]) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "`rlvr advise` needs `--data`, `--checker`, `--params`"),
        (["--data", "pair", "--checker", "none", "--params", "1B"], "did you mean `pairs`?"),
        (["--data", "none,gold", "--checker", "none", "--params", "1B"], "does not go with other data"),
        (["--data", "gold", "--checker", "none", "--params", "big"], "`big` is no number of parameters"),
        (["--data", "gold", "--checker", "none", "--model", "my-model"], "the size of `my-model` is not known"),
        (["--data", "gold", "--checker", "none", "--model", "x-0B"], "the size of `x-0B` is not known"),
        (
            ["--data", "gold", "--checker", "none", "--params", "1B", "--gpus", "1", "--gpu-memory", "nan"],
            "`--gpu-memory` is `nan`",
        ),
    ],
)
def test_mistakes_are_two_lines(flags: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlvr", "advise", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 2
    assert said in done.stderr


def test_on_a_terminal_it_asks() -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rlvr", "advise", "--params", "0.5B", "--gpus", "0", "--json"],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(leader, b"nonsense\nlabels, gold\nnone\n")
        out, err = process.communicate(timeout=60)
    assert err.count("What data is there?") == 2  # the first answer was none
    assert json.loads(out)["case"] == "labels"


def test_the_shape_of_a_folder_is_read_from_its_config(tmp_path: Path) -> None:
    starter = read_model("starter")
    assert starter is not None
    assert starter.params < 1e6
    (tmp_path / "config.json").write_text('{"hidden_size": "wide"}')
    with pytest.raises(ConfigError, match="is not understood"):
        read_model(str(tmp_path))
    (tmp_path / "config.json").write_text(
        '{"hidden_size": 0, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}'
    )
    with pytest.raises(ConfigError, match="a size below 1"):
        read_model(str(tmp_path))
    assert read_model("somebody/something") is None
    found = read_model("somebody/else-7B-chat")
    assert found is not None
    assert found.params == 7e9


def test_sizes_are_read() -> None:
    assert read_params("0.5B") == 0.5e9
    assert read_params("350m") == 350e6
    assert model_of(8e9) == "Qwen/Qwen2.5-7B-Instruct"
    with pytest.raises(UsageError):
        read_params("0B")
    with pytest.raises(UsageError):
        read_params("9" * 400)
    assert Hardware(1, 24, 1, 1).room < 24 * GIB
