"""Makes the starter model again, from nothing: `python -m rlvr_tasks.make_starter --out DIR`.

A Qwen2-architecture model small enough to ship (under 2 MB) and to train on two CPU cores, with its own
byte-level tokenizer and chat template. It learns by supervised fine-tuning, first from a textbook of correct
working, then from the notebooks of a class of pupils. Some of them work correctly; the others make the systematic
slips that teachers know (J. S. Brown and R. R. Burton, "Diagnostic models for procedural bugs in basic mathematical
skills", Cognitive Science 2, 1978): the carry forgotten, the smaller digit taken from the larger, denominators
added. So the starter knows the format, has right and wrong habits, and follows the commoner one; which is which, a
verifier can teach it. Problems come from the train split of the `math` task only.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import lcm
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr_tasks.math import KINDS, Kind, split_of

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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


def conversations(seed: int, right: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Endless `(question, worked answer)` pairs, every kind as often as the others.

    Args:
        seed: Seed of the draw.
        right: Share of correct working by kind; a kind that is not named is always worked correctly.
    """
    rng = random.Random(seed)
    spaces = [(kind, problems(kind)) for kind in KINDS]
    while True:
        kind, space = rng.choice(spaces)
        numbers = rng.choice(space)
        question = rng.choice(kind.wordings).format(*numbers)
        correct = rng.random() < right.get(kind.name, 1.0)
        yield question, work(kind.name, numbers) if correct else slip(kind.name, numbers)


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the task's own words; digits stay single, any text can be encoded.

    It splits text as Qwen2's tokenizer does, since that is what transformers makes of it on loading.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
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


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The architecture, with random weights: 0.35 million parameters."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=240,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
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


def train(
    model: Qwen2ForCausalLM,
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Next-token training on the answers, one line every hundred steps."""
    model.train()
    started = time.monotonic()
    for step in range(1, steps + 1):
        ids, labels = next(data)
        attention = (ids != model.config.pad_token_id).long()
        loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"  {step}/{steps}  loss {loss.item():.4f}  {time.monotonic() - started:.0f} s", flush=True)


def make(out: Path, textbook_steps: int, class_steps: int, batch: int, seed: int) -> None:
    """Trains the starter and writes it to `out`."""
    torch.manual_seed(seed)
    textbook = conversations(seed, {})
    words = [question + answer for question, answer in itertools.islice(textbook, 20_000)]
    tokenizer = make_tokenizer(words + [slip(kind.name, n) for kind in KINDS for n in problems(kind)[:1000]])
    model = make_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, textbook_steps + class_steps, pct_start=0.05, anneal_strategy="cos"
    )
    print("textbook: correct working only")
    train(model, batches(tokenizer, textbook, batch), textbook_steps, optimizer, schedule)
    print("class: correct working and slips")
    train(model, batches(tokenizer, conversations(seed + 1, RIGHT), batch), class_steps, optimizer, schedule)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {model.num_parameters():,} parameters, {size:,} bytes; `rlvr eval --task math --model {out}`")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--textbook-steps", type=int, default=1350)
    parser.add_argument("--class-steps", type=int, default=450)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.out, arguments.textbook_steps, arguments.class_steps, arguments.batch, arguments.seed)


if __name__ == "__main__":
    main()
