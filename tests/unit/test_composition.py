"""Compositions: the truth table of every rule, what holds of all of them, and that their futures always end."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import runpy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlvr
from rlvr import (
    Completion,
    Composition,
    Part,
    Sample,
    Scorer,
    Status,
    UnknownNameError,
    UsageError,
    Verdict,
    all_of,
    any_of,
    gate,
    part,
    penalty,
    weighted,
)
from rlvr.composition import RULES, as_json, combine, compose, composed, gathered, label, leaves
from rlvr.registry import load_plugin
from rlvr.rollout import flags_of

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "composition.md"
MISSING = (Status.ERROR, Status.TIMEOUT, Status.ABSTAINED)


def of(status: Status, score: float | None = None, **more: Any) -> Verdict:
    return Verdict(status, float(status is Status.PASSED) if score is None else score, f"it {status}", **more)


# ------------------------------------------------------------------------------------------------- the truth table


def table() -> list[dict[str, str]]:
    """The rows of the table of statuses in the documentation."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    start = next(i for i, line in enumerate(lines) if line.startswith("| first part"))
    keys, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:])
    return [dict(zip(keys, row, strict=True)) for row in rows]


def cell(status: Status, required: bool) -> str:
    return status.value if status.valid else f"missing, {'required' if required else 'optional'}"


def documented(rule: str, first: str, second: str) -> str:
    (row,) = [row for row in table() if (row["first part"], row["second part"]) == (first, second)]
    return row[rule]


@pytest.mark.parametrize("rule", RULES)
def test_two_parts_are_what_the_documentation_says(rule: Any) -> None:
    for a, b, a_required, b_required in itertools.product(Status, Status, (True, False), (True, False)):
        if rule == "penalty" and not a_required:
            continue
        made = compose(rule, {"a": Part("x", required=a_required), "b": Part("y", required=b_required)})
        found = combine(made, {"a": of(a), "b": of(b)})
        told = documented(rule, cell(a, a_required), cell(b, b_required))
        assert told == (found.status.value if found.valid else "missing"), (a, b, a_required, b_required)


def test_the_table_is_whole() -> None:
    cells = ["passed", "failed", "missing, required", "missing, optional"]
    assert [(row["first part"], row["second part"]) for row in table()] == list(itertools.product(cells, cells))


def expected(rule: str, statuses: Sequence[Status], required: Sequence[bool]) -> Status:
    """The rules once more, as a story told from the front."""
    if rule == "gate":
        reached: list[int] = []
        for index, status in enumerate(statuses):
            reached.append(index)
            if status is Status.FAILED or (not status.valid and required[index]):
                break
        statuses, required = [statuses[i] for i in reached], [required[i] for i in reached]
    if rule == "any-of" and Status.PASSED in statuses:
        return Status.PASSED
    needed = [s for s, r in zip(statuses, required, strict=True) if not s.valid and r]
    for lost in (needed, [] if any(s.valid for s in statuses) else statuses):
        for worst in MISSING:
            if worst in lost:
                return worst
    if rule == "penalty":
        return statuses[0]
    known = [s for s in statuses if s.valid]
    return Status.FAILED if Status.FAILED in known else Status.PASSED


@pytest.mark.parametrize("rule", RULES)
def test_three_parts_in_every_combination_of_statuses(rule: Any) -> None:
    for required in itertools.product((True, False), repeat=3):
        if rule == "penalty" and not required[0]:
            continue
        made = compose(rule, {n: Part("x", required=r) for n, r in zip("abc", required, strict=True)})
        for statuses in itertools.product(Status, repeat=3):
            found = combine(made, dict(zip("abc", map(of, statuses), strict=True)))
            assert found.status is expected(rule, statuses, required), (statuses, required)


# ---------------------------------------------------------------------------------------------------------- scores


def scored(composition: Composition, *scores: float) -> tuple[bool, float]:
    """Passed and score, where a part passes at 1."""
    verdicts = {
        name: Verdict.of(score == 1.0, "said", score) for name, score in zip(composition.parts, scores, strict=False)
    }
    found = combine(composition, verdicts)
    return found.passed, found.score


