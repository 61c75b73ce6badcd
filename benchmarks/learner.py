"""The learner against TRL's `GRPOTrainer` on the same rows: tokens a second, and memory. `make bench-learner`.

Both sides start from the same random weights and learn the same rows: groups whose completions share a prompt, lengths
of both ragged (log-normal, seeded), every group with rewards that vary, so that no row is without a gradient and none
is there twice. One optimiser update is made of all rows, with the same token-level loss, clipping, AdamW and gradient
clipping. Nothing is generated: ours is `Learner.update`, theirs is `GRPOTrainer.train`, whose generation batch is given
to it ready-made. That batch is then shuffled, split into micro-batches and learned from by TRL's own code.

What counts are the tokens of prompts and completions, the same number on both sides, never padding. Each contestant
runs in a process of its own, they take turns, and the order turns from round to round. The first update is a warm-up.
Time is that of the clock, and that of the processors, which other programs on the machine change less.
Memory is the peak of the process above what it was before the first update (gradients, moments, activations), and the
peak as such; on a GPU what torch allocated. The gradients of the first update are compared: they have to be the same.

On a GPU that is bfloat16, and a larger model is the thing to measure:

    python benchmarks/learner.py --hidden 1024 --layers 16 --vocabularies 32768 151936 --groups 32 --trl-micro-batch 16
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

GROUP, PROMPT, COMPLETION = 8, (24, 64, 192), (8, 128, 512)  # least, median, most tokens
SPREAD_PROMPT, SPREAD_COMPLETION = 0.6, 0.8  # of the logarithm of a length
CLIP_LOW, CLIP_HIGH, LR, BETA2 = 0.2, 0.28, 1e-6, 0.99
SIDES = {
    "rlvr": "rlvr",
    "rlvr-recompute": "rlvr, with gradient checkpointing",
    "trl": "TRL, without gradient checkpointing",
    "trl-default": "TRL, with gradient checkpointing, its default",
}
AGAINST = {"trl": "rlvr", "trl-default": "rlvr-recompute"}
HEAD = "Without a GPU, TRL's head computes the columns of prompts and padding too; with one it leaves them out."
TARGETS = "The target, with a vocabulary of 8192: at least 2 times TRL's tokens a second, at most 0.6 of its memory."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[8192, 32768])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--groups", type=int, default=4, help=f"prompts of an update, with {GROUP} completions each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2, help="timed updates of a contestant in a round")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--micro-batch-tokens", type=int, default=4096, help="rlvr's setting")
    parser.add_argument("--trl-micro-batch", type=int, default=8, help="TRL's `per_device_train_batch_size`")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--note", default="", help="a line for the table, on the state of the machine")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "learner.md")
    parser.add_argument("--side", choices=SIDES, help="one contestant, with the first vocabulary; prints JSON")
    parser.add_argument("--gradient", type=Path, help="with --side: a file for the gradient of the first update")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(contest(arguments)))
        return
    loads = [os.getloadavg()[0]]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for vocabulary in arguments.vocabularies:
            for number in range(arguments.rounds):
                turn = number % len(arguments.sides)
                for side in (*arguments.sides[turn:], *arguments.sides[:turn]):
                    file = Path(folder) / f"{side}.safetensors"
                    results.append({"round": number} | run(side, vocabulary, file, arguments.threads))
                    print(results[-1], file=sys.stderr, flush=True)
            for side in arguments.sides[1:]:
                ours, theirs = (Path(folder) / f"{name}.safetensors" for name in (arguments.sides[0], side))
                check_gradients(ours, theirs, 1e-4 if results[-1]["device"] == "cpu" else 0.05)
    text = table(results, arguments, [*loads, os.getloadavg()[0]])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


def run(side: str, vocabulary: int, gradient: Path, threads: int) -> dict[str, Any]:
    """One contestant in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    command += ["--vocabularies", str(vocabulary), "--gradient", str(gradient)]
    variables = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, text=True)
    return {"vocabulary": vocabulary, "side": side} | json.loads(done.stdout.splitlines()[-1])


def check_gradients(ours: Path, theirs: Path, tolerance: float) -> None:
    """That both did the same work: the distance of the gradients is small beside their length."""
    from safetensors.torch import load_file

    a, b = load_file(ours), load_file(theirs)
    distance = sum((a[name] - gradient).square().sum().item() for name, gradient in b.items()) ** 0.5
    length = sum(gradient.square().sum().item() for gradient in b.values()) ** 0.5
    print(f"{ours.stem} and {theirs.stem}: gradients differ by {distance / length:.1e}", file=sys.stderr)
    if a.keys() != b.keys() or distance > tolerance * length:
        raise SystemExit(f"`{ours.stem}` and `{theirs.stem}` do not have the same gradient: {distance} of {length}")


# ------------------------------------------------------------------------------------------- what is learned from


def lengths(count: int, bounds: tuple[int, int, int], spread: float, draw: random.Random) -> list[int]:
    least, median, most = bounds
    return [min(most, max(least, round(median * draw.lognormvariate(0, spread)))) for _ in range(count)]


