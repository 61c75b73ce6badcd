"""The starter model: small, loadable by anyone, half right, and made by the command that comes with it."""

from __future__ import annotations

import importlib.resources
import itertools
from pathlib import Path

import pytest
import torch
from rlvr_tasks.make_starter import END, RIGHT, conversations, encode, make, problems, slip, work
from rlvr_tasks.math import KINDS, split_of
from rlvr_verifiers.math import equivalent
from tokenizers import Tokenizer

from rlvr.evaluation import evaluate
from rlvr.learner.policy import load_policy
from rlvr.settings import resolve_run

STARTER = Path(str(importlib.resources.files("rlvr_tasks"))) / "starter"


def answer(text: str) -> str:
    return text[text.rindex("{") + 1 : text.rindex("}")]


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in STARTER.iterdir()) <= 2_000_000


def test_transformers_reads_its_tokenizer_as_it_was_made() -> None:
    _, loaded = load_policy("starter", torch.device("cpu"))
    made = Tokenizer.from_file(str(STARTER / "tokenizer.json"))
    for question, reply in itertools.islice(conversations(7, RIGHT), 500):
        ids, start = encode(loaded, question, reply)
        assert ids == made.encode(f"<|user|>{question}<|assistant|>{reply}{END}", add_special_tokens=False).ids
        chat = [{"role": "user", "content": question}]
        assert loaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == ids[:start]
        assert loaded.decode(ids[start:], skip_special_tokens=True) == reply


def test_any_text_survives_its_tokenizer() -> None:
    _, tokenizer = load_policy("starter", torch.device("cpu"))
    text = "Größe ≤ 5 kg, 漢字 🙂\n\tdef f(x): return x**2"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_it_is_right_on_a_third_to_a_half() -> None:
    accuracy = evaluate(resolve_run({"task": "math", "model": "starter", "device": "cpu"})).accuracy
    assert 1 / 3 <= accuracy <= 1 / 2
    sampled = {"eval.samples": 2, "eval.temperature": 1.0}
    accuracy = evaluate(resolve_run({"task": "math", "model": "starter", "device": "cpu", **sampled})).accuracy
    assert 1 / 3 <= accuracy <= 0.55


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_textbook_is_right_and_the_slips_are_mostly_wrong(kind) -> None:  # type: ignore[no-untyped-def]
    sample = problems(kind)[::7]
    assert all(split_of(kind.name, numbers) == "train" for numbers in sample)
    right = [equivalent(str(kind.answer(*n)), answer(work(kind.name, n))).equal for n in sample]
    wrong = [equivalent(str(kind.answer(*n)), answer(slip(kind.name, n))).equal for n in sample]
    assert all(right)
    assert sum(wrong) < 0.6 * len(wrong)


def test_the_command_makes_a_model_that_loads(tmp_path: Path) -> None:
    make(tmp_path / "made", textbook_steps=3, class_steps=2, batch=8, seed=1)
    model, _ = load_policy(str(tmp_path / "made"), torch.device("cpu"))
    shipped, _ = load_policy("starter", torch.device("cpu"))
    assert model.num_parameters() == shipped.num_parameters()