def test_all_of_has_the_lowest_score_and_any_of_the_highest() -> None:
    assert scored(all_of(a="x", b="y"), 0.75, 0.5) == (False, 0.5)
    assert scored(any_of(a="x", b="y"), 0.75, 0.5) == (False, 0.75)
    assert scored(any_of(a="x", b="y"), 1.0, 0.5) == (True, 1.0)


def test_a_weighted_sum_is_a_mean_that_passes_from_its_threshold_on() -> None:
    made = weighted(a=part("x", weight=3), b="y", threshold=0.75)
    assert scored(made, 1.0, 0.0) == (True, 0.75)
    assert scored(made, 0.5, 1.0) == (False, 0.625)
    assert scored(weighted(a=part("x", weight=0.1), b=part("y", weight=0.2), c=part("z", weight=0.7)), 1, 1, 1) == (
        True,
        1.0,
    )


def test_rounding_does_not_decide() -> None:
    made = weighted(a=part("x", weight=0.1), b=part("x", weight=0.7), c=part("y", weight=0.2), threshold=0.8)
    assert scored(made, 1.0, 1.0, 0.0)[0]  # although the sum is a little less


def test_what_failed_never_has_full_marks_whatever_its_parts_say() -> None:
    verdicts = {"a": of(Status.FAILED, 1.0), "b": of(Status.PASSED)}
    for make in (all_of, any_of, gate, penalty):
        found = combine(make(a="x") if make is any_of else make(a="x", b="y"), verdicts)
        assert found.status is Status.FAILED
        assert found.score < 1.0


def test_weights_of_missing_parts_are_shared_by_the_others() -> None:
    made = weighted(a="x", b=part("y", weight=2), c=part("z", weight=5, required=False))
    verdicts = {"a": of(Status.FAILED, 0.0), "b": of(Status.FAILED, 0.75), "c": of(Status.TIMEOUT)}
    assert combine(made, verdicts).score == 0.5


def test_of_a_sum_whose_only_weight_is_missing_nothing_is_known() -> None:
    made = weighted(a=part("x", weight=0), b=part("y", required=False))
    found = combine(made, {"a": of(Status.PASSED), "b": of(Status.ABSTAINED)})
    assert found.status is Status.ABSTAINED
    assert "`b` (abstained)" in found.detail


def test_a_gate_pays_for_how_far_a_completion_came() -> None:
    made = gate(form="x", answer=part("y", weight=3))
    assert scored(made, 0.5) == (False, 0.125)
    assert scored(made, 1.0, 0.0) == (False, 0.25)
    assert scored(made, 1.0, 0.5) == (False, 0.625)
    assert scored(made, 1.0, 1.0) == (True, 1.0)
    mere = gate(form=part("x", weight=0), answer="y")
    assert [scored(mere, *s) for s in ((0.5,), (1.0, 0.0), (1.0, 1.0))] == [(False, 0), (False, 0), (True, 1)]


def test_a_gate_whose_only_weight_is_missing_goes_by_what_passed() -> None:
    made = gate(form=part("x", weight=0), answer=part("y", required=False))
    found = combine(made, {"form": of(Status.PASSED), "answer": of(Status.ERROR)})
    assert (found.status, found.score) == (Status.PASSED, 1.0)


def test_a_penalty_takes_off_what_fails_and_leaves_passing_alone() -> None:
    made = penalty(answer="x", short=part("y", weight=0.5), polite=part("z", weight=0.8))
    assert scored(made, 1.0, 1.0, 1.0) == (True, 1.0)
    assert scored(made, 1.0, 0.5, 1.0) == (True, 0.75)
    assert scored(made, 1.0, 0.0, 0.0) == (True, 0.0)
    assert scored(made, 0.5, 0.0, 1.0) == (False, 0.0)
    lenient = {"answer": of(Status.PASSED), "short": of(Status.PASSED, 0.2), "polite": of(Status.PASSED)}
    assert combine(made, lenient).score == 1.0


