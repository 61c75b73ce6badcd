"""Which stage to run next: from what data, checker and hardware there are to a stage, its memory and its command.

Everything here is a function of a `Situation`: nothing is loaded, and torch is not needed. Bytes are those that our
code takes: weights, gradients and AdamW's two moments are float32, so a parameter that is trained takes 16 of them.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rlvr.errors import ConfigError, UsageError

Data = Literal["none", "prompts", "gold", "labels", "pairs", "judge"]
Checker = Literal["none", "partial", "exact", "learned"]
Solves = Literal["none", "some", "most"]

GIB = 2**30
TRAINED = 16  # bytes of a parameter that is trained: weight 4, gradient 4, AdamW's moments 8
KEPT = 4  # of one that is only read, in float32
HALF = 2  # in bfloat16: below adapters, in vLLM, in a reward model that is served on a GPU
QUANTIZED = {"none": 0.0, "8bit": 1.0, "4bit": 0.55}
SHARE = 0.92  # of a device's memory that can be used: the rest is for its context and what allocation wastes
CHUNK = 3 * 2**22 * 4  # bytes for logits that are held at once (TRL tiles them too): values, probabilities, gradients
MICRO_ROWS = 8  # rows, or pairs, in one forward pass of a stage (`micro_batch_size`)
BATCH_ROWS = 32  # of one update (`batch_size`)
SLOW = 1e8  # parameters from which on sampling on a processor takes very long
MOST_ROWS = 512  # completions that are sampled at once at most (`sampler.batch_size`)


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of Qwen2's or Llama's kind.

    Attributes:
        hidden: Width of the residual stream.
        inner: Width within an MLP.
        layers: Number of layers.
        heads: Attention heads.
        key_heads: Heads of keys and values.
        vocabulary: Rows of the embedding.
        tied: Whether the output layer is the embedding.
        bias: Whether queries, keys and values have a bias.
        head_width: Width of a head; 0 is `hidden / heads`.
        head_norms: Whether queries and keys are normed.
        given: Parameters where they are known otherwise; 0 counts them.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool = True
    bias: bool = True
    head_width: int = 0
    head_norms: bool = False
    given: float = 0.0

    @property
    def width(self) -> int:
        """Of a head."""
        return self.head_width or self.hidden // self.heads

    @property
    def keys(self) -> int:
        """Width of all keys of a token, and of all its values."""
        return self.key_heads * self.width

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        """In and out of each linear layer of a decoder layer."""
        queries = self.heads * self.width
        attention = ((self.hidden, queries), (self.hidden, self.keys), (self.hidden, self.keys), (queries, self.hidden))
        return (*attention, (self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden))

    @property
    def head(self) -> int:
        """Parameters of the output layer that it shares with nothing."""
        return 0 if self.tied else self.vocabulary * self.hidden

    @property
    def params(self) -> float:
        """All parameters."""
        if self.given:
            return self.given
        layer = sum(a * b for a, b in self.linear) + 2 * self.hidden
        layer += (self.heads * self.width + 2 * self.keys) * self.bias + 2 * self.width * self.head_norms
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden + self.head

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters on every linear layer but the head."""
        return rank * self.layers * sum(a + b for a, b in self.linear)


KNOWN = {  # Qwen2.5's own sizes, whose shapes are taken for any other model of about that size
    0.494e9: Shape(896, 4864, 24, 14, 2, 151936),
    1.54e9: Shape(1536, 8960, 28, 12, 2, 151936),
    3.09e9: Shape(2048, 11008, 36, 16, 2, 151936),
    7.62e9: Shape(3584, 18944, 28, 28, 4, 152064, tied=False),
    14.8e9: Shape(5120, 13824, 48, 40, 8, 152064, tied=False),
    32.8e9: Shape(5120, 27648, 64, 40, 8, 152064, tied=False),
    72.7e9: Shape(8192, 29568, 80, 64, 8, 152064, tied=False),
}
NAMES = ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")


