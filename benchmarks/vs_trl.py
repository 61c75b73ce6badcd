"""rlvr against TRL's GRPOTrainer on one task, one model and one machine: `make bench`.

Both sides start from the same model and learn the same prompts with the same group size, batch, learning rate,
optimiser settings, clip range, token-level loss, temperature and reward function; neither samples dynamically.
Runs alternate, each in a process of its own, one seed per round. What is timed is the training alone: imports,
loading and the evaluations are not. Held-out accuracy is measured by the same code on both sides, greedy, every
`--every` steps.

TRL is set as a fair user would set it on a CPU: float32, gradient checkpointing off, dropout off, no checkpoints and
no reports, and the largest micro-batch that helps it (`--trl-micro-batch`; 512, the whole step, was its fastest).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

TARGET = 0.85
GROUP, PROMPTS, TOKENS, LR, BETA2, CLIP_HIGH = 16, 32, 32, 3e-4, 0.99, 0.28


def settings(seed: int, steps: int, every: int, model: str, out: str) -> dict[str, Any]:
    """The run both sides make, in rlvr's words."""
    return {
        "task": "math",
        "model": model,
        "steps": steps,
        "seed": seed,
        "out": out,
        "device": "cpu",
        "save_every": 0,
        "sampler": {"group_size": GROUP, "prompts_per_step": PROMPTS, "max_tokens": TOKENS, "dynamic": False},
        "reward": {"overlong": "keep"},
        "learner": {
            "lr": LR,
            "beta2": BETA2,
            "warmup_steps": 0,
            "schedule": "constant",
            "updates_per_step": 1,
            "clip_high": CLIP_HIGH,
            "grad_clip": 1.0,
            "weight_decay": 0.0,
            "micro_batch_tokens": 2048,
        },
        "eval": {"every": every, "limit": 0},
    }


def run_rlvr(seed: int, steps: int, every: int, model: str) -> list[dict[str, float]]:
    """One row per step: seconds it took, and the accuracy where it was measured."""
    import rlvr

    with tempfile.TemporaryDirectory() as folder:
        run = rlvr.train(**settings(seed, steps, every, model, f"{folder}/run"))
        return [
            {"seconds": row["time/step"], **({"accuracy": row["accuracy"]} if "accuracy" in row else {})}
            for row in run.metrics()
        ]


def run_trl(seed: int, steps: int, every: int, model: str, micro_batch: int) -> list[dict[str, float]]:
    """The same with TRL."""
    from datasets import Dataset
    from rlvr_verifiers.math import math as verifier
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from rlvr.assembly import held_out, make_scorer
    from rlvr.config import flatten
    from rlvr.evaluation import measure
    from rlvr.learner.policy import choose_device, load_policy
    from rlvr.mixture import number
    from rlvr.registry import registry
    from rlvr.sampler.transformers import TransformersSampler
    from rlvr.settings import resolve_run
    from rlvr.types import Completion, Sample

    config = resolve_run(flatten(settings(seed, steps, every, model, ""))).config
    task = registry().task("math")
    policy, tokenizer = load_policy(model, choose_device("cpu"))
    test = number([task], [held_out(task, 0)])
    scorer = make_scorer(config.scorer, config.sandbox)
    train = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": s.prompt}], "answer": s.answer} for s in task.load("train")]
    )

    def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        pairs = zip(texts, answer, strict=True)
        return [float(verifier(Completion(text), Sample("", answer=gold)).passed) for text, gold in pairs]

    rows: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.monotonic()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            row = {"seconds": time.monotonic() - self.started}
            if (len(rows) + 1) % every == 0:
                sampler = TransformersSampler(trainer.model, tokenizer, config.sampler.batch_size)
                row["accuracy"] = measure(config, test, tokenizer, sampler, scorer).accuracy
                trainer.model.train()
            rows.append(row)

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=reward,
            train_dataset=train,
            processing_class=tokenizer,
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=folder,
                seed=seed,
                max_steps=steps,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=GROUP * PROMPTS // micro_batch,
                num_generations=GROUP,
                max_completion_length=TOKENS,
                temperature=1.0,
                learning_rate=LR,
                lr_scheduler_type="constant",
                warmup_steps=0,
                adam_beta2=BETA2,
                weight_decay=0.0,
                max_grad_norm=1.0,
                beta=0.0,
                epsilon=0.2,
                epsilon_high=CLIP_HIGH,
                loss_type="dapo",
                scale_rewards="group",
                disable_dropout=True,
                save_strategy="no",
                logging_steps=100,
                report_to="none",
                disable_tqdm=True,
            ),
        )
        trainer.train()
    scorer.close()
    return rows