# ------------------------------------------------------------------------------------- what holds of every rule


@st.composite
def verdict(draw: st.DrawFn) -> Verdict:
    status = draw(st.sampled_from([Status.PASSED, Status.FAILED, Status.PASSED, Status.FAILED, *MISSING]))
    parts = {"flags": draw(st.lists(st.sampled_from(["left-early", "lying-object"]), max_size=2))}
    return Verdict(
        status,
        draw(st.floats(0, 1)) if status.valid else 0.0,
        draw(st.sampled_from(["said", "a\nb", "\n x"])),
        draw(st.sampled_from([{}, parts])),
        draw(st.floats(0, 9)),
    )


@st.composite
def compositions(draw: st.DrawFn) -> Composition:
    rule = draw(st.sampled_from(RULES))
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True))
    parts = {}
    for index, name in enumerate(names):
        base = rule == "penalty" and index == 0
        weighs = rule in ("weighted", "gate", "penalty") and not base
        weight = draw(st.floats(0, 5) | st.sampled_from([0.1, 0.2, 1.0])) if weighs else 1.0
        parts[name] = Part("x", {}, weight, base or draw(st.booleans()))
    if rule in ("weighted", "gate") and not any(one.weight for one in parts.values()):
        parts[names[0]] = Part("x")
    return compose(rule, parts, draw(st.floats(0.01, 1)) if rule == "weighted" else 1.0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Composition, dict[str, Verdict]]:
    made = draw(compositions())
    return made, {name: draw(verdict()) for name in made.parts}


@given(cases())
def test_a_verdict_is_within_bounds_and_travels_as_json(case: tuple[Composition, dict[str, Verdict]]) -> None:
    found = combine(*case)
    assert 0.0 <= found.score <= 1.0
    assert found.passed or found.score < 1.0
    assert found.valid or found.score == 0.0
    assert json.loads(json.dumps(dict(found.parts))) == found.parts
    assert flags_of(found) == set().union(*(flags_of(case[1][name]) for name in found.parts if name != "flags"))
    assert found.duration == math.fsum(case[1][name].duration for name in found.parts if name != "flags")


@given(cases(), st.data())
def test_a_better_part_never_makes_a_worse_whole(
    case: tuple[Composition, dict[str, Verdict]], data: st.DataObject
) -> None:
    made, verdicts = case
    known = [name for name, one in verdicts.items() if one.valid]
    if not known:
        return
    name = data.draw(st.sampled_from(known))
    score = data.draw(st.floats(verdicts[name].score, 1))
    better = Verdict.of(verdicts[name].passed or data.draw(st.booleans()), "better", score)
    before, after = combine(made, verdicts), combine(made, verdicts | {name: better})
    if before.valid and after.valid:  # an opened gate may lead to a part that is missing
        assert after.score >= before.score
        assert after.passed >= before.passed
    assert after.valid or not before.valid or made.rule == "gate"


@given(cases(), st.randoms())
def test_the_order_of_the_parts_decides_nothing_where_it_should_not(
    case: tuple[Composition, dict[str, Verdict]], rng: Any
) -> None:
    made, verdicts = case
    if made.rule == "gate":
        return
    first, *rest = made.parts if made.rule == "penalty" else [None, *made.parts]
    rng.shuffle(rest)
    names = [name for name in (first, *rest) if name is not None]
    other = compose(made.rule, {name: made.parts[name] for name in names}, made.threshold)
    here, there = combine(made, verdicts), combine(other, dict(reversed(verdicts.items())))
    assert (here.status, here.score, here.parts, here.duration) == (
        there.status,
        there.score,
        there.parts,
        there.duration,
    )


@given(cases())
def test_an_optional_part_that_is_missing_might_as_well_not_be_there(
    case: tuple[Composition, dict[str, Verdict]],
) -> None:
    made, verdicts = case
    here = combine(made, verdicts)
    reached = [name for name in made.parts if name in here.parts]
    left_out = [name for name in reached if not (made.parts[name].required or verdicts[name].valid)]
    kept = {name: one for name, one in made.parts.items() if name not in left_out}
    if not kept or (made.rule in ("weighted", "gate") and not any(one.weight for one in kept.values())):
        return
    there = combine(compose(made.rule, kept, made.threshold), verdicts)
    assert (here.status, here.score) == (there.status, there.score)