@dataclass(frozen=True)
class Hardware:
    """What there is to train on.

    Attributes:
        gpus: How many, of one machine.
        gpu_memory: Of each, in GiB.
        cores: Of the processor.
        memory: Of the machine, in GiB.
    """

    gpus: int
    gpu_memory: float
    cores: int
    memory: float

    @property
    def room(self) -> float:
        """Bytes that one process may take."""
        return (self.gpu_memory if self.gpus else self.memory) * GIB * SHARE


@dataclass(frozen=True)
class Situation:
    """What there is.

    Attributes:
        data: Kinds of data; `none` alone for none.
        checker: What can tell right from wrong: nothing, something that sees a part of it, something exact, or a
            reward model.
        model: Name of the model, as `--model` takes it.
        shape: Its sizes.
        hardware: What to train on.
        solves: How many of the prompts the model solves at least now and then, where there is a checker.
        task: The task, as `--task` takes it.
        lora: Rank of adapters that are wanted; 0 for none.
        context: Tokens of prompt and completion.
        prompts: Prompts in a step.
        group: Completions of each.
        micro_tokens: Tokens in one forward pass at most (`learner.micro_batch_tokens`).
    """

    data: tuple[Data, ...]
    checker: Checker
    model: str
    shape: Shape
    hardware: Hardware
    solves: Solves = "some"
    task: str = "gsm8k"
    lora: int = 0
    context: int = 1024
    prompts: int = 32
    group: int = 8
    micro_tokens: int = 4096


@dataclass(frozen=True)
class Case:
    """A row of the decision table.

    Attributes:
        have: What there is.
        chain: The stages to run, the first one next.
        needs: What data that takes.
        models: Which models are in memory.
        cost: Of what kind the work is.
        reason: Why this one.
        risk: What goes wrong with it, and what it gives up.
        change: What would change the advice.
        guards: What watches for that.
    """

    have: str
    chain: tuple[str, ...]
    needs: str
    models: str
    cost: str
    reason: str
    risk: str
    change: str
    guards: tuple[str, ...]