def make_groups(model: Any, vocabulary: int, groups: int) -> list[list[Any]]:
    """Rows as a sampler with these very weights would have written them."""
    import torch

    from rlvr.advantage import group_advantages
    from rlvr.learner.learner import logprobs_of
    from rlvr.rollout import Row

    draw = random.Random(0)
    found = []
    for size in lengths(groups, PROMPT, SPREAD_PROMPT, draw):
        prompt = tuple(draw.choices(range(2, vocabulary), k=size))
        passed = draw.randint(1, GROUP - 1)
        advantages = group_advantages([float(i < passed) for i in range(GROUP)])
        group = []
        for advantage, tokens in zip(advantages, lengths(GROUP, COMPLETION, SPREAD_COMPLETION, draw), strict=True):
            completion = tuple(draw.choices(range(2, vocabulary), k=tokens))
            with torch.no_grad():
                old = tuple(logprobs_of(model, (*prompt, *completion))[len(prompt) - 1 :])
            group.append(
                Row(prompt_ids=prompt, completion_ids=completion, old_logprobs=old, advantage=advantage or 0.0)
            )
        found.append(group)
    return found


def make_model(arguments: argparse.Namespace) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads = max(1, arguments.hidden // 64)
    config = Qwen2Config(
        vocab_size=arguments.vocabularies[0],
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 11 // 4,
        num_hidden_layers=arguments.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).float().to("cuda" if torch.cuda.is_available() else "cpu")


# -------------------------------------------------------------------------------------------------- the contestants


def contest(arguments: argparse.Namespace) -> dict[str, Any]:
    """One contestant: seconds of an update, the first left out, and memory in bytes."""
    import torch

    torch.set_num_threads(arguments.threads)
    model = make_model(arguments)
    groups = make_groups(model, arguments.vocabularies[0], arguments.groups)
    learn = partial(
        rlvr_learns if arguments.side.startswith("rlvr") else trl_learns,
        recompute=arguments.side in ("rlvr-recompute", "trl-default"),
    )
    memory, watch = Memory(), Stopwatch()
    learn(model, groups, arguments, memory.begin, watch)
    rows = [row for group in groups for row in group]
    tokens = sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
    widest = max(len(row.prompt_ids) for row in rows) + max(len(row.completion_ids) for row in rows)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows": len(rows),
        "tokens": tokens,
        "padded": widest * len(rows),
        "prompts": [len(group[0].prompt_ids) for group in groups],
        "completions": [len(row.completion_ids) for row in rows],
        "seconds": statistics.median(wall for wall, _ in watch.rows[1:]),
        "busy": statistics.median(busy for _, busy in watch.rows[1:]),
        **memory.end(),
    }


class Stopwatch:
    """Seconds of each update, by the clock and of the processors."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []

    def start(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, busy = self.began
        self.rows.append((time.perf_counter() - wall, time.process_time() - busy))


class Memory:
    """The peak of this process from `begin` to `end`."""

    def begin(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
            self.before = self.peak()

    @staticmethod
    def peak() -> int:
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
        status = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    def end(self) -> dict[str, int]:
        return {"peak": self.peak(), "above": self.peak() - self.before}


def keep_gradient(optimizer: Any, model: Any, file: Path | None) -> None:
    """Writes the gradient of the first update to a file."""
    from safetensors.torch import save_file

    def keep(*_: Any) -> None:
        hook.remove()
        if file:
            named = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
            save_file({name: gradient.float().cpu().contiguous() for name, gradient in named}, file)

    hook = getattr(optimizer, "optimizer", optimizer).register_step_pre_hook(keep)


def rlvr_learns(
    model: Any,
    groups: Sequence[Sequence[Any]],
    arguments: argparse.Namespace,
    begin: Callable[[], None],
    watch: Stopwatch,
    recompute: bool,
) -> None:
    """Updates of our learner."""
    import torch
    from accelerate import Accelerator

    from rlvr.config import LearnerConfig
    from rlvr.learner.learner import Learner

    cuda = torch.cuda.is_available()
    config = LearnerConfig(
        lr=LR,
        beta2=BETA2,
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
        aggregate="token",
        grad_clip=1.0,
        micro_batch_tokens=arguments.micro_batch_tokens,
        recompute=recompute,
    )
    learner = Learner(model, config, 100, Accelerator(cpu=not cuda, mixed_precision="bf16" if cuda else "no"))
    keep_gradient(learner.optimizer, model, arguments.gradient)
    begin()
    for _ in range(1 + arguments.updates):
        watch.start()
        learner.update(groups, 1.0)
        watch.stop()


def trl_learns(
    model: Any,
    groups: Sequence[Sequence[Any]],
    arguments: argparse.Namespace,
    begin: Callable[[], None],
    watch: Stopwatch,
    recompute: bool,
) -> None:
    """Optimiser updates of TRL's trainer."""
    import torch
    from datasets import Dataset
    from parity import make_tokenizer, trl_inputs  # type: ignore[import-not-found]
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    cuda = torch.cuda.is_available()
    rows = [row for group in groups for row in group]
    batch = trl_inputs(rows)
    del batch["tool_mask"], batch["old_per_token_logps"]  # as it has them: no tools, and one update per generation

    class Prepared(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            keep_gradient(trainer.optimizer, model, arguments.gradient)
            begin()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.stop()

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs to mend
        trainer = Prepared(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_list([{"prompt": "2"}] * len(groups)),
            processing_class=make_tokenizer(),
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=folder,
                max_steps=1 + arguments.updates,
                use_cpu=not cuda,
                bf16=cuda,
                gradient_checkpointing=recompute,
                per_device_train_batch_size=arguments.trl_micro_batch,
                gradient_accumulation_steps=len(rows) // arguments.trl_micro_batch,
                num_generations=GROUP,
                max_completion_length=COMPLETION[-1],
                learning_rate=LR,
                lr_scheduler_type="constant",
                adam_beta2=BETA2,
                max_grad_norm=1.0,
                epsilon=CLIP_LOW,
                epsilon_high=CLIP_HIGH,
                loss_type="dapo",
                save_strategy="no",
                logging_steps=10**6,
                report_to="none",
                disable_tqdm=True,
            ),
        )
        trainer.train()