WILD = st.builds(
    Composition,
    st.sampled_from([*RULES, "most-of", ""]),
    st.dictionaries(
        st.sampled_from(["a", "b", "flags", ""]),
        st.builds(Part, st.sampled_from(["x", ""]), st.just({}), st.floats(), st.booleans()) | st.none(),
    ),
    st.floats(),
)


@given(WILD, st.dictionaries(st.sampled_from("abc"), verdict()))
def test_what_nobody_checked_gives_a_verdict_all_the_same(made: Any, verdicts: dict[str, Verdict]) -> None:
    assert 0.0 <= combine(made, verdicts).score <= 1.0


def test_a_part_that_was_not_verified_is_missing() -> None:
    found = combine(all_of(a="x", b="y"), {"a": of(Status.PASSED)})
    assert found.status is Status.ERROR
    assert "`b` (error): it was not verified" in found.detail


def test_the_verdict_says_which_part_decided_and_keeps_them_all() -> None:
    inner = combine(any_of(c="x"), {"c": of(Status.FAILED, 0.5, parts={"flags": ["left-early"]})})
    found = combine(all_of(a="x", b=any_of(c="x")), {"a": of(Status.PASSED, duration=1.0), "b": inner.took(2.0)})
    assert found.detail == "failed `b`: failed all: `c`: it failed"
    assert found.parts["a"] == {"status": "passed", "score": 1.0, "detail": "it passed"}
    assert found.parts["b"]["parts"]["c"]["score"] == 0.5
    assert found.parts["flags"] == ["left-early"]
    assert found.duration == 3.0
    closed = combine(gate(a="x", b="y"), {"a": of(Status.FAILED)})
    assert closed.detail == "failed `a`: it failed; not verified: `b`"
    assert list(closed.parts) == ["a"]
    lost = combine(all_of(a="x", b="y"), {"a": of(Status.ABSTAINED), "b": of(Status.TIMEOUT)})
    assert lost.status is Status.TIMEOUT
    assert lost.detail == "no verdict of `a` (abstained): it abstained; `b` (timeout): it timeout"


