"""`rlvr sft`: it learns the answers and nothing else, packed as unpacked, and goes on exactly where it was killed."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainingArguments

from rlvr import evaluate, train
from rlvr.cli import main
from rlvr.cli.evaluate import refuse_run
from rlvr.errors import ConfigError, DataError, Diverged, RunStopped, UsageError
from rlvr.guards import BEFORE, Alarm, Watch
from rlvr.runlog import Run
from rlvr.stages.config import SftConfig, resolve_stage
from rlvr.stages.run import Callback, open_stage
from rlvr.stages.sft import check_packing, dataset, make_trainer, read, sft, split

WORDS = ("one", "two", "add", "from", "find", "solve", "what", "multiply", "by", "take", "away", "compute")
FAST: dict[str, Any] = {"model": "starter", "lr": 3e-3, "batch_size": 32, "micro_batch_size": 32, "eval": {"limit": 40}}
SHORT: dict[str, Any] = {**FAST, "batch_size": 8, "limit": 60, "steps": 6, "eval_every": 3, "task": ""}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task that random weights learn in seconds: write down the number among words."""
    folder = tmp_path_factory.mktemp("task")
    rows = [{"q": f"{a} {n} {b}", "a": str(n)} for a in WORDS for b in WORDS for n in range(10)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "copy.toml").write_text(
        'name = "copy"\nverifier = "math"\nprompt = "{{q}}"\ngold = "\\\\boxed{{{answer}}}"\n'
        '[data]\npath = "d.jsonl"\nanswer = "a"\n[defaults]\nmodel = "starter"\nsampler.max_tokens = 12\n'
    )
    return str(folder / "copy.toml")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Demonstrations of unlike lengths, in a file."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    found = [{"prompt": f"{'add ' * (n % 7)}{n}", "completion": f"\\boxed{{{'1' * (n % 5)}{n}}}"} for n in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(file)


@pytest.fixture(scope="module")
def learned(task: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Random weights after 80 updates on gold answers."""
    out = tmp_path_factory.mktemp("sft") / "run"
    return sft(task=task, init="random", limit=600, steps=80, out=str(out), **FAST)


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.model / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------ it learns


def test_random_weights_learn_a_task_from_its_gold_answers(learned: Run) -> None:
    assert learned.before is not None
    assert learned.before.accuracy < 0.1
    assert learned.after is not None
    assert learned.after.accuracy > 0.9
    rows = learned.metrics()
    held = [row["validation/loss"] for row in rows if "validation/loss" in row]
    assert held[-1] < held[0] < rows[0]["loss"]
    assert rows[-1]["accuracy"] == learned.after.accuracy
    facts = learned.facts()
    assert (facts["updates"], facts["train_rows"] + facts["validation_rows"]) == (80, 600)
    report = (learned.path / "report.md").read_text()
    assert f"| copy | {learned.before} | {learned.after} |" in report
    assert "600 rows of the gold answers of `copy`, 0 of them unusable." in report
    assert not (learned.path / "checkpoints").exists()


def test_its_model_is_one_to_measure_and_to_train_on(learned: Run, task: str, tmp_path: Path) -> None:
    again = evaluate(task=task, model=str(learned.model), eval={"limit": 40})
    assert learned.after is not None
    assert again.accuracy == learned.after.accuracy
    run = train(
        task=task,
        model=str(learned.model),
        steps=1,
        out=str(tmp_path / "run"),
        sampler={"group_size": 2, "prompts_per_step": 4, "dynamic": False},
        eval={"limit": 10},
    )
    assert run.before is not None
    assert run.before.accuracy > 0.8


def test_it_learns_from_its_own_completions_that_passed(learned: Run, task: str, tmp_path: Path) -> None:
    """Rejection sampling: what failed is not learned from, and a text counts once for a prompt."""
    settings = {**SHORT, "task": task, "model": str(learned.model), "limit": 20}
    run = sft(**settings, samples=3, temperature=1.3, out=str(tmp_path / "run"))
    rollouts = run.rollouts()
    whole = [row for row in rollouts if row["finish_reason"] == "stop"]
    passed = {(row["sample"], row["completion"]) for row in whole if row["verdict"]["status"] == "passed"}
    assert len(rollouts) == 60
    data = json.loads((run.path / "data.json").read_text())
    assert data["rows"] == len(passed) < 60
    assert data["failed"] == sum(row["verdict"]["status"] == "failed" for row in whole) > 0


# ------------------------------------------------------------------------------------------------ what is learned


@pytest.fixture
def staged(rows: str, tmp_path: Path) -> Iterator[Any]:
    """Makes a trainer over all rows in one update; `staged(packing=True)`."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Any:
            own = {**SHORT, "data": rows, "batch_size": 64, "hold_out": 0.0, **settings}
            own.pop("eval")
            resolved = resolve_stage("sft", {**own, "out": str(tmp_path / f"run{len(settings)}")})
            stage = stack.enter_context(open_stage(resolved))
            model, tokenizer = stage.load()
            train_rows, _ = split(stage, tokenizer, 256, read(cast(SftConfig, resolved.config)))
            return train_rows, make_trainer(stage, model, tokenizer, train_rows, [])

        yield make


def loss_and_gradients(trainer: Any) -> tuple[float, dict[str, Tensor]]:
    """Of all rows, as one update has them."""
    batches = [trainer._prepare_inputs(batch) for batch in trainer.get_train_dataloader()]
    count = sum((batch["labels"] != -100).sum() for batch in batches)
    trainer.model.train().zero_grad()
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
        loss.backward()
        total += loss.item()
    return total, {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}


def test_only_the_completion_is_learned(staged: Any) -> None:
    """The loss is the mean over the tokens of completions, their end token included, and over no others."""
    train_rows, trainer = staged()
    total, _ = loss_and_gradients(trainer)
    logprobs = []
    with torch.no_grad():
        for prompt, completion in train_rows:
            logits = trainer.model(input_ids=torch.tensor([prompt + completion])).logits[0]
            own = logits[len(prompt) - 1 : -1].log_softmax(-1)
            logprobs += own.gather(-1, torch.tensor(completion)[:, None]).flatten().tolist()
    assert total == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-5)
    assert all(completion[-1] == trainer.processing_class.eos_token_id for _, completion in train_rows)


