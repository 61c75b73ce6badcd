"""`rlvr prefer`: every method solves a task of preferences, and fails it when the sign of its loss is turned round.

The task: after `+` a completion of the letters a to d is preferred to one of e to h, after `-` it is the other way
round; so nothing that holds for all prompts solves it, and the numbers of held-out prompts were never seen.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlvr import Run
from rlvr.cli import main
from rlvr.errors import RunStopped
from rlvr.learner.modules import fingerprint
from rlvr.learner.policy import load_policy
from rlvr.sampler.prompts import encode_chat
from rlvr.stages import prefer as stage_module
from rlvr.stages.prefer import prefer
from rlvr.stages.preference import LabelTrainer, LossTrainer, PairTrainer

TRAINER = {"dpo": PairTrainer, "ipo": PairTrainer, "kto": LabelTrainer, "simpo": LossTrainer, "orpo": LossTrainer}
SOLVED = 0.95
SHORT: dict[str, Any] = {"lr": 1e-2, "steps": 24, "batch_size": 32, "micro_batch_size": 32, "hold_out": 0.25}
QUICK: dict[str, Any] = {**SHORT, "save_every": 0, "eval_every": 1000, "schedule": "constant"}


def write_pairs(path: Path, count: int = 320) -> Path:
    """So many pairs of the task, each with a prompt of its own."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        sign = "+-"[number % 2]
        better, worse = ("abcd", "efgh") if sign == "+" else ("efgh", "abcd")
        chosen, rejected = ("".join(rng.choices(letters, k=rng.randint(3, 8))) for letters in (better, worse))
        rows.append({"prompt": f"{sign}{number + 100}?", "chosen": chosen, "rejected": rejected})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> str:
    """A tiny Qwen2 with random weights, in a folder."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("model")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def result(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
    return found


def accuracy(run: Run) -> float:
    """Of the last validation."""
    return float(result(run)["validation"]["last"]["validation/accuracy"])


@pytest.mark.parametrize("method", TRAINER)
def test_every_method_solves_the_task(method: str, pairs: str, model: str, tmp_path: Path) -> None:
    """On held-out prompts; the reference, where there is one, is as it was, and the report says so."""
    run = prefer(data=pairs, model=model, method=method, out=str(tmp_path / "run"), **QUICK)
    found = result(run)
    assert accuracy(run) > SOLVED
    assert found["validation"]["first"]["validation/accuracy"] < 0.8  # it was not solved before
    assert found["validation"]["rows"] == (160 if method == "kto" else 80)
    last = run.metrics()[-1]
    if method in ("dpo", "ipo", "kto"):
        start = fingerprint(load_policy(model, torch.device("cpu"))[0])
        assert found["reference"] == {"fingerprint": start, "checks": 3, "frozen": True}
        assert last["validation/kl"] > 0
    else:
        assert "reference" not in found
        assert "validation/kl" not in last
    assert last["validation/logprob_chosen"] > last["validation/logprob_rejected"]
    assert f"`{method}` with beta" in (run.path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", TRAINER)
def test_no_method_solves_it_with_the_sign_of_its_loss_turned_round(
    method: str, pairs: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above fails if a loss has the wrong sign, ours or TRL's."""
    original: Callable[..., torch.Tensor] = TRAINER[method].compute_loss
    monkeypatch.setattr(TRAINER[method], "compute_loss", lambda *args, **options: -original(*args, **options))
    run = prefer(data=pairs, model=model, method=method, out=str(tmp_path / "run"), **QUICK)
    assert accuracy(run) < 0.5


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_what_is_learned_from_is_what_a_sampler_sees_and_makes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a chat template: the prompt as `rlvr train` encodes it, the completion's tokens, the end token; no more."""
    rows = [{"prompt": f"What is {n} + 1?", "chosen": f"\\boxed{{{n + 1}}}", "rejected": "I"} for n in range(6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batches: list[dict[str, Any]] = []
    original: Callable[..., torch.Tensor] = TRAINER[method].compute_loss

    def spy(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> torch.Tensor:
        batches.append(inputs)
        return original(self, model, inputs, *args, **options)

    monkeypatch.setattr(TRAINER[method], "compute_loss", spy)
    settings = {**QUICK, "steps": 1, "hold_out": 0.0}
    prefer(data=str(tmp_path / "pairs.jsonl"), model="starter", method=method, out=str(tmp_path / "run"), **settings)
    _, tokenizer = load_policy("starter", torch.device("cpu"))
    expected = set()
    for row in rows:
        prompt = encode_chat(tokenizer, [{"role": "user", "content": row["prompt"]}], "a row")
        for text in (row["chosen"], row["rejected"]):
            written = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
            expected.add((*prompt, 0, *written))  # 0 between the two, as where one ends matters
    found = set()
    for batch in batches:
        for ids, mask, written in zip(
            batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
        ):
            prompt, completion = ids[mask.bool() & ~written.bool()], ids[written.bool()]
            found.add((*prompt.tolist(), 0, *completion.tolist()))
    assert found == expected


def test_kto_balances_good_and_bad(pairs: str, model: str, tmp_path: Path) -> None:
    """Three bad completions for each good one: still solved, and the counts are in the result."""
    rows = [json.loads(line) for line in Path(pairs).read_text().splitlines()]
    labels = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in rows[::3]]
    labels += [{"prompt": r["prompt"], "completion": r["rejected"], "label": False} for r in rows]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    data = str(tmp_path / "labels.jsonl")
    run = prefer(data=data, model=model, method="kto", out=str(tmp_path / "run"), **QUICK)
    assert accuracy(run) > SOLVED
    assert (result(run)["data"]["good"], result(run)["data"]["bad"]) == (107, 320)


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_adapters_learn_and_what_lies_below_them_is_the_reference(
    method: str, pairs: str, model: str, tmp_path: Path
) -> None:
    """With activations computed again. The weights below the adapters are the fingerprint; `final/` has them merged."""
    out, settings = str(tmp_path / "run"), QUICK | {"lr": 3e-2, "recompute": True, "lora": {"rank": 8}}
    run = prefer(data=pairs, model=model, method=method, out=out, **settings)
    assert accuracy(run) > SOLVED
    start = load_policy(model, torch.device("cpu"))[0]
    if method == "dpo":
        assert result(run)["reference"]["frozen"]
    adapters = load_file(run.model / "adapter" / "adapter_model.safetensors")
    assert adapters
    assert not any("ref" in name for name in adapters)  # TRL's copy is gone
    merged = load_policy(str(run.model), torch.device("cpu"))[0]
    assert fingerprint(merged) != fingerprint(start)
    assert torch.equal(merged.get_input_embeddings().weight, start.get_input_embeddings().weight)


def test_an_sft_loss_beside_it_keeps_what_is_chosen_likely(pairs: str, model: str, tmp_path: Path) -> None:
    """Both solve the task; with the loss the chosen completions end more than twice as likely, and more."""
    plain, beside = (
        prefer(data=pairs, model=model, method="dpo", sft=sft, out=str(tmp_path / str(sft)), **QUICK)
        for sft in (0.0, 2.0)
    )
    assert min(accuracy(plain), accuracy(beside)) > SOLVED
    chosen = [run.metrics()[-1]["validation/logprob_chosen"] for run in (plain, beside)]
    assert chosen[1] > chosen[0] + 1


def test_a_reference_of_its_own(pairs: str, model: str, tmp_path: Path) -> None:
    """Another model is the reference: its log-probabilities count, so the first KL is above 0; and it stays frozen."""
    out, settings = str(tmp_path / "run"), QUICK | {"steps": 1}
    trained = prefer(data=pairs, model=model, method="dpo", out=str(tmp_path / "first"), **QUICK)
    run = prefer(data=pairs, model=model, reference=str(trained.model), method="dpo", out=out, **settings)
    assert run.metrics()[0]["validation/kl"] > 0.1
    assert result(run)["reference"]["fingerprint"] == fingerprint(
        load_policy(str(trained.model), torch.device("cpu"))[0]
    )


def test_a_reference_that_moves_stops_the_run(
    pairs: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something changes one tensor of it by a little during training: it is noticed at the next validation."""
    original = stage_module.Course.measure

    def meddle(self: Any, policy: Any) -> dict[str, float]:
        if self.trainer.state.global_step:
            with torch.no_grad():
                next(self.reference.model.parameters()).add_(1e-6)
        return original(self, policy)

    monkeypatch.setattr(stage_module.Course, "measure", meddle)
    out = tmp_path / "run"
    with pytest.raises(RunStopped, match="the reference has moved"):
        prefer(data=pairs, model=model, method="dpo", out=str(out), **QUICK | {"eval_every": 4})
    (alarm,) = [json.loads(line) for line in (out / "guards.jsonl").read_text().splitlines()]
    assert alarm["guard"] == "reference-not-frozen"
    assert alarm["step"] == 4
    assert not (out / "final").exists()


def test_a_killed_run_goes_on_to_the_same_weights(pairs: str, model: str, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint; then `--resume` ends where the unbroken run does, to the bit."""
    settings = {**SHORT, "steps": 30, "save_every": 5, "eval_every": 10, "schedule": "linear"}
    whole = prefer(data=pairs, model=model, method="dpo", out=str(tmp_path / "whole"), **settings)
    broken = tmp_path / "broken"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = ["prefer", "--data", pairs, "--model", model, "--method", "dpo", "--out", str(broken), *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr", *command], stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    ends = time.monotonic() + 120
    while not (broken / "checkpoints" / "checkpoint-10").exists():
        assert time.monotonic() < ends
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not (broken / "final").exists()
    resumed = prefer(resume=broken)
    ours, theirs = (load_file(run.model / "model.safetensors") for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    steps = [row["step"] for row in resumed.metrics() if "validation/loss" in row]
    assert steps == [10, 20, 30]
    assert resumed.metrics()[0]["step"] == 0


def test_a_policys_own_completions_make_it_better(tmp_path: Path) -> None:
    """`--task` without data: best against worst completion of each prompt; the task is measured before and after."""
    settings: dict[str, Any] = {"limit": 300, "lr": 1e-4, "hold_out": 0.1, "save_every": 0, "eval": {"limit": 150}}
    run = prefer(task="math", model="starter", method="dpo", out=str(tmp_path / "run"), **settings)
    assert run.before is not None
    assert run.after is not None
    assert run.after.accuracy > run.before.accuracy + 0.1
    rollouts = run.rollouts()
    assert len(rollouts) == 300 * 8
    assert result(run)["data"]["groups"] == 300
    assert "held-out accuracy" in (run.path / "report.md").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "simpo", "--reference", "starter"], "`--reference` does not go with the method `simpo`"),
        (["--method", "dpo", "--margin", "0.7"], "`--margin` does not go with the method `dpo`"),
        (["--method", "simpo", "--sft", "1"], "`--sft` does not go with the method `simpo`"),
        (["--beta", "-1"], "`--beta` is `-1`, but must be at least 0"),
        (["--method", "grpo"], "`--method` is `grpo`"),
        (["--method", "kto", "--micro-batch-size", "1"], "`kto` needs two rows or more in a micro-batch"),
        (["--method", "kto", "--batch-size", "7", "--micro-batch-size", "4"], "7 divides into micro-batches of 1 row"),
        (["--lora.rank", "4", "--lora.targets", "q_prog"], "`--lora.targets` has `q_prog`"),
        (["--lora.rank", "4", "--lora.targets", "lm_head"], "`--lora.targets` puts an adapter on the output layer"),
        (["--max-length", "10"], "too-long"),
        (["--reference", "starter"], "the reference `starter` knows 315 tokens"),
    ],
)
def test_bad_settings_say_what_is_wrong(
    flags: list[str], message: str, pairs: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines, and nothing was trained."""
    code = main(["prefer", "--data", pairs, "--model", model, "--out", str(tmp_path / "run"), *flags])
    error, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert code in (2, 3)
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "run" / "final").exists()


@pytest.mark.parametrize(
    ("method", "rows", "message"),
    [
        ("dpo", [{"prompt": "+1?", "chosen": "ab"}], "no row of `{}` has a column `rejected`"),
        ("kto", [{"prompt": "+1?", "completion": "ab"}], "no row of `{}` has a column `label`"),
        ("kto", [{"prompt": f"+{n}?", "completion": "ab", "label": True} for n in range(9)], "are good"),
        ("dpo", [{"prompt": "+1?", "chosen": "ab", "rejected": "ab"}], "1 chosen-equals-rejected"),
    ],
)
def test_bad_data_say_what_is_wrong(
    method: str,
    rows: list[dict[str, Any]],
    message: str,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = main(["prefer", "--data", str(file), "--model", model, "--method", method, "--out", str(tmp_path / "run")])
    error, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert code == 3
    assert message.format(file) in error
    assert hint.startswith("hint: ")
