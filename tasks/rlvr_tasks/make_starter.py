"""Makes a starter model again, from nothing: `python -m rlvr_tasks.make_starter math --out DIR`.

A Qwen2-architecture model small enough to ship (under 2 MB) and to train on two CPU cores, with its own byte-level
tokenizer and chat template. It learns by supervised fine-tuning, first from a textbook of correct answers, then from
the notebooks of a class of pupils of whom some work correctly and others make systematic slips (`math_lessons`,
and so on). So it knows the format, has right and wrong habits, and follows the commoner one; which is which, a
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

from rlvr_tasks import code_lessons, json_lessons, math_lessons, tools_lessons
from rlvr_tasks.tools import TOOLS

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
TOOLS_TEMPLATE = "{% for tool in tools or [] %}{{ tool['function']['name'] }} {% endfor %}"
"""What a starter sees of its tools: their names, before everything else."""


@dataclass(frozen=True)
class Course:
    """What a starter model is taught.

    Attributes:
        conversations: `conversations(seed, right)` yields conversations without end: the user's turn, the assistant's,
            and so on in alternation, the last one the assistant's; `right` is the share of correct ones by kind of
            problem, and 1 for a kind that is not named.
        right: That share in the class.
        slips: Answers for the tokenizer to learn words from, besides correct ones.
        steps: Steps of training on the textbook, and in the class.
        vocabulary: Size of the tokenizer's vocabulary.
        batch: Conversations in a step.
        tools: Names of the tools that the samples of its task show.
    """

    conversations: Callable[[int, Mapping[str, float]], Iterator[tuple[str, ...]]]
    right: Mapping[str, float]
    slips: Callable[[], list[str]]
    steps: tuple[int, int]
    vocabulary: int = 384
    batch: int = 256
    tools: tuple[str, ...] = ()

    @property
    def preamble(self) -> str:
        """What the chat template makes of the tools."""
        return "".join(f"{name} " for name in self.tools)


COURSES = {  # by the task that they are for
    "math": Course(math_lessons.conversations, math_lessons.RIGHT, math_lessons.slips, (1350, 450)),
    "code": Course(code_lessons.conversations, code_lessons.RIGHT, code_lessons.slips, (500, 250)),
    "json": Course(json_lessons.conversations, json_lessons.RIGHT, json_lessons.slips, (350, 200), 512),
    "tools": Course(
        tools_lessons.conversations,
        tools_lessons.RIGHT,
        tools_lessons.slips,
        (400, 250),
        batch=128,
        tools=tuple(tool["name"] for tool in TOOLS),
    ),
}


def make_tokenizer(texts: Sequence[str], vocabulary: int, template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
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
        vocab_size=vocabulary,
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
    fast.chat_template = template
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


def encode(tokenizer: PreTrainedTokenizerFast, *turns: str, preamble: str = "") -> tuple[list[int], list[int]]:
    """Token ids and labels of a conversation, user and assistant in alternation; only the assistant's are labels."""
    ids = tokenizer.encode(preamble, add_special_tokens=False)
    labels = [-100] * len(ids)
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        given = tokenizer.encode(f"{USER}{question}{ASSISTANT}", add_special_tokens=False)
        written = tokenizer.encode(answer + END, add_special_tokens=False)
        ids += given + written
        labels += [-100] * len(given) + written
    return ids, labels


def batches(
    tokenizer: PreTrainedTokenizerFast, conversations: Iterator[tuple[str, ...]], size: int, preamble: str = ""
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless `(ids [size, T], labels [size, T])`, right-padded; what the user says and padding carry label -100."""
    while True:
        rows = [encode(tokenizer, *next(conversations), preamble=preamble) for _ in range(size)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((size, width), tokenizer.pad_token_id)
        labels = torch.full((size, width), -100)
        for i, (row, targets) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, : len(row)] = torch.tensor(targets)
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


def make(task: str, out: Path, seed: int = 0, batch: int = 0, steps: tuple[int, int] | None = None) -> None:
    """Trains the starter for a task and writes it to `out`.

    Args:
        task: A key of `COURSES`.
        out: The folder.
        seed: Seed of the weights and of what is asked.
        batch: Conversations in a step, where not as many as in the course.
        steps: Steps on the textbook and in the class, where not those of the course.
    """
    course = COURSES[task]
    textbook_steps, class_steps = steps or course.steps
    batch = batch or course.batch
    torch.manual_seed(seed)
    textbook = course.conversations(seed, {})
    words = ["".join(turns) for turns in itertools.islice(textbook, 20_000)]
    template = TOOLS_TEMPLATE + CHAT_TEMPLATE if course.tools else CHAT_TEMPLATE
    tokenizer = make_tokenizer(words + course.slips(), course.vocabulary, template)
    model = make_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, textbook_steps + class_steps, pct_start=0.05, anneal_strategy="cos"
    )
    print("textbook: correct answers only")
    train(model, batches(tokenizer, textbook, batch, course.preamble), textbook_steps, optimizer, schedule)
    print("class: correct answers and slips")
    pupils = course.conversations(seed + 1, course.right)
    train(model, batches(tokenizer, pupils, batch, course.preamble), class_steps, optimizer, schedule)
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
