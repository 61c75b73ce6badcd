"""What the stages share around TRL's trainers: the run's directory, validation of what is given, progress, guards, the
accuracy before and after, the hand-over of the model.

    with open_stage(resolved, resume) as stage:
        model, tokenizer = stage.load()             # with adapters where they are asked for
        stage.measure("before", model, tokenizer)   # on the task, where there is one
        trainer = SomeTrainer(model, args=stage.training(SFTConfig), callbacks=[stage.callback()], ...)
        stage.train(trainer)                        # goes on from the last checkpoint when resuming
        stage.measure("after", model, tokenizer)
        stage.report({"Heading": ["a line of Markdown"]})
        run = stage.finish(model, tokenizer, **facts)

TRL owns the training. A stage's directory has what every run's has (`rlvr.runlog`): `config.toml`, `environment.json`,
`metrics.jsonl`, `result.json`, `final/`; and `data.json`, what became of the rows; `checkpoints/`, as transformers'
trainer writes them; `report.md`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import datasets
import torch
import torch.distributed as dist
from accelerate.state import PartialState
from accelerate.utils import set_seed
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback, TrainerCallback
from transformers.trainer_callback import TrainerState
from transformers.utils import logging as transformers_logging

from rlvr.accuracy import Evaluation
from rlvr.assembly import precision
from rlvr.config import TrainConfig, flatten
from rlvr.errors import ConfigError, DataError, Diverged, RunStopped, UsageError
from rlvr.evaluation import evaluate_model
from rlvr.examples.rows import Demonstration, Label, Pair, Report
from rlvr.guards import BEFORE, Alarm, Watch
from rlvr.interrupt import Interrupt
from rlvr.learner.adapters import add_adapters, check_adapters, quantization, save_adapters
from rlvr.learner.policy import choose_device, load_policy, model_path, save_policy
from rlvr.runlog import Run, RunLog, finite, new_path, write_atomically
from rlvr.settings import resolve_run, title
from rlvr.stages.config import ResolvedStage, StageConfig

A = TypeVar("A")

CHECKPOINT = "checkpoint-"  # and how many updates it was written after
UNBEGUN = {"config.toml", "environment.json", "data.json", "metrics.jsonl", "rollouts.jsonl", "guards.jsonl"}
SHOWN = {  # metric of a trainer: heading
    "loss": "loss",
    "grad_norm": "gradient",
    "lr": "lr",
    "validation/loss": "held-out loss",
    "validation/accuracy": "held-out accuracy",
}


class Stage:
    """One stage under way; `open_stage` makes it.

    Attributes:
        resolved: Its settings.
        config: The same, without origins.
        path: The run's directory.
        resuming: Whether it goes on with what is there.
        log: The run's log.
        watch: The guards.
        rows: What became of the rows that are learned from.
        result: What goes to `result.json` in the end, by name.
        alarms: What the guards found.
        known: The rows of metrics that the run had when it was gone on with.
        stop: Why training is to end early; None where it is not.
        updates: Updates done when training ended; 0 before.
    """

    def __init__(self, resolved: ResolvedStage[StageConfig], path: Path, resuming: bool, log: RunLog) -> None:
        self.resolved = resolved
        self.config = resolved.config
        self.path, self.resuming, self.log = path, resuming, log
        self.first = PartialState().is_main_process
        self.console = Console(stderr=True, quiet=not self.first)
        self.watch = Watch(self.config.guards)
        self.rows = Report("nothing")
        self.result: dict[str, Any] = {}
        self.alarms: list[Alarm] = []
        self.known: list[dict[str, Any]] = []
        self.stop: RunStopped | None = None
        self.updates = 0
        self.interrupt = Interrupt()
        self.device = choose_device(self.config.device)

    @property
    def last_checkpoint(self) -> Path | None:
        """Where to go on from: the newest checkpoint that was written whole; None where there is none.

        A trainer writes `trainer_state.json` last, so that a checkpoint without it was cut off.
        """
        folders = (self.path / "checkpoints").glob(f"{CHECKPOINT}*")
        numbered = [folder for folder in folders if folder.name.removeprefix(CHECKPOINT).isdigit()]
        for folder in sorted(numbered, key=updates_of, reverse=True):
            with contextlib.suppress(OSError, ValueError, TypeError):
                TrainerState.load_from_json(str(folder / "trainer_state.json"))
                return folder
        return None

    # ---------------------------------------------------------------------------------------- model

    def load(self) -> tuple[Any, Any]:
        """The model to train and its tokenizer: random weights with `init` `random`, adapters with `lora.rank`.

        Raises:
            RlvrError: As `load_policy`, and `check_adapters`.
        """
        config = self.config
        if config.lora.rank:
            check_adapters(config.model, config.lora)
        options: dict[str, Any] = {}
        if (quantized := quantization(config.lora)) is not None:
            options = {"quantization_config": quantized, "device_map": {"": str(self.device)}}
        set_seed(config.seed)
        model, tokenizer = load_policy(config.model, self.device, **options)
        if config.init == "random":
            architecture = AutoConfig.from_pretrained(model_path(config.model))
            model = AutoModelForCausalLM.from_config(architecture, dtype=torch.float32).to(self.device).eval()
        if config.lora.rank:
            model = add_adapters(model, config.lora)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model, tokenizer

    def arguments(self) -> dict[str, Any]:
        """The settings as keywords of `transformers.TrainingArguments` and those of TRL that inherit from it.

        Raises:
            ConfigError: The rows of an update do not divide among the processes.
        """
        config = self.config
        processes = PartialState().num_processes
        own, left = divmod(config.batch_size, processes)
        if left:
            raise ConfigError(
                f"`batch_size` {config.batch_size} does not divide among {processes} processes",
                f"take a multiple of {processes}",
            )
        micro = max(size for size in range(1, min(config.micro_batch_size, own) + 1) if own % size == 0)
        bf16 = precision(config.dtype, self.device) == "bf16"
        return {
            "output_dir": str(self.path / "checkpoints"),
            "per_device_train_batch_size": micro,
            "per_device_eval_batch_size": config.micro_batch_size,
            "gradient_accumulation_steps": own // micro,
            "learning_rate": config.lr,
            "num_train_epochs": config.epochs,
            "max_steps": config.steps or -1,
            "lr_scheduler_type": config.schedule,
            "warmup_steps": min(config.warmup, math.nextafter(1, 0)),  # below 1 it is a share, from there on a number
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.grad_clip,
            "adam_beta2": 0.99,
            "activation_checkpointing": config.recompute,
            "bf16": bf16,
            "use_cpu": self.device.type == "cpu",
            "seed": config.seed,
            "logging_steps": 10,
            "logging_first_step": True,
            "logging_nan_inf_filter": False,
            "eval_strategy": "steps",
            "eval_steps": config.eval_every,
            "save_strategy": "steps" if config.save_every else "no",
            "save_steps": config.save_every or 1,
            "save_total_limit": 2,
            "report_to": [],
            "disable_tqdm": True,
            "ddp_find_unused_parameters": False,
            "dataloader_pin_memory": self.device.type == "cuda",
            "remove_unused_columns": False,
        }

    def training(self, cls: Callable[..., A], **more: Any) -> A:
        """The arguments of a trainer: an instance of `cls`, TrainingArguments or an heir of it, with `more` keywords.

        A single process trains on one GPU, however many there are: TRL refuses what transformers would do with others.

        Raises:
            ConfigError: As `arguments`.
        """
        made: Any = cls(**self.arguments() | more)
        made._n_gpu = min(made.n_gpu, 1)
        return made

    def callback(self) -> Callback:
        """What a trainer is to tell of its progress."""
        return Callback(self)

    def train(self, trainer: Any) -> None:
        """Trains from where the run stands to its end.

        Raises:
            RunStopped: A guard fired, and `guards.action` is `stop`; a checkpoint has been written. Or a loss or a
                weight is not finite; then none has.
            KeyboardInterrupt: Ctrl-C; a checkpoint has been written.
        """
        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        last = self.last_checkpoint
        with self.interrupt:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        self.updates = trainer.state.global_step
        if self.stop is None and not finite_weights(trainer.model):
            self.stop = diverged("a weight is not finite", self.updates)
        if self.stop is not None or self.interrupt.noted:
            if self.last_checkpoint:
                self.say(f"stopped; go on with: rlvr {self.resolved.stage} --resume {self.path}")
            raise self.stop or KeyboardInterrupt

    # ---------------------------------------------------------------------------------------- what is said

    def say(self, line: str) -> None:
        """A line for the reader, on stderr."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def data(self, report: Report, rows: Sequence[Demonstration | Pair | Label]) -> None:
        """Keeps what became of the rows, in `data.json`, and says it where some are left out.

        Args:
            report: What became of them.
            rows: Those that can be used.

        Raises:
            DataError: The run has learned from other rows, which are no longer there.
        """
        self.rows = report
        report.facts["used"] = len(rows)
        found = {**report.to_json(), "digest": digest_of(rows)}
        file = self.path / "data.json"
        if self.last_checkpoint and file.is_file():
            known = json.loads(file.read_text(encoding="utf-8")).get("digest")
            if known not in (None, found["digest"]):
                raise DataError(
                    f"the rows of {report.source} are not those that `{self.path}` has learned from",
                    "a resumed run keeps its data: bring it back as it was, or start a new run",
                )
        self.result["data"] = {name: value for name, value in found.items() if name != "bad_rows"}
        self.write("data.json", json.dumps(found, indent=2, ensure_ascii=False))
        if report.bad and self.config.bad_rows == "skip":
            self.say(f"warning: {report.summary()}")

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the run; what is not Unicode is escaped."""
        if self.first:
            write_atomically(self.path / name, text.encode(errors="backslashreplace").decode() + "\n")

    def metrics(self, step: int, row: Mapping[str, Any]) -> None:
        """Logs a row of metrics after `step` updates, shows it, and lets the guards look at it.

        Raises:
            RunStopped: A guard fired, and `guards.action` is `stop`; or a loss is not finite.
        """
        row = {"step": step, **row}
        if self.logged(row):
            return
        self.log.metrics(row)
        shown = [f"{heading} {row[name]:.4g}" for name, heading in SHOWN.items() if isinstance(row.get(name), float)]
        if shown:
            self.say(f"update {step}  " + "  ".join(shown))
        check_losses(row)
        self.fired(self.watch.look(row))

    def logged(self, row: Mapping[str, Any]) -> bool:
        """Whether the run had such a row of this step before it was gone on with."""
        return any(known["step"] == row["step"] and known.keys() >= row.keys() for known in self.known)

    def fired(self, alarms: list[Alarm], stop: bool = True) -> None:
        """Says what guards found.

        Raises:
            RunStopped: `guards.action` is `stop`, and so is `stop` here.
        """
        for alarm in alarms:
            self.alarms.append(alarm)
            self.log.fired(alarm.to_json())
            self.say(str(alarm))
            if stop and self.config.guards.action == "stop":
                raise RunStopped(f"the guard `{alarm.guard}` fired: {alarm.message}", alarm.hint)

    def report(self, sections: Mapping[str, Iterable[str]]) -> None:
        """Writes `report.md`: accuracy before and after, more sections by heading, what became of the rows, and what
        guards found."""
        config, run = self.config, Run(self.path)
        start = "Random weights, made as" if config.init == "random" else "From"
        lines = [f"# rlvr {self.resolved.stage}", "", f"{start} `{config.model}`, on rows of {self.rows.source}."]
        if run.before and run.after:
            measured = {named(self.tasks()[0]): (run.before, run.after)}
            measured |= {name: (run.before.also[name], after) for name, after in run.after.also.items()}
            lines += ["", "## Held-out accuracy", "", "| task | before | after |", "|---|---|---|"]
            lines += [f"| {name} | {before} | {after} |" for name, (before, after) in measured.items()]
        for heading, text in sections.items():
            lines += ["", f"## {heading}", "", *text]
        lines += ["", "## Rows", "", *self.rows.lines(), "", "## Guards", ""]
        lines += [f"* `{a.guard}` at update {a.step}: {a.message}" for a in self.alarms] or ["None fired."]
        self.write("report.md", "\n".join(lines))

    # ---------------------------------------------------------------------------------------- accuracy

    def tasks(self) -> list[str]:
        """What is measured: the stage's task where it has one, then `eval.also`."""
        return [*filter(None, [self.config.task]), *self.config.eval.also]

    def measure(self, when: str, model: Any, tokenizer: Any) -> Evaluation | None:
        """Held-out accuracy on the stage's task and on `eval.also`; None where there is neither.

        A resumed run keeps what was measured before. Afterwards the guards hold the one against the other; what they
        find then is said and stops nothing, as there is nothing left to stop. In a run of several processes each of
        them measures.

        Args:
            when: `before` or `after` training.
            model: What is measured.
            tokenizer: Its tokenizer.
        """
        tasks = self.tasks()
        if not tasks:
            return None
        if known := Run(self.path).before if when == "before" else None:
            found = known
        else:
            model.eval()
            found = evaluate_model(self.task_config(tasks[0], tasks[1:]), model, tokenizer)
            self.log.result(**{when: found})
        for name, own in {named(tasks[0]): found, **found.also}.items():
            self.say(f"held-out accuracy {when} {name}: {own}")
        row = self.measured(found, BEFORE if when == "before" else self.updates)
        if not known and not self.logged(row):  # else the guards have seen it
            if when == "after":
                self.log.metrics(row)
            self.fired(self.watch.look(row), stop=False)
        return found

    def measured(self, found: Evaluation, step: int) -> dict[str, Any]:
        """An evaluation as a row of metrics."""
        metrics = found.metrics()
        if not self.config.task:  # all of it is of other tasks than what is learned
            first = named(self.tasks()[0])
            metrics = {name if "/" in name else f"{first}/{name}": value for name, value in metrics.items()}
        return {"step": step, **metrics}

    def recall(self) -> None:
        """Takes up what the run has measured, and what guards found, where it is gone on with."""
        run = Run(self.path)
        self.known = run.metrics()
        self.alarms = [Alarm(**row) for row in run.alarms()]
        before = [self.measured(run.before, BEFORE)] if run.before and self.tasks() else []
        self.watch.recall([*before, *self.known])

    def task_config(self, task: str, also: Iterable[str] = ()) -> TrainConfig:
        """The settings under which `rlvr eval` would measure this stage's model on a task, and on others besides."""
        config = self.config
        evaluation = {"limit": config.eval.limit, "also": list(also)}
        settings = {"task": task, "model": config.model, "eval": evaluation, "seed": config.seed}
        return resolve_run(flatten({**settings, "device": config.device, "plugin": list(config.plugin)})).config

    # ---------------------------------------------------------------------------------------- the end

    def finish(self, model: Any, tokenizer: Any, beside: Callable[[Path], None] | None = None, **facts: Any) -> Run:
        """Writes `result.json` and `final/`, and deletes the checkpoints; `beside` adds files to `final/`.

        A run that has `final/` is finished.

        Raises:
            Diverged: The last validation found a loss that is not finite.
        """
        if isinstance(self.stop, Diverged):
            raise self.stop

        def save(folder: Path) -> None:
            save_policy(model, tokenizer, folder)
            if hasattr(model, "disable_adapter"):
                save_adapters(model, folder / "adapter")
            if beside and self.first:
                beside(folder)

        self.log.facts(**finite({**self.result, **facts}))
        self.log.folder("final", save)
        if self.first:
            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        self.say(f"run {self.path}  model {self.path / 'final'}")
        return Run(self.path)