# -------------------------------------------------------------------------------------------------------- the table


def table(results: Sequence[dict[str, Any]], arguments: argparse.Namespace, loads: Sequence[float]) -> str:
    """What was measured, as Markdown: medians, and medians of the rounds' ratios."""
    first = results[0]
    names = ("rlvr", "trl", "torch", "transformers", "accelerate")
    cpu = first["device"] == "cpu"
    hardware = f"{arguments.threads} of {os.cpu_count()} cores of {processor()}, float32" if cpu else first["device"]
    lines = [
        "# The learner beside TRL's",
        "",
        "Made by `make bench-learner`; `benchmarks/learner.py` says what is measured. Tokens are those of prompts and",
        "completions, without padding, the same on both sides; so are the gradients. Memory is the peak of the process",
        "above what it was before the first update, and as such. Medians; ratios are medians of the rounds' ratios,",
        "each to rlvr with gradient checkpointing where TRL has it, and without where not.",
        "",
        f"{date.today()}, {hardware}, Python {platform.python_version()}; load average "
        + " and ".join(f"{load:.1f}" for load in loads)
        + " before and after",
        "",
        *([arguments.note, ""] if arguments.note else []),
        ", ".join(f"{name} {metadata.version(name)}" for name in names),
        "",
        f"{arguments.groups} prompts x {GROUP} completions an update, {first['tokens']} tokens; padded to the "
        f"longest prompt and completion they are {first['padded']}.",
        f"Prompts {spread(first['prompts'])}, completions {spread(first['completions'])}.",
        f"Qwen2, {arguments.layers} layers of {arguments.hidden}, one embedding matrix. {arguments.rounds} rounds of "
        f"{arguments.updates} updates after one of warm-up.",
        f"rlvr: `micro_batch_tokens` {arguments.micro_batch_tokens}. TRL: `per_device_train_batch_size` "
        f"{arguments.trl_micro_batch}, `gradient_accumulation_steps` "
        f"{first['rows'] // arguments.trl_micro_batch}; the rest as it comes.",
        *([HEAD] if cpu else []),
        "",
        "| vocabulary | side | tokens/s | s an update | CPU s | MiB above | MiB peak | **rlvr is faster by** | "
        "in CPU s | **rlvr's memory / its** | peak / peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for vocabulary in dict.fromkeys(result["vocabulary"] for result in results):
        for side in arguments.sides:
            own = [r for r in results if (r["vocabulary"], r["side"]) == (vocabulary, side)]
            other = [r for r in results if (r["vocabulary"], r["side"]) == (vocabulary, AGAINST.get(side))]
            seconds, busy, above, peak = (median_of(own, name) for name in ("seconds", "busy", "above", "peak"))
            cells = [
                str(vocabulary),
                SIDES[side],
                f"{first['tokens'] / seconds:.0f}",
                f"{seconds:.2f}",
                f"{busy:.2f}",
                f"{above / 2**20:.0f}",
                f"{peak / 2**20:.0f}",
            ]
            for name, upside_down in (("seconds", True), ("busy", True), ("above", False), ("peak", False)):
                ratios = [a[name] / b[name] for a, b in zip(other, own, strict=False)]
                ratio = statistics.median(1 / r if upside_down else r for r in ratios) if ratios else None
                cells.append(
                    "" if ratio is None else f"**{ratio:.2f}**" if name in ("seconds", "above") else f"{ratio:.2f}"
                )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", TARGETS]) + "\n"


def median_of(results: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(result[name] for result in results)


def spread(counts: Sequence[int]) -> str:
    return f"of {min(counts)} to {max(counts)} tokens, median {statistics.median(counts):.0f}"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return named[0] if named else platform.machine()


if __name__ == "__main__":
    main()