def summarize(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """Rates over the whole run, and seconds of training until the held-out accuracy first was at the target."""
    total, reached, best = 0.0, None, 0.0
    for row in rows:
        total += row["seconds"]
        best = max(best, row.get("accuracy", 0.0))
        if reached is None and row.get("accuracy", 0.0) >= TARGET:
            reached = total
    return {
        "rollouts_per_s": GROUP * PROMPTS * len(rows) / total,
        "steps_per_s": len(rows) / total,
        "seconds_to_target": reached,
        "best_accuracy": best,
    }


def table(results: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The results as Markdown, medians and ratios."""
    lines = [
        f"rlvr against TRL {metadata.version('trl')} on {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, torch {metadata.version('torch')}, "
        f"transformers {metadata.version('transformers')}, {time.strftime('%Y-%m-%d')}.",
        f"{PROMPTS} prompts x {GROUP} completions a step, {arguments.steps} steps, {arguments.rounds} rounds, "
        f"alternating; held-out accuracy every {arguments.every} step(s).",
        "This policy is brief and sure of itself, so a group's completions share most of their tokens, and rlvr",
        "computes what they share once (docs/log.md). On long, varied completions that part of the gain is smaller.",
        "",
        "| round | side | rollouts/s | optimiser steps/s | s to 85% | best accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        reached = result["seconds_to_target"]
        lines.append(
            f"| {result['round']} | {result['side']} | {result['rollouts_per_s']:.0f} | {result['steps_per_s']:.3f} | "
            f"{'not reached' if reached is None else f'{reached:.1f}'} | {result['best_accuracy']:.1%} |"
        )
    by_side = {side: [r for r in results if r["side"] == side] for side in ("rlvr", "trl")}
    pairs = list(zip(by_side["rlvr"], by_side["trl"], strict=True))
    faster = statistics.median(ours["rollouts_per_s"] / theirs["rollouts_per_s"] for ours, theirs in pairs)
    lines += ["", f"Rollouts per second, rlvr / TRL, median of the rounds: **{faster:.1f}**"]
    if all(ours["seconds_to_target"] and theirs["seconds_to_target"] for ours, theirs in pairs):
        share = statistics.median(ours["seconds_to_target"] / theirs["seconds_to_target"] for ours, theirs in pairs)
        lines.append(f"\nSeconds to {TARGET:.0%}, rlvr / TRL, median of the rounds: **{share:.2f}**")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("rlvr", "trl"), help="one run of one side; prints JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--trl-micro-batch", type=int, default=GROUP * PROMPTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "vs_trl.md")
    arguments = parser.parse_args()
    common = (arguments.seed, arguments.steps, arguments.every, arguments.model)
    if arguments.side:
        rows = run_rlvr(*common) if arguments.side == "rlvr" else run_trl(*common, arguments.trl_micro_batch)
        print(json.dumps(summarize(rows)))
        return
    results = []
    for number in range(arguments.rounds):
        for side in ("rlvr", "trl") if number % 2 == 0 else ("trl", "rlvr"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--seed", str(number)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            results.append({"round": number + 1, "side": side} | json.loads(done.stdout.splitlines()[-1]))
            print(results[-1], file=sys.stderr)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(table(results, arguments), encoding="utf-8")
    print(table(results, arguments))


if __name__ == "__main__":
    main()