class Callback(TrainerCallback):
    """Hands what a trainer logs to the stage, and ends training at the next update where the stage is to stop.

    Weights that have diverged are no checkpoint to go on from, so none is written of them. All processes have the same
    weights and the same losses.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        row = {renamed(name): value for name, value in logs.items() if name not in ("epoch", "total_flos")}
        try:
            if state.is_world_process_zero:
                self.stage.metrics(state.global_step, row)
            check_losses({"step": state.global_step, **row})
        except RunStopped as stop:
            self.note(stop)
        self.skip_save(control)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        try:
            check_losses({"step": state.global_step, "validation/loss": (metrics or {}).get("eval_loss", 0.0)})
        except Diverged as stop:
            self.note(stop)
        self.skip_save(control)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        stage = self.stage
        control.should_log |= state.global_step >= state.max_steps
        saving = control.should_save or stage.stop is not None or stage.interrupt.noted
        if saving and not isinstance(stage.stop, Diverged) and not finite_weights(model):
            stage.stop = diverged("a weight is not finite", state.global_step)
        wanted = 2 if isinstance(stage.stop, Diverged) else int(stage.stop is not None or stage.interrupt.noted)
        if agreed := highest(wanted, stage.device):
            control.should_training_stop = True
            control.should_save = agreed == 1
            if stage.stop is None:  # nor in another process, perhaps
                stage.interrupt.noted = True

    def note(self, stop: RunStopped) -> None:
        """Keeps why training is to stop; that it diverged counts for more than a guard."""
        if not isinstance(self.stage.stop, Diverged):
            self.stage.stop = stop

    def skip_save(self, control: Any) -> None:
        """Ends training at once, without a checkpoint, where it has diverged."""
        if isinstance(self.stage.stop, Diverged):
            control.should_training_stop, control.should_save = True, False


class Encoded:
    """Put in front of one of TRL's trainers: rows are token ids already, and nothing is sent or written besides."""

    state: Any
    control: Any

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """transformers would do one more update where it goes on from the checkpoint of the last."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]
        else:
            self.control.should_training_stop = True

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        """TRL would tell its authors which trainer is used."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL would write one beside every checkpoint."""