CASES: dict[str, Case] = {
    "verify": Case(
        "an exact checker, and a model that solves some of the prompts",
        ("train",),
        "prompts with what the checker needs; hundreds will do, thousands are better",
        "policy, vLLM's copy of it on a GPU",
        "sampling: every step writes a group of completions for each prompt",
        "what can be checked is worth more than what can be imitated: the reward is right, has no ceiling in anyone's "
        "examples, and every prompt can be tried again and again",
        "entropy falls and the policy stops exploring; groups that all pass or all fail teach nothing; a hole in the "
        "checker is found",
        "no prompt is ever solved: SFT first. The checker sees only a part: anchor it with KL",
        ("entropy-collapse", "small-group", "reward-hacking", "length-drift"),
    ),
    "form-then-verify": Case(
        "an exact checker and gold answers, and a model that solves next to nothing",
        ("sft", "train"),
        "some thousand gold answers in the form that the checker reads",
        "policy; later vLLM's copy of it",
        "one pass of imitation, then sampling",
        "RL only makes likelier what the policy already does now and then; SFT gives it the form and a first success",
        "long SFT narrows the policy, and less is left to explore: stop when some prompts are solved",
        "the model solves some prompts with a few examples in the prompt: skip SFT",
        ("alignment-tax", "entropy-collapse", "small-group"),
    ),
    "no-signal": Case(
        "an exact or partial checker, no gold answers, and a model that solves nothing",
        ("sft",),
        "answers of a stronger model that pass the checker, as demonstrations",
        "policy",
        "one pass of imitation",
        "when every completion of every group fails there is no gradient, whatever the algorithm",
        "demonstrations of another model carry its style and mistakes; keep only those that pass",
        "a stronger start, easier prompts, or a checker that gives partial credit: then RL at once",
        ("alignment-tax",),
    ),
    "sharpen": Case(
        "an exact checker, and a model that solves most of the prompts",
        ("train",),
        "harder prompts of the same kind",
        "policy, vLLM's copy of it on a GPU",
        "sampling, much of it for prompts that teach nothing",
        "groups that always pass have no advantage; the curriculum passes over them and the rest is learned from",
        "what is left may be wrong references: look at what never passes",
        "harder prompts: then plain DAPO",
        ("small-group", "entropy-collapse", "length-drift"),
    ),
    "partial": Case(
        "a checker that sees only a part, such as the format or a few tests",
        ("train",),
        "prompts, and whatever the checker needs",
        "policy, frozen reference, vLLM's copy of the policy on a GPU",
        "sampling, and one more forward pass for the KL",
        "a partial check says more than none, if the policy is kept near to what it was in all that is not checked",
        "the part that is not checked pays for the part that is: reward hacking",
        "a checker that sees the rest; or pairs for what it does not see: preference tuning first",
        ("reward-hacking", "kl-spike", "mode-collapse", "length-drift"),
    ),
    "pairs": Case(
        "chosen and rejected completions",
        ("prefer",),
        "from a thousand pairs on, best of completions of the policy itself",
        "policy, frozen reference (none with adapters)",
        "four forward passes a pair, and no sampling",
        "pairs say what is better without anything that could be run; DPO learns from them without a reward model",
        "learns from completions of others, so it drifts; longer is taken for better; both likelihoods may fall",
        "a checker: then verifier RL. More prompts than pairs: a reward model and PPO",
        ("reference-not-frozen", "length-drift", "alignment-tax"),
    ),
    "pairs-small": Case(
        "chosen and rejected completions, and no memory for a reference",
        ("prefer",),
        "from a thousand pairs on, best of completions of the policy itself",
        "policy",
        "two forward passes a pair, and no sampling",
        "SimPO and ORPO need no reference: SimPO for a model that has had its SFT, ORPO for one that has not",
        "nothing holds the policy to where it was: a small learning rate, and an eye on other tasks",
        "memory for a reference, or adapters, below which the reference is free: then DPO",
        ("length-drift", "alignment-tax"),
    ),
    "labels": Case(
        "completions that are marked good or bad, without pairs",
        ("prefer",),
        "from a thousand labels on, some of both kinds",
        "policy, frozen reference (none with adapters)",
        "a little more than DPO for each completion, and no sampling",
        "KTO needs no two completions of a prompt, which is what users' thumbs up and down are",
        "needs more labels than DPO pairs; one kind far commoner than the other tilts it",
        "two or more completions of each prompt: make pairs of them, and take DPO",
        ("reference-not-frozen", "length-drift", "alignment-tax"),
    ),
    "gold": Case(
        "gold answers, and nothing that checks",
        ("sft",),
        "some hundred to ten thousand good answers",
        "policy",
        "one forward and backward pass a row",
        "imitation needs nothing but examples, and is the cheapest and steadiest stage there is",
        "never better than the examples; learns their mistakes; many epochs make it repeat them word for word",
        "a checker: then verifier RL after it. Pairs: then a preference stage after it",
        ("alignment-tax",),
    ),
    "judge": Case(
        "prompts and a judge to ask, such as a stronger model",
        ("pairs", "prefer"),
        "some thousand prompts, and principles that say what is good",
        "the judge elsewhere; then policy and frozen reference",
        "two questions to the judge for each pair, one in each order",
        "a judge compares what nobody wrote down; asked in both orders, its preferences are data like any other",
        "the judge's taste is learned, and its liking for length; audit the pairs before training on them",
        "a checker for what matters: it is cheaper than a judge and cannot be flattered",
        ("reference-not-frozen", "length-drift", "alignment-tax"),
    ),
    "reward-model": Case(
        "pairs, and many more prompts than pairs",
        ("reward", "train"),
        "from some thousand pairs on, and prompts",
        "reward model; then policy, critic, frozen reference, reward model, vLLM's copy of the policy",
        "a small training, then the dearest stage there is",
        "a reward model speaks of completions that nobody has judged, so that PPO can go on with new ones",
        "the policy finds what the reward model likes for no reason; KL and an early stop are what holds it",
        "no need for new prompts: DPO on the pairs does with a third of the memory",
        ("reward-model-overfitting", "reward-hacking", "kl-spike", "length-drift"),
    ),
    "learned": Case(
        "a reward model",
        ("train",),
        "prompts",
        "policy, critic, frozen reference, reward model, vLLM's copy of the policy on a GPU",
        "the dearest stage there is: sampling, scoring, two models that are trained",
        "PPO against the reward model, with a KL that adapts to keep the policy where the reward model was trained",
        "the policy finds what the reward model likes for no reason; KL and an early stop are what holds it",
        "an exact checker for a part of it: make the learned score one part of a shaped reward",
        ("reward-hacking", "kl-spike", "length-drift"),
    ),
    "nothing": Case(
        "prompts at most: no answers, no pairs, no checker, no judge",
        (),
        "-",
        "-",
        "-",
        "nothing here says what is better, so there is nothing to learn from",
        "-",
        "any of: a checker (`rlvr new verifier`), a judge to ask, a few hundred good answers",
        (),
    ),
}
"""The decision table, which `docs/guide/choose-a-stage.md` shows as well."""


