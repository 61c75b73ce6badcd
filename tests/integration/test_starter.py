"""The starter models: small, loadable by anyone, half right, and made by the command that comes with them."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
import torch
from rlvr_tasks.make_starter import COURSES, END, encode, make
from rlvr_tasks.math import KINDS, split_of, work
from rlvr_tasks.math_lessons import problems, slip
from rlvr_tasks.tools import KINDS as TOOL_KINDS
from rlvr_tasks.tools_lessons import transcript
from rlvr_verifiers.math import equivalent
from tokenizers import Tokenizer

from rlvr.evaluation import evaluate
from rlvr.learner.policy import load_policy, model_path
from rlvr.registry import registry
from rlvr.sampler.prompts import encode_prompt, encode_reply
from rlvr.sampler.transformers import TransformersSampler
from rlvr.settings import resolve_run
from rlvr.types import SamplingParams

CPU = torch.device("cpu")
MODELS = {"math": "starter", "code": "starter-code", "json": "starter-json", "tools": "starter-tools"}
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
    tools = [{"type": "function", "function": {"name": name}} for name in course.tools] or None
    for turns in itertools.islice(course.conversations(7, course.right), 500):
        pairs = list(zip(turns[::2], turns[1::2], strict=True))
        ids, labels = encode(loaded, *turns, preamble=course.preamble)
        text = "".join(f"<|user|>{question}<|assistant|>{reply}{END}" for question, reply in pairs)
        assert ids == made.encode(course.preamble + text, add_special_tokens=False).ids
        learned = [token for token in labels if token != -100]
        assert loaded.decode(learned) == "".join(reply + END for _, reply in pairs)
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        chat = [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
        start = next(place for place, label in enumerate(labels) if label != -100)
        asked = loaded.apply_chat_template(chat[:1], tools=tools, add_generation_prompt=True, return_dict=False)
        assert asked == ids[:start]
        assert loaded.apply_chat_template(chat, tools=tools, return_dict=False) == ids
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


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_one_for_json_is_right_on_a_third_to_a_half(temperature: float) -> None:
    settings = {"task": "json", "model": "starter-json", "device": "cpu", "eval.temperature": temperature}
    assert 1 / 3 <= evaluate(resolve_run(settings)).accuracy <= 1 / 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_one_for_tools_does_a_third_to_a_half_as_the_lessons_do(temperature: float) -> None:
    """The environment says here what is expected of it, so that no sandbox is needed."""
    task = registry().task("tools")
    samples = list(task.load("test"))
    model, tokenizer = load_policy(str(task.defaults["model"]), CPU)
    sampler = TransformersSampler(model, tokenizer)
    kinds = {kind.name: kind for kind in TOOL_KINDS}
    wanted = []
    for sample in samples:
        first = str(sample.meta["implementation"]).splitlines()[0]
        boxes = ast.literal_eval(first.removeprefix("BOXES = "))
        wanted.append(transcript(kinds[sample.meta["kind"]].solve(sample.meta["told"], boxes)))
    open_ = {index: encode_prompt(tokenizer, sample, task) for index, sample in enumerate(samples)}
    right = 0
    for turn in range(0, 2 * task.turns, 2):
        order = list(open_)
        drawn = sampler.sample([open_[index] for index in order], 1, SamplingParams(80, temperature))
        good = {order[place]: drawn_ for place, drawn_ in drawn if drawn_.text == wanted[order[place]][turn]}
        right += sum(len(wanted[index]) == turn + 1 for index in good)
        open_ = {
            index: [
                *open_[index],
                *completion.token_ids,
                *encode_reply(tokenizer, wanted[index][turn + 1], completion),
            ]
            for index, completion in good.items()
            if len(wanted[index]) > turn + 1
        }
    assert not open_
    assert 1 / 3 <= right / len(samples) <= 1 / 2


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