# ------------------------------------------------------------------------------------------------ how it is written


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (all_of, "`parts` is empty", "at least one"),
        (lambda: all_of(a=3), "`parts.a` is", "`part(...)`"),
        (lambda: all_of(a=""), "`parts.a` is", "the name of a verifier"),
        (lambda: all_of(flags="x"), "`parts.flags` cannot be the name", "rename"),
        (lambda: all_of(a=part("x", weight=2)), "`parts.a.weight` means nothing for `all-of`", "`weighted`"),
        (lambda: any_of(a=part("x", weight=0)), "`parts.a.weight` means nothing for `any-of`", "`weighted`"),
        (lambda: gate(a=part("x", weight=-1)), "`parts.a.weight` is `-1`", "at least 0"),
        (lambda: gate(a=part("x", weight=math.inf)), "`parts.a.weight` is `inf`", "number"),
        (lambda: gate(a=part("x", weight=math.nan)), "`parts.a.weight` is `nan`", "number"),
        (lambda: gate(a=part("x", weight=True)), "`parts.a.weight` is `True`", "number"),
        (lambda: gate(a=part("x", weight=0)), "`parts` have no weight", "above 0"),
        (lambda: penalty(a=part("x", weight=2)), "the first part of `penalty`", "leave it out"),
        (lambda: penalty(a=part("x", required=False)), "`parts.a.required`", "leave `required` out"),
        (lambda: weighted(a="x", threshold=0), "`threshold` is `0`", "above 0"),
        (lambda: weighted(a="x", threshold=1.5), "`threshold` is `1.5`", "at most 1"),
        (lambda: weighted(a="x", threshold=True), "`threshold` is `True`", "number"),
        (lambda: compose("all-of", {"a": "x"}, 0.5), "`threshold` means nothing in `all-of`", "`weighted`"),
        (lambda: compose("allof", {"a": "x"}), "`rule` is `allof`", "did you mean `all-of`?"),  # type: ignore[arg-type]
        (lambda: all_of(a=part(any_of(b="x"), case=True)), "`parts.a.options`", "its parts"),
        (lambda: all_of(a=Composition("any-of", {})), "`parts.a.parts` is empty", "at least one"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_key(make: Callable[[], Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert message in caught.value.message
    assert hint in caught.value.hint


NESTED = gate(form=part("text", weight=0.5, rules=[1]), answer=any_of(a="math", b=part("same", required=False)))


def test_what_it_is_called_and_made_of() -> None:
    assert label(NESTED) == "gate(text, any-of(math, same))"
    assert label("math") == "math"
    assert [one.verifier for one in leaves(NESTED)] == ["text", "math", "same"]
    assert [one.verifier for one in leaves("math")] == ["math"]
    shown = as_json(NESTED)
    assert json.loads(json.dumps(shown)) == shown
    assert shown["parts"]["form"] == {"name": "text", "rules": [1], "weight": 0.5, "required": True}
    assert shown["parts"]["answer"]["rule"] == "any-of"
    assert shown["parts"]["answer"]["parts"]["b"] == {"name": "same", "weight": 1.0, "required": False}


# ---------------------------------------------------------------------------------------------------------- futures


class Desk:
    """Stands for a scorer: keeps a future for each part that is submitted, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.futures: dict[str, Future[Verdict]] = {}

    def submit(self, one: Part) -> Future[Verdict]:
        if isinstance(one.verifier, Composition):
            return composed(one.verifier, self.submit)
        if one.verifier == "refused":
            raise UsageError("the scorer is closed", "make a new one")
        self.asked.append(one.verifier)
        self.futures[one.verifier] = Future()
        return self.futures[one.verifier]

    def answer(self, name: str, status: Status = Status.PASSED) -> None:
        if self.futures[name].set_running_or_notify_cancel():
            self.futures[name].set_result(of(status))


def test_parts_are_asked_at_once_and_those_of_a_gate_in_turn() -> None:
    desk = Desk()
    whole = composed(all_of(a="x", b="y"), desk.submit)
    assert desk.asked == ["x", "y"]
    desk.answer("y")
    assert not whole.done()
    desk.answer("x")
    assert whole.result(0).passed

    desk = Desk()
    whole = composed(gate(a="x", b="y", c="z"), desk.submit)
    for name in "xyz":
        assert desk.asked[-1] == name
        assert not whole.done()
        desk.answer(name)
    assert whole.result(0).passed


@pytest.mark.parametrize("status", [Status.FAILED, *MISSING])
def test_nothing_behind_a_closed_gate_is_verified(status: Status) -> None:
    desk = Desk()
    whole = composed(gate(a="x", b="y"), desk.submit)
    desk.answer("x", status)
    assert whole.result(0).status is status
    assert desk.asked == ["x"]


def test_an_optional_gate_that_is_missing_stands_open() -> None:
    desk = Desk()
    whole = composed(gate(a=part("x", required=False), b="y"), desk.submit)
    desk.answer("x", Status.TIMEOUT)
    desk.answer("y")
    assert whole.result(0).passed


def test_compositions_nest() -> None:
    desk = Desk()
    whole = composed(gate(a=all_of(b="x", c="y"), d=any_of(e="z")), desk.submit)
    assert desk.asked == ["x", "y"]
    desk.answer("x")
    desk.answer("y")
    desk.answer("z")
    assert whole.result(0).passed
    assert whole.result(0).parts["a"]["parts"]["c"]["status"] == "passed"


def test_a_future_that_fails_or_is_cancelled_is_an_error_of_its_part() -> None:
    desk = Desk()
    whole = composed(all_of(a="x", b="y"), desk.submit)
    desk.futures["x"].set_exception(ValueError("lost\nit"))
    desk.futures["y"].cancel()
    found = whole.result(0)
    assert found.status is Status.ERROR
    assert found.parts["a"]["detail"] == "ValueError: lost it"
    assert found.parts["b"]["detail"] == "its verification was cancelled"


def test_cancelling_the_whole_cancels_what_is_asked_and_asks_no_more() -> None:
    desk = Desk()
    whole = composed(all_of(a="x", b=gate(c="y", d="z")), desk.submit)
    desk.answer("x")
    assert whole.cancel()
    assert desk.futures["y"].cancelled()
    desk.answer("y")
    assert desk.asked == ["x", "y"]
    assert whole.cancelled()


def test_what_cannot_be_submitted_at_once_raises_and_later_is_an_error() -> None:
    desk = Desk()
    with pytest.raises(UsageError, match="closed"):
        composed(all_of(a="x", b="refused"), desk.submit)
    assert desk.futures["x"].cancelled()
    whole = composed(gate(a="x", b="refused"), desk.submit)
    desk.answer("x")
    found = whole.result(0)
    assert found.status is Status.ERROR
    assert "`b` (error): it could not be submitted: UsageError: the scorer is closed" in found.detail


def test_a_composition_that_nobody_checked_is_refused() -> None:
    with pytest.raises(UsageError, match="`parts` is empty"):
        composed(Composition("all-of", {}), Desk().submit)


def test_many_threads_may_answer() -> None:
    for _ in range(50):
        desk = Desk()
        names = [f"v{i}" for i in range(8)]
        whole = composed(all_of(**{name: name for name in names}), desk.submit)
        barrier = threading.Barrier(len(names))

        def work(name: str, desk: Desk = desk, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            desk.answer(name)

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert whole.result(0).passed


def test_gathered_futures_keep_their_order() -> None:
    futures: list[Future[Verdict]] = [Future() for _ in range(3)]
    whole = gathered(futures)
    futures[2].set_result(of(Status.FAILED))
    futures[0].cancel()
    assert not whole.done()
    futures[1].set_exception(RuntimeError("gone"))
    assert [v.detail for v in whole.result(0)] == ["its verification was cancelled", "RuntimeError: gone", "it failed"]
    assert gathered([]).result(0) == []
    again: list[Future[Verdict]] = [Future(), Future()]
    again[0].set_result(of(Status.PASSED))
    assert gathered(again).cancel()
    assert again[1].cancelled()


# ------------------------------------------------------------------------------------------------- in the scorer

PLUGIN = '''
import time
from rlvr import Verdict, hookimpl, verifier

@verifier("has", reference=["answer"])
def has(completion, sample, *, fold: bool = False):
    """Whether the answer occurs."""
    text, answer = completion.text, sample.answer
    return (answer.lower() in text.lower()) if fold else answer in text

@verifier("begins")
def begins(completion, sample, *, prefix: str = "<"):
    return Verdict.of(completion.text.startswith(prefix), "it looked", parts={"flags": ["seen"]})

@verifier("sleepy", timeout=0.2)
def sleepy(completion, sample):
    time.sleep(60)

@verifier("meta", reference=["wanted"])
def meta(completion, sample, *, wanted: str = ""):
    return (sample.meta.get("wanted") or wanted) in completion.text

@hookimpl
def rlvr_verifiers():
    return [has, begins, sleepy, meta]
'''


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    plugin = tmp_path_factory.mktemp("plugins") / "parts.py"
    plugin.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("rlvr.registry"), "_current", None)
        load_plugin(plugin)
        with Scorer(workers=1) as scorer:
            yield scorer


FORM = gate(form="begins", answer=part("has", fold=True))
SAMPLE = Sample("s", answer="Paris")


def test_each_part_runs_under_its_own_clock_in_a_worker(scorer: Scorer) -> None:
    good, bad, closed = (scorer.submit(FORM, Completion(text), SAMPLE) for text in ("<paris", "<rome", "paris"))
    assert good.result(30).passed
    assert good.result().parts["flags"] == ["seen"]
    assert bad.result(30).detail.startswith("failed `answer`")
    assert "answer" not in closed.result(30).parts
    slow = scorer.submit(all_of(a="has", b="sleepy"), Completion("Paris"), SAMPLE).result(30)
    assert slow.status is Status.TIMEOUT
    assert slow.parts["a"]["status"] == "passed"
    assert slow.duration >= 0.2


def test_a_batch_says_the_same_as_single_ones(scorer: Scorer) -> None:
    texts = ["<paris", "<rome", "paris", ""] * 20
    batch = scorer.submit_batch(FORM, [(Completion(text), SAMPLE) for text in texts]).result(60)
    single = [scorer.submit(FORM, Completion(text), SAMPLE).result(30) for text in texts[:4]]
    assert [v.took(0) for v in batch] == [v.took(0) for v in single] * 20


def test_a_scorer_that_closes_leaves_no_future_open(scorer: Scorer) -> None:
    with Scorer(workers=1) as own:
        futures = [
            own.submit(made, Completion("x"), SAMPLE, timeout=60)
            for made in (gate(a="sleepy", b="has"), all_of(a="sleepy", b="has"), gate(a=any_of(c="sleepy"), b="has"))
        ]
    assert [future.result(5).status for future in futures] == [Status.ERROR] * 3


def test_verify_takes_a_composition(scorer: Scorer) -> None:
    assert rlvr.verify(FORM, "<paris", answer="Paris").passed
    found = rlvr.verify_batch(FORM, [("<paris", {"answer": "Paris"}), ("<paris", {"answer": "Rome"})])
    assert [v.passed for v in found] == [True, False]
    assert rlvr.verify(all_of(a="meta"), "abc", wanted="b").passed
    assert rlvr.verify(all_of(a=part("meta", wanted="b")), "abc").passed


@pytest.mark.parametrize(
    ("made", "reference", "message"),
    [
        (FORM, {}, "`has` needs `answer`"),
        (FORM, {"answer": "x", "prefix": "a"}, "`prefix` is an option of `begins`"),
        (all_of(a="meta"), {}, "`meta` needs `wanted`"),
    ],
)
def test_references_are_checked_for_every_part(
    scorer: Scorer, made: Composition, reference: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        rlvr.verify(made, "x", **reference)
    with pytest.raises(UsageError, match="pair 0: .*" + message):
        rlvr.verify_batch(made, [("x", reference)])


def test_what_stands_behind_a_gate_is_known_before_it_opens(scorer: Scorer) -> None:
    with pytest.raises(UnknownNameError, match="`hass`"):
        rlvr.verify(gate(a="begins", b="hass"), "x")
    with pytest.raises(rlvr.ConfigError, match="no option `folded`"):
        rlvr.verify(gate(a="begins", b=part("has", folded=True)), "x", answer="x")


def test_options_belong_to_the_parts(scorer: Scorer) -> None:
    options = {"folded": True}
    with pytest.raises(rlvr.ConfigError, match="`folded` is given to a composition"):
        scorer.check(FORM, options)
    with pytest.raises(rlvr.ConfigError, match="`folded` is given to a composition"):
        scorer.submit(FORM, Completion("x"), SAMPLE, options)
    with pytest.raises(rlvr.ConfigError, match="`folded` is given to a composition"):
        scorer.submit_batch(FORM, [(Completion("x"), SAMPLE)], options)


def test_both_forms_of_the_page_mean_the_same(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    toml, python = (text.split(f"```{language}\n")[1].split("```")[0] for language in ("toml", "python"))
    (tmp_path / "t.toml").write_text(
        f'name = "t"\nprompt = "{{{{q}}}}"\n{toml}\n[data]\npath = "t.csv"\n', encoding="utf-8"
    )
    (tmp_path / "page.py").write_text(python.replace("\nverify(", "\nfound = verify("), encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "page.py"))
    assert rlvr.load_toml(tmp_path / "t.toml").verifier == names["composition"]
    assert names["found"].passed, names["found"].detail
