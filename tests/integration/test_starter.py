"""The starter models: small, loadable by anyone, half right, and made by the command that comes with them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from rlvr_tasks.make_starter import COURSES, END, encode, make
from rlvr_tasks.math import KINDS, split_of
from rlvr_tasks.math_lessons import problems, slip, work
from rlvr_verifiers.math import equivalent
from tokenizers import Tokenizer

from rlvr.evaluation import evaluate
from rlvr.learner.policy import load_policy, model_path
from rlvr.registry import registry
from rlvr.sampler.prompts import encode_prompt
from rlvr.sampler.transformers import TransformersSampler
from rlvr.settings import resolve_run
from rlvr.types import SamplingParams

CPU = torch.device("cpu")
MODELS = {"math": "starter", "code": "starter-code"}
FOLDERS = {task: Path(model_path(name)) for task, name in MODELS.items()}


def answer(text: str) -> str:
    return text[text.rindex("{") + 1 : text.rindex("}")]


@pytest.mark.parametrize("task", COURSES)
def test_it_is_small(task: str) -> None:
    assert sum(file.stat().st_size for file in FOLDERS[task].iterdir()) <= 2_000_000


@pytest.mark.parametrize("task", COURSES)
def test_transformers_reads_its_tokenizer_as_it_was_made(task: str) -> None:
    _, loaded = load_policy(MODELS[task], CPU)
    made = Tokenizer.from_file(str(FOLDERS[task] / "tokenizer.json"))
    course = COURSES[task]
    for question, reply in itertools.islice(course.conversations(7, course.right), 500):
        ids, start = encode(loaded, question, reply)
        assert ids == made.encode(f"<|user|>{question}<|assistant|>{reply}{END}", add_special_tokens=False).ids
        chat = [{"role": "user", "content": question}]
        assert loaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == ids[:start]
        assert loaded.decode(ids[start:], skip_special_tokens=True) == reply
        assert len(ids) - start <= registry().task(task).defaults["sampler.max_tokens"]


@pytest.mark.parametrize("task", COURSES)
def test_any_text_survives_its_tokenizer(task: str) -> None:
    _, tokenizer = load_policy(MODELS[task], CPU)
    text = "Größe ≤ 5 kg, 漢字 🙂\n\tdef f(x): return x**2"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_one_for_math_is_right_on_a_third_to_a_half() -> None:
    accuracy = evaluate(resolve_run({"task": "math", "model": "starter", "device": "cpu"})).accuracy
    assert 1 / 3 <= accuracy <= 1 / 2
    sampled = {"eval.samples": 2, "eval.temperature": 1.0}
    accuracy = evaluate(resolve_run({"task": "math", "model": "starter", "device": "cpu", **sampled})).accuracy
    assert 1 / 3 <= accuracy <= 0.55


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_one_for_code_writes_a_third_to_a_half_as_the_references_are(temperature: float) -> None:
    task = registry().task("code")
    samples = list(task.load("test"))
    model, tokenizer = load_policy(str(task.defaults["model"]), CPU)
    prompts = [encode_prompt(tokenizer, sample, task) for sample in samples]
    drawn = TransformersSampler(model, tokenizer).sample(prompts, 1, SamplingParams(40, temperature))
    right = [completion.text == samples[index].answer for index, completion in drawn]
    assert 1 / 3 <= sum(right) / len(right) <= 1 / 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_textbook_is_right_and_the_slips_are_mostly_wrong(kind) -> None:  # type: ignore[no-untyped-def]
    sample = problems(kind)[::7]
    assert all(split_of(kind.name, numbers) == "train" for numbers in sample)
    right = [equivalent(str(kind.answer(*n)), answer(work(kind.name, n))).equal for n in sample]
    wrong = [equivalent(str(kind.answer(*n)), answer(slip(kind.name, n))).equal for n in sample]
    assert all(right)
    assert sum(wrong) < 0.6 * len(wrong)


@pytest.mark.parametrize("task", COURSES)
def test_the_command_makes_a_model_that_loads(task: str, tmp_path: Path) -> None:
    make(task, tmp_path / "made", seed=1, batch=8, steps=(3, 2))
    model, _ = load_policy(str(tmp_path / "made"), CPU)
    shipped, _ = load_policy(MODELS[task], CPU)
    assert model.num_parameters() == shipped.num_parameters()
