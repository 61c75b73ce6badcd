"""Checking tasks: right ones are proven, and each way to be wrong is found and named."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from rlvr import PluginError, Sample, Scorer, Split, Task, UnknownNameError, UsageError, gate, part
from rlvr.registry import load_plugin
from rlvr.taskcheck import Tally, TaskCheck, check_task

PLUGIN = '''
from rlvr import Verdict, hookimpl, verifier

@verifier("same", reference=["answer"])
def same(completion, sample, *, fold: bool = False):
    """Compares text."""
    said, answer = completion.text, str(sample.answer)
    return (said.lower() == answer.lower()) if fold else said == answer

@verifier("anything")
def anything(completion, sample):
    """Passes whatever is not empty."""
    return bool(completion.text)

@verifier("longer", reference=["answer"])
def longer(completion, sample):
    """Passes what is at least as long as the answer."""
    return len(completion.text) >= len(sample.answer)

@verifier("one-word", reference=["answer"])
def one_word(completion, sample):
    return completion.text == sample.answer and " " not in completion.text

@verifier("strict", reference=["answer"], spoil=lambda sample: sample.answer[:-1] or None)
def strict(completion, sample):
    return completion.text == sample.answer

@verifier("lenient", reference=["answer"], spoil=lambda sample: sample.answer[:-1] or None)
def lenient(completion, sample):
    """Reads the first letter only."""
    return completion.text[:1] == sample.answer[:1]

@verifier("spoiling", reference=["answer"], spoil=lambda sample: sample.meta["nothing"])
def spoiling(completion, sample):
    return completion.text == sample.answer

@verifier("spoilt", reference=["answer"], spoil=lambda sample: 5)
def spoilt(completion, sample):
    return completion.text == sample.answer

@verifier("never", reference=["answer"])
def never(completion, sample):
    return Verdict.abstain("not my field")

@verifier("fenced", gold=lambda sample: f"<{sample.meta['code']}>")
def fenced(completion, sample):
    return completion.text == f"<{sample.meta['code']}>"

@verifier("raising", gold=lambda sample: sample.meta["nothing"])
def raising(completion, sample):
    return True

@verifier("numeric", gold=lambda sample: sample.answer)
def numeric(completion, sample):
    return True

@hookimpl
def rlvr_verifiers():
    return [strict, lenient, spoiling, spoilt, same, anything, longer, one_word, never, fenced, raising, numeric]
'''


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    plugin = tmp_path_factory.mktemp("plugins") / "checks.py"
    plugin.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("rlvr.registry"), "_current", None)
        load_plugin(plugin)
        with Scorer(workers=1) as scorer:
            yield scorer


def made(verifier: Any, train: list[Any], test: list[Any], **fields: Any) -> Task:
    """A task with these answers; ids and prompts are unique."""
    samples = {
        split: [Sample(f"{split}-{i}", f"{split} question {i}", answer) for i, answer in enumerate(answers)]
        for split, answers in (("train", train), ("test", test))
    }
    return Task("made", verifier, lambda split: samples[split], **fields)


def tally(found: TaskCheck, split: Split, kind: str) -> Tally:
    (one,) = [t for t in found.tallies if (t.split, t.kind) == (split, kind)]
    return one


def test_a_task_that_tells_right_from_wrong_is_proven(scorer: Scorer) -> None:
    found = check_task(made("same", ["a", "b", "c", "a"], ["d", 5]), scorer)
    assert found.ok
    assert found.answers == 5
    assert not found.offenders
    assert [(t.split, t.kind, t.problems, t.passed, t.failed) for t in found.tallies] == [
        ("train", "gold", 4, 4, 0),
        ("train", "shuffled", 4, 0, 4),
        ("train", "empty", 4, 0, 4),
        ("test", "gold", 2, 2, 0),
        ("test", "shuffled", 2, 0, 2),
        ("test", "empty", 2, 0, 2),
    ]


def test_a_split_of_one_problem_borrows_from_the_other(scorer: Scorer) -> None:
    assert check_task(made("same", ["a", "b"], ["a"]), scorer).ok


def test_a_gold_answer_that_fails_is_named(scorer: Scorer) -> None:
    found = check_task(made("one-word", ["a", "b c"], ["d"]), scorer)
    assert not found.ok
    assert (tally(found, "train", "gold").passed, tally(found, "train", "gold").failed) == (1, 1)
    (offender,) = found.offenders
    assert (offender.split, offender.kind, offender.sample, offender.completion) == ("train", "gold", "train-1", "b c")
    assert offender.verdict.detail


def test_a_shuffled_answer_that_passes_one_way_is_an_offender(scorer: Scorer) -> None:
    found = check_task(made("longer", ["ab", "c"], ["ab"]), scorer)
    assert not found.ok
    assert [(o.split, o.kind, o.sample) for o in found.offenders] == [("train", "shuffled", "train-1")]
    assert found.offenders[0].completion == "ab"
    assert tally(found, "train", "shuffled").equal == 0


def test_limit_takes_the_first_problems_of_each_split(scorer: Scorer) -> None:
    found = check_task(made("same", ["a", "b", "c"], ["d", "e", "f"]), scorer, limit=2)
    assert found.ok
    assert {t.problems for t in found.tallies} == {2}
    assert found.answers == 4


def test_answers_that_mean_the_same_are_set_aside(scorer: Scorer) -> None:
    found = check_task(made("same", ["a", "A", "b"], ["B", "c"], verifier_options={"fold": True}), scorer)
    assert found.ok
    assert sum(t.equal for t in found.tallies) > 0
    assert tally(found, "train", "shuffled").failed == 3


def test_a_verifier_that_passes_anything_is_found(scorer: Scorer) -> None:
    found = check_task(made("anything", ["a", "b", "c"], ["d", "e"]), scorer)
    assert not found.ok
    assert tally(found, "train", "gold").ok
    assert tally(found, "train", "empty").ok
    assert tally(found, "train", "shuffled").passed == 3
    assert {o.kind for o in found.offenders} == {"shuffled"}


def test_missing_verdicts_prove_nothing(scorer: Scorer) -> None:
    found = check_task(made("never", ["a", "b"], ["c"]), scorer)
    assert not found.ok
    assert all(t.missing == t.problems for t in found.tallies)
    assert found.offenders[0].verdict.detail == "not my field"


def test_equal_answers_throughout_cannot_be_shuffled(scorer: Scorer) -> None:
    found = check_task(made("same", ["a", "a"], ["a"]), scorer)
    assert found.answers == 1
    assert tally(found, "train", "gold").ok
    assert not tally(found, "train", "shuffled").ok
    assert not found.ok


@pytest.mark.parametrize(
    ("train", "test", "what"),
    [
        ([("1", "p"), ("2", "q")], [("1", "r")], {"shared_ids": ["1"]}),
        ([("1", "p"), ("2", "q")], [("3", "q")], {"shared_prompts": 1}),
    ],
)
def test_the_splits_must_be_disjoint(
    scorer: Scorer, train: list[tuple[str, str]], test: list[tuple[str, str]], what: dict[str, Any]
) -> None:
    rows = {"train": train, "test": test}
    task = Task("made", "same", lambda split: [Sample(id, prompt, prompt) for id, prompt in rows[split]])
    found = check_task(task, scorer)
    assert not found.ok
    assert not [o for o in found.offenders if o.kind != "shuffled"]
    for name, value in what.items():
        assert getattr(found, name) == value


def test_the_verifier_says_what_a_perfect_completion_is(scorer: Scorer) -> None:
    task = Task("made", "fenced", lambda split: [Sample(f"{split}{c}", c + split, None, {"code": c}) for c in "xyz"])
    assert check_task(task, scorer).ok


@pytest.mark.parametrize(
    ("verifier", "answer", "error", "message"),
    [
        ("same", None, UsageError, "`train-0` has no answer"),
        ("raising", "a", PluginError, "raised KeyError: 'nothing'"),
        ("numeric", 5, PluginError, "returned a `int`"),
        ("spoiling", "a", PluginError, "`spoil` .* raised KeyError: 'nothing'"),
        ("spoilt", "a", PluginError, "`spoil` .* returned a `int`"),
    ],
)
def test_what_cannot_be_checked_says_why(
    scorer: Scorer, verifier: str, answer: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_task(made(verifier, [answer], [answer]), scorer)


def test_the_math_task_is_proven(scorer: Scorer) -> None:
    found = check_task(scorer.registry.task("math"), scorer, limit=60)
    assert found.ok, found.offenders[:3]


def test_a_problem_never_meets_its_own_answer(scorer: Scorer) -> None:
    assert check_task(made("same", list("abcdefgh") * 5, list("aabb")), scorer).ok  # it would pass


def test_a_spoiled_completion_must_fail(scorer: Scorer) -> None:
    found = check_task(made("strict", ["ab", "c", "de"], ["fg"]), scorer)
    assert found.ok
    assert [(t.split, t.problems, t.failed) for t in found.tallies if t.kind == "spoiled"] == [
        ("train", 2, 2),  # of `c` nothing would be left
        ("test", 1, 1),
    ]


def test_a_spoiled_completion_that_passes_is_named(scorer: Scorer) -> None:
    found = check_task(made("lenient", ["ab", "cd"], ["ef"]), scorer)
    assert not found.ok
    assert [(o.split, o.kind, o.completion) for o in found.offenders] == [
        ("train", "spoiled", "a"),
        ("train", "spoiled", "c"),
        ("test", "spoiled", "e"),
    ]


def test_a_task_may_have_no_train_split_but_not_nothing(scorer: Scorer) -> None:
    found = check_task(made("same", [], ["a", "b"]), scorer)
    assert found.ok
    assert {t.split for t in found.tallies} == {"test"}
    assert not check_task(made("same", [], []), scorer).ok


TAGGED = gate(form="anything", answer=part("same", fold=True))


def test_a_composition_is_checked_with_the_tasks_gold(scorer: Scorer) -> None:
    found = check_task(made(TAGGED, ["a", "b"], ["c"], gold=lambda sample: sample.answer.upper()), scorer)
    assert found.ok
    assert {t.kind for t in found.tallies} == {"gold", "shuffled", "empty"}


def test_the_tasks_gold_comes_before_the_verifiers(scorer: Scorer) -> None:
    task = made("numeric", ["a", "b"], ["c"], gold=lambda sample: f"[{sample.answer}]")
    found = check_task(task, scorer)  # the verifier's own is no text, which would be an error
    assert tally(found, "train", "gold").ok
    assert {o.completion for o in found.offenders} <= {"", "[a]", "[b]", "[c]"}


@pytest.mark.parametrize(
    ("gold", "error", "message"),
    [
        (None, UsageError, "`made` has several verifiers"),
        (lambda sample: sample.meta["nothing"], PluginError, "`gold` of the task `made` raised KeyError: 'nothing'"),
        (lambda sample: 5, PluginError, "`gold` of the task `made` returned a `int`"),
    ],
)
def test_a_composition_needs_a_gold_that_works(scorer: Scorer, gold: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        check_task(made(TAGGED, ["a"], ["b"], gold=gold), scorer)
    if gold is None:
        assert "`gold`" in caught.value.hint  # type: ignore[attr-defined]


def test_several_turns_need_a_reply_here_too(scorer: Scorer) -> None:
    task = Task("t", "same", lambda split: [Sample(f"{split}-{n}", str(n), str(n)) for n in range(3)], turns=2)
    with pytest.raises(UsageError, match="answers for the environment"):
        check_task(task, scorer)


def test_a_part_that_does_not_exist_is_known_before_anything_is_verified(scorer: Scorer) -> None:
    with pytest.raises(UnknownNameError, match="`sam`"):
        check_task(made(gate(a="anything", b="sam"), ["a"], ["b"], gold=lambda sample: "x"), scorer)


def test_what_many_completions_solve_is_not_shuffled_but_spoiled(scorer: Scorer) -> None:
    rules = [{"rules": [{"not": {"contains": letter}}]} for letter in "xyz"]
    task = Task(
        "made", "text", lambda split: [Sample(f"{split}{i}", f"{split}{i}", None, r) for i, r in enumerate(rules)]
    )
    found = check_task(task, scorer)
    assert {t.kind for t in found.tallies} == {"gold", "empty", "spoiled"}
    fixed = Task(
        "made", "text", lambda split: [Sample(f"{split}{a}", split + a, a, {"rules": [{"exact": True}]}) for a in "xyz"]
    )
    assert "shuffled" in {t.kind for t in check_task(fixed, scorer).tallies}