def test_labels_are_those_of_the_completion() -> None:
    rows = dataset([([5, 6, 7], [8, 9]), ([1], [2])])
    assert rows["input_ids"][:] == [[5, 6, 7, 8, 9], [1, 2]]
    assert rows["labels"][:] == [[-100, -100, -100, 8, 9], [-100, 2]]


def test_packed_rows_teach_what_unpacked_ones_do(staged: Any) -> None:
    """The same loss and the same gradient: samples of a packed row do not see each other."""
    _, trainer = staged()
    loss, gradients = loss_and_gradients(trainer)
    _, packed = staged(packing=True, max_length=100)
    assert isinstance(packed.train_dataset, Dataset)
    assert len(packed.train_dataset) < len(trainer.train_dataset) / 3
    packed_loss, packed_gradients = loss_and_gradients(packed)
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    batch = next(iter(packed.get_train_dataloader()))
    seen = packed.model(input_ids=batch["input_ids"]).logits  # one long text, which would be another lesson
    apart = packed.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    assert not torch.allclose(seen, apart, atol=1e-2)


@pytest.mark.parametrize("layers", [["linear_attention", "full_attention"], ["mamba"]])
def test_packing_is_refused_where_samples_would_run_into_each_other(layers: list[str]) -> None:
    own = SimpleNamespace(layer_types=layers)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: own))
    with pytest.raises(ConfigError, match="`packing` does not go with"):
        check_packing(model)
    own.layer_types = ["full_attention", "sliding_attention"]
    check_packing(model)


# ------------------------------------------------------------------------------------------------ rows