@contextlib.contextmanager
def open_stage(resolved: ResolvedStage[StageConfig], resume: str | Path | None = None) -> Iterator[Stage]:
    """A stage's run, opened: its directory is there, config and environment are written.

    Args:
        resolved: The settings.
        resume: The directory to go on with.

    Raises:
        ConfigError: The directory is there already and has more in it than a run that failed on its rows leaves, or the
            device cannot be trained on.
        UsageError: What is to be gone on with is finished.
    """
    config = resolved.config
    quiet()
    device = choose_device(config.device)
    if device.index:
        raise ConfigError(
            f"`device` is `{device}`, but a stage trains on the first GPU that it sees",
            f"`CUDA_VISIBLE_DEVICES={device.index}` shows it that one only",
        )
    if resume and (Path(resume) / "final").is_dir():
        flag = "--reward.model` of `rlvr train" if resolved.stage == "reward" else "--model"
        raise UsageError(f"the run `{resume}` is finished", f"start a new one; its `final/` can be the `{flag}`")
    name = named(config.task) if config.task else Path(config.data.removeprefix("hub:")).stem
    state = PartialState(cpu=device.type == "cpu")
    path = Path(shared(str(resume or config.out or new_path(f"{resolved.stage}-{name}"))))
    known = resume is not None or never_began(path)
    with RunLog(path, resuming=known, writes=state.is_main_process) as log:
        stage = Stage(resolved, path, resume is not None, log)
        last = stage.last_checkpoint
        facts = {"stage": resolved.stage, "device": str(stage.device), "processes": state.num_processes}
        log.begin(resolved.toml(), updates_of(last) + 1 if last else 0, **facts)
        state.wait_for_everyone()  # the others read what the first has written
        stage.recall()
        yield stage


