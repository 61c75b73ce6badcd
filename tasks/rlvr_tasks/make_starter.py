"""Makes the starter model again, from nothing: `python -m rlvr_tasks.make_starter --out DIR`.

A Qwen2-architecture model small enough to ship (under 2 MB) and to train on two CPU cores, with its own
byte-level tokenizer and chat template. It learns by supervised fine-tuning from the worked answers of a class of
pupils. Some of them work correctly; the others make the systematic slips that teachers know (J. S. Brown and
R. R. Burton, "Diagnostic models for procedural bugs in basic mathematical skills", Cognitive Science 2, 1978):
the carry forgotten, the smaller digit taken from the larger, denominators added. So the starter knows the format,
has seen right and wrong ways of working, and does not know which is which; that is what a verifier can teach.
Problems come from the train split of the `math` task only.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import lcm
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr_tasks.math import KINDS, Kind, split_of

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

RIGHT = {  # share of the class that works correctly, by kind of problem
    "sum": 0.8,
    "long-sum": 0.35,
    "difference": 0.6,
    "product": 0.35,
    "percent": 0.35,
    "fraction": 0.6,
    "equation": 0.35,
}


def boxed(value: object) -> str:
    return f"\\boxed{{{value}}}"


def times(a: int, b: int) -> str:
    """Both digits of `a` times `b`, to be added."""
    return f"{a // 10 * 10 * b}+{a % 10 * b}" if a > 9 else f"{a * b}"


def work(kind: str, numbers: Sequence[int]) -> str:
    """A correct worked answer."""
    if kind in ("sum", "long-sum"):
        return boxed(sum(numbers))
    if kind == "difference":
        a, b = numbers
        return boxed(a - b)
    if kind == "product":
        a, b = numbers
        return f"{times(a, b)} {boxed(a * b)}"
    if kind == "percent":
        p, n = numbers
        return f"{n // 10}*{p // 10}={times(n // 10, p // 10)} {boxed(p * n // 100)}"
    if kind == "fraction":
        a, b, c, d = numbers
        m = lcm(b, d)
        x, y = a * (m // b), c * (m // d)
        return f"{x}/{m}+{y}/{m}={x + y}/{m} {boxed(Fraction(x + y, m))}"
    a, b, c = numbers
    return f"{a}x={c - b} {boxed((c - b) // a)}"


def slip(kind: str, numbers: Sequence[int]) -> str:
    """A worked answer with the slip that is typical of its kind (right by luck on some numbers)."""
    if kind == "sum":  # counts one too few
        return boxed(max(0, sum(numbers) - 1))
    if kind == "long-sum":  # forgets the carry
        a, b = numbers
        return boxed(10 * (a // 10 + b // 10) + (a + b) % 10)
    if kind == "difference":  # takes the smaller digit from the larger
        a, b = numbers
        return boxed(10 * (a // 10 - b // 10) + abs(a % 10 - b % 10))
    if kind == "product":  # multiplies the tens only
        a, b = numbers
        return f"{a // 10 * 10 * b}+{a % 10} {boxed(a // 10 * 10 * b + a % 10)}"
    if kind == "percent":  # stops at a tenth
        _, n = numbers
        return f"{n // 10} {boxed(n // 10)}"
    if kind == "fraction":  # adds numerators and denominators
        a, b, c, d = numbers
        return f"{a + c}/{b + d} {boxed(f'{a + c}/{b + d}')}"
    a, b, c = numbers  # forgets to divide
    return f"{a}x={c - b} {boxed(c - b)}"


def problems(kind: Kind) -> list[tuple[int, ...]]:
    return [numbers for numbers in kind.space if split_of(kind.name, numbers) == "train"]


def conversations(seed: int, right: Callable[[str], float]) -> Iterator[tuple[str, str]]:
    """Endless `(question, worked answer)` pairs; every kind as often as the others."""
    rng = random.Random(seed)
    spaces = [(kind, problems(kind)) for kind in KINDS]
    while True:
        kind, space = rng.choice(spaces)
        numbers = rng.choice(space)
        question = rng.choice(kind.wordings).format(*numbers)
        correct = rng.random() < right(kind.name)
        yield question, work(kind.name, numbers) if correct else slip(kind.name, numbers)


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the task's own words; digits stay single, any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\\boxed\{| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        min_frequency=20,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in (PAD, USER, ASSISTANT, END)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=256, padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(vocabulary: int, tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=int(hidden * 2.5) // 16 * 16,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 32,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, question: str, answer: str) -> tuple[list[int], int]:
    prompt = tokenizer.encode(f"{USER}{question}{ASSISTANT}", add_special_tokens=False)
    return prompt + tokenizer.encode(answer + END, add_special_tokens=False), len(prompt)


def batches(
    tokenizer: PreTrainedTokenizerFast, pairs: Iterator[tuple[str, str]], size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless `(ids [size, T], labels [size, T])`, right-padded; prompts and padding carry label -100."""
    while True:
        rows = [encode(tokenizer, *next(pairs)) for _ in range(size)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((size, width), tokenizer.pad_token_id)
        labels = torch.full((size, width), -100)
        for i, (row, start) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, start : len(row)] = torch.tensor(row[start:])
        yield ids, labels