@dataclass(frozen=True)
class Part:
    """Something in the memory of one process.

    Attributes:
        name: What it is.
        params: Its parameters.
        each: Bytes of each, in words.
        bytes: All of it.
        estimate: Whether it is only estimated.
        when: It is there `always`, or only while `sampling` or `learning`, which take turns.
    """

    name: str
    params: float
    each: str
    bytes: float
    estimate: bool = False
    when: Literal["always", "sampling", "learning"] = "always"


@dataclass(frozen=True)
class Setup:
    """How a stage is run so that it fits.

    Attributes:
        lora: Rank of adapters, 0 for none.
        quantize: Bits below the adapters.
        sharded: Whether weights are spread over the GPUs (FSDP2).
        recompute: Whether activations are computed again.
        small: Whether a forward pass takes as few rows as it can.
    """

    lora: int = 0
    quantize: Literal["none", "8bit", "4bit"] = "none"
    sharded: bool = False
    recompute: bool = False
    small: bool = False


@dataclass(frozen=True)
class Step:
    """A stage of the advice: its command, and what it takes of the memory of each process."""

    stage: str
    method: str
    command: tuple[str, ...]
    setup: Setup
    memory: tuple[Part, ...]
    room: float
    note: str = ""

    @property
    def bytes(self) -> float:
        """At the peak."""
        return peak(self.memory)

    @property
    def fits(self) -> bool:
        return self.bytes <= self.room


@dataclass(frozen=True)
class Advice:
    """What to do: the row of the table that holds, and the stages of its chain, the next one first."""

    key: str
    case: Case
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        steps = [
            {
                "stage": step.stage,
                "method": step.method,
                "command": list(step.command),
                "fits": step.fits,
                "bytes": step.bytes,
                "room": step.room,
                "memory": [vars(part) for part in step.memory],
                "note": step.note,
            }
            for step in self.steps
        ]
        return {"case": self.key, **vars(self.case), "steps": steps}


# Which stage


def choose(situation: Situation) -> str:
    """The row of `CASES` that holds. A checker comes before all data, as what it says is not an opinion."""
    data, checker = set(situation.data), situation.checker
    if checker in ("exact", "partial") and situation.solves == "none":
        return "form-then-verify" if "gold" in data else "no-signal"
    if checker == "exact":
        return "sharpen" if situation.solves == "most" else "verify"
    if checker == "partial":
        return "partial"
    if checker == "learned":
        return "learned"
    if "pairs" in data:
        if "prompts" in data and "judge" not in data:
            return "reward-model"
        room, setup = situation.hardware.room, Setup(recompute=True, small=True)
        tight = not situation.lora and peak(memory("prefer", "dpo", situation, setup)) > room
        free = peak(memory("prefer", "simpo", situation, setup)) <= room
        return "pairs-small" if tight and free else "pairs"
    if "labels" in data:
        return "labels"
    if "judge" in data:
        return "judge"
    return "gold" if "gold" in data else "nothing"