def never_began(path: Path) -> bool:
    """Whether a directory is that of a stage that ended at its rows or its model: it has measured, sampled and learned
    nothing."""
    found = [*path.iterdir()] if (path / "environment.json").is_file() else []
    logs = [file for file in found if file.suffix == ".jsonl"]
    return bool(found) and {file.name for file in found} <= UNBEGUN and not any(file.stat().st_size for file in logs)


def digest_of(rows: Sequence[Demonstration | Pair | Label]) -> str:
    """What rows are known by, whatever place or column beside they have: a SHA-256, in hexadecimal."""
    found = hashlib.sha256()
    for row in rows:
        values = [getattr(row, own.name) for own in fields(row) if own.name not in ("where", "extra")]
        found.update(json.dumps(values, sort_keys=True, default=dict).encode() + b"\n")
    return found.hexdigest()


def check_losses(row: Mapping[str, Any]) -> None:
    """Looks at the losses in a row of metrics.

    Raises:
        Diverged: One of them is not finite.
    """
    for name, said in (("loss", "the loss"), ("validation/loss", "the held-out loss")):
        if not math.isfinite(loss := row.get(name, 0.0)):
            raise diverged(f"{said} is {loss}", row["step"])


def diverged(what: str, step: int) -> Diverged:
    """The error of a run that diverged."""
    return Diverged(f"{what} at update {step}", "lower `lr`, or look for odd rows in the data")


def finite_weights(model: Any) -> bool:
    """Whether all weights that are trained are finite."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad)


def quiet() -> None:
    """Keeps libraries from printing what the stage says better."""
    for name in ("transformers", "trl", "datasets", "accelerate", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()


def named(task: str) -> str:
    """A task, or several, in a word."""
    return Path(title(task)).stem


def renamed(name: str) -> str:
    """A trainer's metric under the name that it has in `metrics.jsonl`."""
    name = {"learning_rate": "lr"}.get(name, name)
    return f"validation/{name.removeprefix('eval_')}" if name.startswith("eval_") else name


def updates_of(checkpoint: Path) -> int:
    """The updates that a trainer's checkpoint was written after."""
    return int(checkpoint.name.removeprefix(CHECKPOINT))


def highest(value: int, device: torch.device) -> int:
    """The highest of the values that the processes of the run have."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    found = torch.tensor([value], device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found.item())


def shared(text: str) -> str:
    """The first process's text, in all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return text
    found = [text]
    dist.broadcast_object_list(found, src=0)
    return found[0]
