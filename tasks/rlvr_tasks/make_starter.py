"""Makes a starter model again, from nothing: `python -m rlvr_tasks.make_starter math --out DIR`.

A Qwen2-architecture model small enough to ship (under 2 MB) and to train on two CPU cores, with its own byte-level
tokenizer and chat template. It learns by supervised fine-tuning, first from a textbook of correct answers, then from
the notebooks of a class of pupils of whom some work correctly and others make systematic slips (`math_lessons`,
`code_lessons`). So it knows the format, has right and wrong habits, and follows the commoner one; which is which, a
verifier can teach it. Problems come from the train split of the task of the same name only.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr_tasks import code_lessons, math_lessons

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


@dataclass(frozen=True)
class Course:
    """What a starter model is taught.

    Attributes:
        conversations: `conversations(seed, right)` yields questions and answers without end; `right` is the share of
            correct answers by kind of problem, and 1 for a kind that is not named.
        right: That share in the class.
        slips: Answers for the tokenizer to learn words from, besides correct ones.
        steps: Steps of training on the textbook, and in the class.
    """

    conversations: Callable[[int, Mapping[str, float]], Iterator[tuple[str, str]]]
    right: Mapping[str, float]
    slips: Callable[[], list[str]]
    steps: tuple[int, int]


COURSES = {  # by the task that they are for
    "math": Course(math_lessons.conversations, math_lessons.RIGHT, math_lessons.slips, (1350, 450)),
    "code": Course(code_lessons.conversations, code_lessons.RIGHT, code_lessons.slips, (500, 250)),
}


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


def make(task: str, out: Path, seed: int = 0, batch: int = 256, steps: tuple[int, int] | None = None) -> None:
    """Trains the starter for a task and writes it to `out`.

    Args:
        task: A key of `COURSES`.
        out: The folder.
        seed: Seed of the weights and of what is asked.
        batch: Questions in a step.
        steps: Steps on the textbook and in the class, where not those of the course.
    """
    course = COURSES[task]
    textbook_steps, class_steps = steps or course.steps
    torch.manual_seed(seed)
    textbook = course.conversations(seed, {})
    words = [question + answer for question, answer in itertools.islice(textbook, 20_000)]
    tokenizer = make_tokenizer(words + course.slips())
    model = make_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, textbook_steps + class_steps, pct_start=0.05, anneal_strategy="cos"
    )
    print("textbook: correct answers only")
    train(model, batches(tokenizer, textbook, batch), textbook_steps, optimizer, schedule)
    print("class: correct answers and slips")
    pupils = course.conversations(seed + 1, course.right)
    train(model, batches(tokenizer, pupils, batch), class_steps, optimizer, schedule)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {model.num_parameters():,} parameters, {size:,} bytes; `rlvr eval --task {task} --model {out}`")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=COURSES, help="the task to make a starter for")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.task, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