def shrunk(setup: Setup) -> list[Setup]:
    """A setup, and the same with ever less for activations."""
    return [setup, replace(setup, recompute=True), replace(setup, recompute=True, small=True)]


def advise(situation: Situation) -> Advice:
    """What to run next, with the rest of its chain."""
    key = choose(situation)
    case = CASES[key]
    steps: list[Step] = []
    model, data = situation.model, ""
    for stage in case.chain:
        step = lay_out(key, stage, situation, model, data)
        steps.append(step)
        if stage == "pairs":
            data = out(stage)
        elif stage == "reward":
            data = f"{out(stage)}/final"
        else:
            model = f"{out(stage)}/final"
    return Advice(key, case, tuple(steps))


def out(stage: str) -> str:
    """The directory that the printed commands use for a stage's run."""
    return f"runs/{stage}"


def lay_out(key: str, stage: str, situation: Situation, model: str, data: str) -> Step:
    """One stage: the first setup that fits, and its command; the smallest one where none does."""
    method = {"pairs-small": "simpo", "labels": "kto"}.get(key, "dpo") if stage == "prefer" else ""
    if stage == "train":
        method = {"partial": "grpo", "reward-model": "ppo", "learned": "ppo"}.get(key, "dapo")
    room = situation.hardware.room
    found = [(setup, memory(stage, method, situation, setup)) for setup in setups(stage, situation)]
    setup, parts = next(((s, p) for s, p in found if peak(p) <= room), found[-1])
    words = [*launcher(stage, situation), stage, *arguments(key, stage, method, situation, setup, model, data)]
    note = ""
    if stage == "train" and not situation.hardware.gpus and situation.shape.params >= SLOW:
        rows = situation.prompts * situation.group
        note = f"without a GPU this is slow: a step writes {rows} completions; `--sampler.prompts-per-step` lowers that"
    if stage == "train" and situation.checker == "partial":
        note = "the KL holds what the checker does not see; try several weights"
    if key == "no-signal":
        note = "`answers.jsonl`: prompts, and answers of a stronger model that pass `rlvr verify`"
    return Step(stage, method, tuple(words), setup, tuple(parts), room, note)


def setups(stage: str, situation: Situation) -> list[Setup]:
    """Ways to run a stage, from the plainest to the smallest."""
    rank = situation.lora
    hardware = situation.hardware
    if stage == "pairs":
        return [Setup()]
    found: list[Setup] = []
    if not rank:
        found += shrunk(Setup())
        if stage == "train" and hardware.gpus > 1:
            found += shrunk(Setup(sharded=True))
    rank = rank or 16
    found += shrunk(Setup(lora=rank))
    if hardware.gpus and not (stage == "train" and hardware.gpus > 1):
        found.append(Setup(lora=rank, quantize="4bit", recompute=True, small=True))
    return found


def launcher(stage: str, situation: Situation) -> list[str]:
    """What starts the command: torchrun where there are several GPUs."""
    if situation.hardware.gpus > 1 and stage != "pairs":
        return ["torchrun", "--nproc-per-node", str(situation.hardware.gpus), "-m", "rlvr"]
    return ["rlvr"]