def test_bad_rows_stop_a_stage_unless_they_are_to_be_skipped(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Path(rows).read_bytes()
    long = {"prompt": "a", "completion": "1 " * 200}
    file = tmp_path / "bad.jsonl"
    file.write_bytes(good + b'{"prompt": "\xff"}\n' + json.dumps(long).encode() + b"\n")
    settings = {**SHORT, "data": str(file), "steps": 1, "limit": 0}
    with pytest.raises(DataError) as refusal:
        sft(**settings, out=str(tmp_path / "refused"))
    assert "2 of 62 rows" in str(refusal.value)
    assert "1 not-utf8 (line 61)" in str(refusal.value)
    assert "1 too-long (line 62)" in str(refusal.value)
    assert json.loads((tmp_path / "refused" / "data.json").read_text())["bad"] == {"not-utf8": 1, "too-long": 1}
    capsys.readouterr()
    run = sft(**settings, bad_rows="skip", out=str(tmp_path / "skipped"))
    assert run.facts()["train_rows"] + run.facts()["validation_rows"] == 60
    assert run.facts()["data"]["bad"] == {"not-utf8": 1, "too-long": 1}
    assert "2 of 62 rows" in capsys.readouterr().err
    assert "1 too-long (line 62)" in (run.path / "report.md").read_text()


def test_settings_that_contradict_each_other_are_refused(rows: str, task: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`samples` is 2, but `data`"):
        sft(task=task, data=rows, samples=2, model="starter")
    with pytest.raises(ConfigError, match="nothing to learn from"):
        sft(model="starter")
    with pytest.raises(ConfigError, match="has several turns"):
        sft(task="tools", model="starter-tools", out=str(tmp_path / "run"))


def test_the_command_prints_its_settings_and_where_they_came_from(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLVR_STAGE_SFT_LR", "0.5")
    assert main(["sft", "--task", task, "--lora.rank", "4", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "lr = 0.5  # environment" in said
    assert "rank = 4  # flag" in said
    assert 'model = "starter"  # task copy' in said
    assert "packing = false  # default" in said


def test_a_missing_trl_says_what_to_install(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = metadata.version

    def without_trl(package: str) -> str:
        if package == "trl":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", without_trl)
    assert main(["sft", "--task", task]) == 3
    assert "pip install 'rlvr[stages]'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ stopping and going on


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it on its way out."""


def killed(_: Any) -> None:
    raise Killed


@pytest.fixture(scope="module")
def unbroken(rows: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sft(**SHORT, data=rows, save_every=2, out=str(tmp_path_factory.mktemp("unbroken") / "run"))


def at_update(number: int, what: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `what(stage)` happen when an update is done."""
    on_step_end = Callback.on_step_end

    def patched(self: Callback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == number:
            what(self.stage)
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(Callback, "on_step_end", patched)


def test_a_killed_run_goes_on_exactly(
    rows: str, unbroken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after update 5 with checkpoints after 2 and 4, of which the newer is damaged: the weights in the end are
    those of the unbroken run, to the last bit, and no row of metrics is there twice."""

    with monkeypatch.context() as patch:
        at_update(5, killed, patch)
        with pytest.raises(Killed):
            sft(**SHORT, data=rows, save_every=2, out=str(tmp_path / "run"))
    (tmp_path / "run" / "checkpoints" / "checkpoint-4" / "trainer_state.json").write_text("{")
    run = sft(resume=tmp_path / "run")
    assert same(weights(run), weights(unbroken))
    steps = [(row["step"], "loss" in row) for row in run.metrics()]
    assert steps == [(row["step"], "loss" in row) for row in unbroken.metrics()]
    with pytest.raises(UsageError, match="is finished"):
        sft(resume=tmp_path / "run")
    with pytest.raises(ConfigError, match="a resumed run keeps its `seed`"):
        sft(resume=tmp_path / "run", seed=1)


def test_ctrl_c_writes_a_checkpoint_to_go_on_from(
    rows: str, unbroken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        at_update(3, lambda stage: setattr(stage.interrupt, "noted", True), patch)
        with pytest.raises(KeyboardInterrupt):
            sft(**SHORT, data=rows, save_every=0, out=str(tmp_path / "run"))
    assert f"rlvr sft --resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert not (tmp_path / "run" / "final").exists()
    assert same(weights(sft(resume=tmp_path / "run")), weights(unbroken))


def test_a_guard_that_is_to_stop_a_stage_leaves_a_checkpoint(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = Alarm("kl-spike", 1, "far away", "come back", 2.0, 1.0)
    monkeypatch.setattr("rlvr.guards.Watch.look", lambda self, row: [alarm] if row["step"] == 1 else [])
    settings = {**SHORT, "data": rows, "save_every": 0}
    with pytest.raises(RunStopped, match="`kl-spike` fired"):
        sft(**settings, guards={"action": "stop"}, out=str(tmp_path / "stopped"))
    assert (tmp_path / "stopped" / "checkpoints" / "checkpoint-2").is_dir()
    run = sft(**settings, out=str(tmp_path / "warned"))
    assert "`kl-spike` at update 1: far away" in (run.path / "report.md").read_text()
    assert json.loads((run.path / "guards.jsonl").read_text())["guard"] == "kl-spike"


@pytest.mark.parametrize(
    ("save_every", "said"), [(0, "the loss is nan at update 6"), (3, "a weight is not finite at update 3")]
)
def test_a_run_that_diverges_fails_and_leaves_no_checkpoint(
    rows: str, save_every: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also between two rows of metrics, and in the last update. What cannot be gone on from is not advised."""
    with pytest.raises(Diverged, match=said):
        sft(
            **{**SHORT, "lr": 1e30, "grad_clip": 0.0, "eval_every": 50},
            data=rows,
            save_every=save_every,
            out=str(tmp_path / "run"),
        )
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert not (tmp_path / "run" / "final").exists()
    assert "--resume" not in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_training_before_a_checkpoint(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out loss, and that of training in an update whose weights are to be saved; older checkpoints stay."""
    for name, update in (("eval_loss", 3), ("loss", 4)):
        on_log = Callback.on_log

        def patched(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if state.global_step == update and name in logs:  # noqa: B023
                logs[name] = math.nan  # noqa: B023
            on_log(self, args, state, control, logs, **kwargs)  # noqa: B023

        out = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(Callback, "on_log", patched)
            patch.setattr(Callback, "on_step_end", logging_always(Callback.on_step_end))
            with pytest.raises(Diverged, match=f"is nan at update {update}"):
                sft(**SHORT, data=rows, save_every=1, out=str(out))
        kept = sorted(path.name for path in (out / "checkpoints").iterdir())
        assert kept == [f"checkpoint-{number}" for number in (update - 2, update - 1)]


def logging_always(on_step_end: Any) -> Any:
    def patched(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on_step_end(self, args, state, control, **kwargs)
        control.should_log = True

    return patched


def test_the_last_update_is_logged(unbroken: Run) -> None:
    assert [row["step"] for row in unbroken.metrics() if "loss" in row] == [1, 6]


@pytest.mark.parametrize(
    "changed",
    [
        {"hold_out": 0.2},
        {"limit": 40},
        {"max_length": 512},
        {"per_prompt": 1},
        {"packing": True},
        {"batch_size": 4},
        {"lr": 1e-5},
        {"lora": {"rank": 4}},
    ],
)
def test_a_resumed_run_keeps_what_divides_its_rows_and_its_optimizer(changed: dict[str, Any], stopped: Run) -> None:
    with pytest.raises(ConfigError, match="a resumed run keeps its `") as refusal:
        sft(resume=stopped.path, **changed)
    assert next(iter(changed)) in refusal.value.message


@pytest.fixture(scope="module")
def stopped(rows: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a file of its own that was killed after its first checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "own.jsonl").write_bytes(Path(rows).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        at_update(3, killed, patch)
        with pytest.raises(Killed):
            sft(**SHORT, data=str(folder / "own.jsonl"), save_every=2, out=str(folder / "run"))
    return Run(folder / "run")


def test_rows_that_changed_meanwhile_are_noticed(stopped: Run, rows: str) -> None:
    """Else what was trained on could be held out now."""
    file = stopped.path.parent / "own.jsonl"
    file.write_text("".join(reversed(Path(rows).read_text().splitlines(keepends=True))))
    data = (stopped.path / "data.json").read_bytes()
    with pytest.raises(DataError, match=r"own\.jsonl` are not those that `"):
        sft(resume=stopped.path)
    assert (stopped.path / "data.json").read_bytes() == data
    file.write_bytes(Path(rows).read_bytes())
    sft(resume=stopped.path)


def test_guards_remember_what_was_before_a_resumed_run(
    learned: Run,
    rows: str,
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after the last evaluation: it stands once in the metrics, the guards have seen the rows in their order, an
    alarm from before is in the report, and no update is done that is one too many."""
    looked: list[int] = []
    look = Watch.look

    def noted(self: Watch, row: Any) -> list[Alarm]:
        looked.append(row["step"])
        return look(self, row)

    monkeypatch.setattr(Watch, "look", noted)
    settings = {**SHORT, "data": rows, "task": task, "model": str(learned.model), "lr": 0.03, "save_every": 3}
    settings |= {"eval": {"limit": 40, "also": ["math"]}, "steps": 6}
    with monkeypatch.context() as patch:
        patch.setattr("rlvr.stages.sft.report", lambda *_: killed(None))
        with pytest.raises(Killed):
            sft(**settings, out=str(tmp_path / "run"))
    assert looked == [BEFORE, 1, 3, 6, 6, 6]
    alarm = Alarm("alignment-tax", 6, "lost", "mix", 2.0, 1.0)
    (tmp_path / "run" / "guards.jsonl").write_text(json.dumps(alarm.to_json()) + "\n")
    looked.clear()
    run = sft(resume=tmp_path / "run")
    assert looked == [BEFORE, 1, 3, 6, 6, 6]
    assert [row["step"] for row in run.metrics() if "accuracy" in row] == [6]
    assert run.facts()["updates"] == 6
    assert "`alignment-tax` at update 6: lost" in (run.path / "report.md").read_text()


def test_warmup_is_a_share_up_to_all_updates(rows: str, tmp_path: Path) -> None:
    for share, updates in ((1.0, 8), (0.25, 2), (0.0, 0)):
        settings = {"model": "starter", "data": rows, "warmup": share, "out": str(tmp_path / str(share))}
        with open_stage(resolve_stage("sft", settings)) as stage:
            assert stage.training(TrainingArguments).get_warmup_steps(8) == updates


def test_a_run_that_failed_on_its_rows_does_not_block_its_folder(rows: str, tmp_path: Path) -> None:
    """As the hint says, the same command with `--bad-rows skip` works; a folder with anything else in it is kept."""
    file = tmp_path / "bad.jsonl"
    file.write_bytes(Path(rows).read_bytes() + b'{"prompt": 1}\n')
    settings = {**SHORT, "data": str(file), "steps": 1, "limit": 0, "out": str(tmp_path / "run")}
    with pytest.raises(DataError, match="there is no data file"):
        sft(**{**settings, "data": str(tmp_path / "none.jsonl")})
    with pytest.raises(DataError, match="1 of 61 rows"):
        sft(**settings)
    (tmp_path / "run" / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="is there already and not empty"):
        sft(**settings, bad_rows="skip")
    (tmp_path / "run" / "notes").unlink()
    run = sft(**settings, bad_rows="skip")
    assert run.facts()["updates"] == 1
    with pytest.raises(ConfigError, match="is there already and not empty"):
        sft(**settings, bad_rows="skip")


def test_the_directory_of_a_stage_as_a_model_names_its_own_command(stopped_early: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        refuse_run(str(stopped_early))
    assert "`rlvr sft --resume" in refusal.value.hint


@pytest.fixture
def stopped_early(rows: str, tmp_path: Path) -> Path:
    with open_stage(resolve_stage("sft", {"model": "starter", "data": rows, "out": str(tmp_path / "run")})) as stage:
        return stage.path


def test_an_update_divides_into_equal_parts(rows: str, tmp_path: Path) -> None:
    settings = {"model": "starter", "data": rows, "batch_size": 30, "out": str(tmp_path / "run")}
    with open_stage(resolve_stage("sft", settings)) as stage:
        found = stage.arguments()
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (6, 5)


# ------------------------------------------------------------------------------------------------ adapters


def test_adapters_are_trained_and_the_weights_below_are_not(
    learned: Run, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed and gone on with, too; `final/` is merged, and the adapters lie beside."""

    settings = {**SHORT, "model": str(learned.model), "data": rows, "save_every": 2, "lora": {"rank": 4}}
    whole = sft(**settings, out=str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        at_update(5, killed, patch)
        with pytest.raises(Killed):
            sft(**settings, out=str(tmp_path / "killed"))
    again = sft(resume=tmp_path / "killed")
    assert same(weights(again), weights(whole))
    before, after = weights(learned), weights(whole)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith("_proj.weight") for name in changed)
    assert (whole.model / "adapter" / "adapter_model.safetensors").is_file()