def arguments(
    key: str, stage: str, method: str, situation: Situation, setup: Setup, model: str, data: str
) -> Iterator[str]:
    """The flags of a stage's command."""
    checked = situation.checker in ("exact", "partial")
    if stage == "pairs":
        yield from ("--data", "prompts.jsonl", "--policy", model, "--judge", "JUDGE")
        yield from ("--judge-url", "http://host:8000/v1", "--out", out(stage))
        return
    yield from ("--model", model)
    if stage == "train":
        yield from ("--task", situation.task, "--algorithm", method)
    elif checked:
        yield from ("--task", situation.task)
    if stage == "sft" and key != "form-then-verify":
        yield from ("--data", "answers.jsonl")
    if stage == "prefer":
        yield from ("--method", method, "--data", data or ("labels.jsonl" if method == "kto" else "pairs.jsonl"))
    if stage == "reward":
        yield from ("--data", "pairs.jsonl")
    if stage == "train" and key == "sharpen":
        yield from ("--curriculum.skip", "0.8")
    if stage == "train" and key == "partial":
        yield from ("--learner.kl-coef", "0.02")
    if stage == "train" and method == "ppo":
        yield from ("--reward", "reward-model", "--reward.model", data or "runs/reward/final")
        yield from ("--learner.kl-coef", "0.05", "--learner.kl-target", "6", "--learner.kl-in", "reward")
    if setup.lora:
        yield from ("--lora.rank", str(setup.lora))
    if setup.quantize != "none":
        yield from ("--lora.quantize", setup.quantize)
        if stage == "train":
            yield from ("--sampler", "transformers")
    if setup.sharded:
        yield from ("--learner.shard", "fsdp")
    if setup.recompute:
        yield "--learner.recompute" if stage == "train" else "--recompute"
    if setup.small and stage == "train":
        yield from ("--learner.micro-batch-tokens", str(situation.context))
    elif setup.small:
        yield from ("--micro-batch-size", str(fewest(method)))
    rows = batch(method, max(situation.hardware.gpus, 1))
    if stage in ("sft", "prefer", "reward") and rows != BATCH_ROWS:
        yield from ("--batch-size", str(rows))
    yield from ("--out", out(stage))


def fewest(method: str) -> int:
    """Rows, or pairs, that a forward pass of a stage has at least: KTO sets each row beside another."""
    return 2 if method == "kto" else 1


def batch(method: str, processes: int) -> int:
    """Rows of one update that divide among so many processes, each of which can take them by `fewest` at once."""
    least = processes * fewest(method)
    return math.ceil(BATCH_ROWS / least) * least


# What is in memory


def memory(stage: str, method: str, situation: Situation, setup: Setup) -> list[Part]:
    """What a process of a stage holds at its peak.

    Weights, gradients and moments are counted; activations, caches and logits are estimated.
    """
    hardware, shape = situation.hardware, situation.shape
    if stage == "pairs":
        policy = Part("policy, which writes completions", shape.params, "4 (float32)", KEPT * shape.params)
        return [policy, Part("judge", 0, "elsewhere", 0.0)]
    gpu = hardware.gpus > 0
    spread = hardware.gpus if setup.sharded else 1
    low = stage == "train" and gpu and not setup.sharded  # what adapters lie on is kept in bfloat16 there
    critic, frozen = method == "ppo", reference(stage, method, setup)
    trunk = shape.params - shape.head
    found = list(trained("policy", shape, shape.params, 0, setup, low, spread))
    if frozen:
        found.append(Part("frozen reference", shape.params, "4 (float32)", KEPT * shape.params / spread))
    if stage == "reward":
        found = list(trained("reward model", shape, trunk, shape.hidden, setup, low, spread))
    if critic:
        found += trained("critic", shape, trunk, shape.hidden + 1, setup, low, spread)
        served = HALF if gpu else KEPT
        each = "2 (bfloat16)" if gpu else "4 (float32)"
        found.append(Part("reward model, which scores", trunk + shape.hidden, each, served * (trunk + shape.hidden)))
    if stage == "train":
        found += sampling(situation, setup)
    found += computing(stage, method, situation, setup)
    return found


def reference(stage: str, method: str, setup: Setup) -> bool:
    """Whether a stage holds a frozen reference of its own; with adapters it is the policy without them."""
    if setup.lora:
        return False
    return (stage == "prefer" and method in ("dpo", "ipo", "kto")) or (stage == "train" and method in ("grpo", "ppo"))


def trained(name: str, shape: Shape, params: float, head: int, setup: Setup, low: bool, spread: int) -> Iterator[Part]:
    """A model that is trained: all of it, or its own `head` of so many parameters and adapters on the rest."""
    if not setup.lora:
        params += head
        yield Part(f"{name}, trained", params, "16 (float32: weight, gradient, two moments)", TRAINED * params / spread)
        return
    below = QUANTIZED[setup.quantize] or (HALF if low else KEPT)
    kind = setup.quantize if setup.quantize != "none" else "bfloat16" if low else "float32"
    adapters = shape.adapters(setup.lora) + head
    yield Part(f"{name}, below its adapters", params, f"{below:g} ({kind})", below * params / spread)
    yield Part(f"{name}'s adapters, trained", adapters, "16 (float32)", TRAINED * adapters / spread)


def sampling(situation: Situation, setup: Setup) -> Iterator[Part]:
    """What samples: vLLM's copy with its cache on a GPU, else the policy itself with a cache."""
    shape, gpu = situation.shape, situation.hardware.gpus > 0
    vllm = gpu and setup.quantize == "none"
    if vllm:
        yield Part("vLLM's copy of the policy", shape.params, "2 (bfloat16)", HALF * shape.params, when="sampling")
    rows = min(situation.prompts * situation.group / max(situation.hardware.gpus, 1), MOST_ROWS)
    token = 2 * shape.layers * shape.keys * (HALF if gpu else KEPT)
    name = f"keys and values of {rows:.0f} completions"
    yield Part(name, 0, f"{token / 1024:.0f} KiB a token", rows * situation.context * token, True, "sampling")


def computing(stage: str, method: str, situation: Situation, setup: Setup) -> Iterator[Part]:
    """What a forward and backward pass takes beside the weights."""
    shape, gpu = situation.shape, situation.hardware.gpus > 0
    tokens = situation.context if setup.small else situation.micro_tokens
    if stage != "train":
        rows = fewest(method) if setup.small else MICRO_ROWS
        pairs = stage == "reward" or (stage == "prefer" and method != "kto")
        tokens = rows * situation.context * (2 if pairs else 1)
    layer = (
        (8 * shape.inner + 30 * shape.hidden + 4 * shape.keys)
        if gpu
        else (16 * shape.inner + 32 * shape.hidden + 8 * shape.keys)
    )
    size: float = tokens * (layer + 4 * shape.hidden * shape.layers if setup.recompute else layer * shape.layers)
    each = f"{layer / 1024:.0f} KiB a token and layer" + (", one layer at a time" if setup.recompute else "")
    yield Part(f"activations of {tokens:,} tokens", 0, each, size, True, "learning")
    if gpu and not setup.lora:
        cast = HALF * shape.params / (shape.layers if setup.sharded else 1)
        yield Part("weights cast for computing", shape.params, "2 (bfloat16)", cast, True, "learning")
    if stage == "reward":
        return
    size = CHUNK + 4.0 * shape.vocabulary * shape.hidden
    yield Part("logits, some at a time", 0, "4 each", size, True, "learning")


def peak(parts: Sequence[Part]) -> float:
    """Bytes at the peak: what is always there, and the larger of what sampling and learning need in turn."""
    needs = {
        when: sum(part.bytes for part in parts if part.when == when) for when in ("always", "sampling", "learning")
    }
    return needs["always"] + max(needs["sampling"], needs["learning"])


# What there is


def find_hardware() -> Hardware:
    """The GPUs that `nvidia-smi` names, processor cores and memory of this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError, AttributeError):
        memory = 8.0
    sizes: list[float] = []
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        try:
            printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
            sizes = [float(line) / 1024 for line in printed.split() if line.strip().replace(".", "").isdigit()]
        except (OSError, subprocess.SubprocessError):
            sizes = []
    return Hardware(len(sizes), min(sizes, default=0.0), os.cpu_count() or 1, memory)


def read_params(text: str) -> float:
    """`0.5B`, `350M` or a plain number as a number of parameters.

    Raises:
        UsageError: It is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMB]?)", text.strip(), re.IGNORECASE)
    number = float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[match[2].upper()] if match else 0
    if not number or not math.isfinite(number):
        raise UsageError(f"`{text}` is no number of parameters", "give one such as `0.5B` or `350M`")
    return number


def shape_of(params: float, vocabulary: int = 0) -> Shape:
    """The shape of a model of so many parameters: that of the nearest Qwen2.5, made smaller below the smallest.

    Args:
        params: How many.
        vocabulary: Rows of its embedding; 0 takes the nearest model's.
    """
    near = min(KNOWN, key=lambda known: abs(math.log(known / params)))
    shape = KNOWN[near]
    if params < near / 3:  # two thirds of the way by width, one third by depth
        by = (params / near) ** (1 / 3)
        layers, heads = max(2, round(shape.layers * by)), max(1, round(shape.heads * by))
        shape = replace(shape, hidden=64 * heads, inner=64 * heads * 4, layers=layers, heads=heads, key_heads=1)
    return replace(shape, given=params, vocabulary=vocabulary or shape.vocabulary)


def model_of(size: float) -> str:
    """The hub name of the Qwen2.5 model nearest in size."""
    near = min(zip(KNOWN, NAMES, strict=True), key=lambda known: abs(math.log(known[0] / size)))
    return f"Qwen/Qwen2.5-{near[1]}-Instruct"


def read_model(name: str) -> Shape | None:
    """The shape of a model folder or starter, from its `config.json`; of a hub name, by the size in it; else None.

    Raises:
        ConfigError: The folder's config is not of a kind that is understood.
    """
    folder = Path(name).expanduser()
    if name.startswith("starter"):
        folder = Path(str(importlib.resources.files("rlvr_tasks") / name.replace("-", "_")))
    file = folder / "config.json"
    if not file.is_file():
        size = re.search(r"(\d+(?:\.\d+)?)[Bb]\b", name)
        params = float(size[1]) * 1e9 if size else 0.0
        return shape_of(params) if 0 < params < math.inf else None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        heads = int(found["num_attention_heads"])
        kind = str(found.get("model_type", ""))
        shape = Shape(
            hidden=int(found["hidden_size"]),
            inner=int(found["intermediate_size"]),
            layers=int(found["num_hidden_layers"]),
            heads=heads,
            key_heads=int(found.get("num_key_value_heads") or heads),
            vocabulary=int(found["vocab_size"]),
            tied=bool(found.get("tie_word_embeddings", False)),
            bias=kind == "qwen2" or bool(found.get("attention_bias", False)),
            head_width=int(found.get("head_dim") or 0),
            head_norms=kind == "qwen3",
        )
        if min(shape.hidden, shape.inner, shape.layers, heads, shape.key_heads, shape.vocabulary) < 1:
            raise ValueError("a size below 1")
        return shape
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"`{file}` is not understood: {error!r}", "give `--params` instead, such as `0.5B`") from None


def table() -> str:
    """`CASES` as the decision table of the documentation, in Markdown."""
    lines = [
        "| what there is | run | data | models in memory | cost | what goes wrong | guards |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, case in CASES.items():
        stages = ", then ".join(f"`rlvr {stage}{option(key, stage)}`" for stage in case.chain) or "nothing yet"
        guards = ", ".join(f"`{guard}`" for guard in case.guards) or "-"
        cells = (case.have, stages, case.needs, case.models, case.cost, case.risk, guards)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def option(key: str, stage: str) -> str:
    """What stands behind a stage's command in the table."""
    if stage == "prefer":
        return {"pairs-small": " --method simpo", "labels": " --method kto"}.get(key, " --method dpo")
    if stage == "train":
        return {"partial": " --learner.kl-coef", "reward-model": " --algorithm ppo", "learned": " --algorithm ppo"}.get(
            key, ""
        )
    return ""


CHOICES: dict[str, tuple[str, ...]] = {
    "data": get_args(Data),
    "checker": get_args(Checker),
    "solves": get_args(Solves),
}
