"""The verdicts of `tool-call`: by the calls, by what comes of them, in several turns, and what is the task's fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from rlvr_sandboxes.unsafe_subprocess import UnsafeSubprocess
from rlvr_verifiers.tool_call import BadTask, ToolCall, tool_call, written
from rlvr_verifiers.tool_call.examples import gold, spoil
from rlvr_verifiers.tool_call.kit import kit

import rlvr
from rlvr import Call, Calls, Completion, Execution, Opaque, Returned, RlvrError, Sample, Status, Turn, Verdict

TOOLS = [
    {
        "name": "till.pay_in",
        "parameters": {
            "type": "object",
            "properties": {"who": {"type": "string"}, "amount": {"type": "integer"}, "note": {"type": "string"}},
            "required": ["who", "amount"],
        },
    },
    {"name": "balance", "parameters": {"type": "object", "properties": {"who": {"type": "string"}}}},
]
BANK = """
accounts = {"ann": 5, "bob": 0}
LOG = []
class Helper: pass
helper = Helper()

def till_pay_in(who, amount, note=""):
    if amount <= 0:
        raise ValueError("nothing to pay in")
    accounts[who] += amount
    LOG.append(who)
    return "ok"

def balance(who="ann"):
    return {"who": who, "balance": accounts[who], "parts": (1, 0.1 + 0.2)}
"""


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments)


def tags(*calls: ToolCall) -> str:
    return written(calls, "hermes")


def pay(who: str, amount: int) -> ToolCall:
    return call("till.pay_in", who=who, amount=amount)


PAY_ANN, PAY_BOB = pay("ann", 3), pay("bob", 4)
SEE_ANN, SEE_BOB = call("balance", who="ann"), call("balance", who="bob")


def sample(answer: Any = None, **meta: Any) -> Sample:
    return Sample("one", answer=answer, meta={"tools": TOOLS, **meta})


def expect(*calls: ToolCall) -> list[dict[str, Any]]:
    return [{"name": one.name, "arguments": one.arguments} for one in calls]


def verdict(completion: str | Completion, given: Sample, sandbox: Any = None, **options: Any) -> Verdict:
    made = Completion(completion) if isinstance(completion, str) else completion
    found = tool_call.fn(made, given, sandbox, **options)
    assert isinstance(found, Verdict)
    return found


def transcript(*texts: str) -> Completion:
    """Turns of the policy and the environment in alternation."""
    turns = tuple(Turn("environment" if i % 2 else "policy", text) for i, text in enumerate(texts))
    return Completion(texts[-1], turns=turns)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Any]:
    """Runs the tools above, which are honest."""
    with closing(UnsafeSubprocess()) as made:
        yield made


class Scripted:
    """A sandbox that reports what it is told to."""

    name = "scripted"

    def __init__(self, *reports: Calls | Exception) -> None:
        self.reports = list(reports)
        self.asked: list[list[str]] = []

    def call(self, code: str, calls: Sequence[Call], *, timeout: float = 10.0, memory_mb: int = 512) -> Calls:
        self.asked.append([one.source for one in calls])
        report = self.reports.pop(0)
        if isinstance(report, Exception):
            raise report
        return report


def report(*returned: Any, killed_by: Any = None, loaded: bool = True) -> Calls:
    made = tuple(one if isinstance(one, Returned) else Returned(one) for one in returned)
    execution = Execution(None if killed_by else 0, "", "", 0.01, killed_by)
    return Calls(execution, made, loaded, "" if loaded else "NameError: x")


# ----------------------------------------------------------------------------------------------------- by the calls


def test_parts_say_how_much_is_right() -> None:
    given = sample(calls=expect(PAY_ANN))
    right = verdict(tags(PAY_ANN), given)
    assert right.passed
    assert right.parts == {"name": 1.0, "arguments": 1.0, "values": 1.0, "calls": 1}
    scores = [
        verdict(text, given).score
        for text in (
            "I pay.",
            tags(call("balance", who="ann", amount=3)),
            tags(call("till.pay_in")),
            tags(call("till.pay_in", who="ann")),
            tags(pay("ann", 4)),
            tags(PAY_ANN),
        )
    ]
    assert scores == sorted(scores)
    assert scores[0] == scores[1] == 0.0
    assert len(set(scores)) == 5
    assert scores[-1] == 1.0 > scores[-2]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "there is no call"),
        (tags(call("pay", who="ann")), "there is no tool `pay`"),
        (tags(call("till.pay_in", who="ann")), "`amount` is missing"),
        (tags(call("till.pay_in", who="ann", amount=3, x=1)), "`x` is given and not expected"),
        (tags(call("till.pay_in", who="ann", amount="3")), '`amount` is "3", expected 3'),
        (tags(SEE_ANN), "`balance` is called, expected is `till.pay_in`"),
        (tags(PAY_ANN, PAY_ANN), "there are 2 calls, expected 1"),
        ("<think>" + tags(PAY_ANN), "the reasoning has no end"),
        ("<tool_call>{}</tool_call>", "has no `name`"),
        (tags(*[PAY_ANN] * 33), "there are 33 calls; the limit is 32"),
    ],
)
def test_the_detail_says_what_is_wrong(text: str, detail: str) -> None:
    found = verdict(text, sample(calls=expect(PAY_ANN)))
    assert found.status is Status.FAILED
    assert detail in found.detail


def test_order_counts_where_it_is_said() -> None:
    given = sample(calls=expect(PAY_ANN, PAY_BOB))
    assert verdict(tags(PAY_BOB, PAY_ANN), given).passed
    swapped = verdict(tags(PAY_BOB, PAY_ANN), given, ordered=True)
    assert not swapped.passed
    assert "another order" in swapped.detail


def test_from_python_and_over_the_scorer() -> None:
    tools, calls = TOOLS, expect(PAY_ANN)
    assert rlvr.verify("tool-call", tags(PAY_ANN), tools=tools, calls=calls).passed
    text = 'till.pay_in(who="ann", amount=3)'
    assert rlvr.verify("tool-call", text, tools=tools, calls=calls, format="python").passed
    assert not rlvr.verify("tool-call", text, tools=tools, calls=calls, format="hermes").passed
    wanted = [{"till.pay_in": {"who": ["ann"], "amount": [3, 4]}}]
    assert rlvr.verify("tool-call", text, tools=tools, calls=wanted, ordered=True).passed
    assert rlvr.verify("tool-call", text, tools=tools, calls=[{"h": {}}]).status is Status.ERROR


# ---------------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("meta", "options", "message"),
    [
        ({"tools": None}, {}, "there are no `tools`"),
        ({}, {}, "neither `calls`"),
        ({"calls": []}, {"format": "xml"}, "`format` must be one of"),
        ({"calls": []}, {"judge": "luck"}, "`judge` must be"),
        ({"calls": []}, {"judge": "result"}, "needs an `implementation`"),
        ({"calls": []}, {"max_calls": 0}, "`max_calls` must be above 0"),
        ({"implementation": BANK}, {}, "needs a `result`"),
        ({"implementation": 1, "result": 1}, {}, "must be Python source"),
        ({"implementation": "def", "result": 1}, {}, "is not Python"),
        ({"implementation": "def balance(): 1", "result": 1}, {}, "no function `till_pay_in`"),
        ({"implementation": BANK, "end_state": [1]}, {}, "values by expression"),
        ({"implementation": BANK, "end_state": "{"}, {}, "`end_state` is text, but no JSON"),
        ({"implementation": BANK, "result": 1}, {}, "the sandbox `None` cannot evaluate calls"),
    ],
)
def test_a_fault_of_the_task_is_raised(meta: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadTask, match=message):
        verdict(tags(PAY_ANN), sample(**meta), **options)


def test_a_sandbox_is_needed_for_an_implementation_only() -> None:
    assert tool_call.runs_code(sample(implementation=BANK))
    assert not tool_call.runs_code(sample(calls=[]))


def test_what_the_sandbox_sees_is_told_apart() -> None:
    given = sample(implementation=BANK, result=1)
    text = tags(call("balance"), call("balance"))
    starved = verdict(text, given, Scripted(report(killed_by="starved")))
    assert starved.status is Status.TIMEOUT
    slow = verdict(text, given, Scripted(report(0, killed_by="timeout")), timeout=2.0)
    assert slow.status is Status.FAILED
    assert "`balance` did not end within 2 s" in slow.detail
    assert "memory" in verdict(text, given, Scripted(report(killed_by="memory"))).detail
    assert "printed too much" in verdict(text, given, Scripted(report(killed_by="output"))).detail
    assert "ended the process" in verdict(text, given, Scripted(report(0))).detail
    with pytest.raises(BadTask, match="does not load: NameError"):
        verdict(text, given, Scripted(report(loaded=False)))
    with pytest.raises(BadTask, match="`Thing` has no form in JSON"):
        verdict(text, given, Scripted(report(1, Opaque("Thing"))))
    with pytest.raises(RlvrError, match="lost"):
        verdict(text, given, Scripted(RlvrError("lost")))


def test_arguments_are_literals_of_ours() -> None:
    hostile = "'); import os; os.abort() #\n{0!r}\\"
    box = Scripted(report("ok", 1))
    text = tags(call("till.pay_in", who=hostile, amount=2.0, note="\u2028"))
    assert verdict(text, sample(implementation=BANK, end_state={"1": 1}), box).passed
    [[source, _]] = box.asked
    assert source.isascii()
    assert source == f"till_pay_in(**{{'who': {hostile!r}, 'amount': 2, 'note': '\\u2028'}})"


# -------------------------------------------------------------------------------------------- by what comes of calls


def test_success_is_the_result_of_the_last_call(sandbox: Any) -> None:
    given = sample(implementation=BANK, result={"who": "ann", "balance": 8, "parts": [1, 0.3]})
    assert verdict(tags(PAY_ANN, SEE_ANN), given, sandbox).passed
    assert verdict(tags(PAY_ANN, call("balance")), given, sandbox).passed
    wrong = verdict(tags(SEE_ANN), given, sandbox)
    assert not wrong.passed
    assert "`balance` gave" in wrong.detail
    assert wrong.parts["result"] == 0.0
    assert wrong.score < 1.0


def test_success_is_the_end_state(sandbox: Any) -> None:
    given = sample(implementation=BANK, end_state={"accounts['ann']": 8, "len(LOG)": 1})
    assert verdict(tags(PAY_ANN), given, sandbox).passed
    assert verdict(tags(PAY_ANN), sample(implementation=BANK, end_state='{"LOG": ["ann"]}'), sandbox).passed
    assert verdict(tags(SEE_BOB, PAY_ANN, SEE_ANN), given, sandbox).passed
    twice = verdict(
        tags(call("till.pay_in", who="ann", amount=1), call("till.pay_in", who="ann", amount=2)), given, sandbox
    )
    assert "`len(LOG)` is 2 in the end, expected 1" in twice.detail
    assert "KeyError" in verdict(tags(pay("eve", 8)), given, sandbox).detail
    assert "ValueError: nothing to pay in" in verdict(tags(pay("ann", 0)), given, sandbox).detail
    assert "not valid" in verdict(tags(call("till.pay_in", who="ann", amount="8")), given, sandbox).detail
    assert "not valid" in verdict(tags(call("till.pay_in", who="ann", amount=3, x=1)), given, sandbox).detail
    assert verdict("", given, sandbox).score == 0.0


def test_without_either_the_expected_calls_are_run_too(sandbox: Any) -> None:
    given = sample(implementation=BANK, calls=expect(PAY_ANN, PAY_BOB, SEE_BOB))
    assert verdict(tags(PAY_BOB, SEE_BOB, PAY_ANN), given, sandbox).status is Status.FAILED  # LOG tells the order
    assert verdict(tags(call("till.pay_in", who="ann", amount=3, note="tip"), PAY_BOB, SEE_BOB), given, sandbox).passed
    same_results = verdict(tags(PAY_ANN, pay("ann", 4), SEE_BOB), given, sandbox)
    assert "the calls gave" in same_results.detail
    state = sample(implementation=BANK, calls=expect(PAY_ANN))
    other = verdict(tags(PAY_BOB), state, sandbox)
    assert "`accounts` is" in other.detail
    assert other.parts["result"] == 0.0
    assert 0.0 < other.score < 1.0
    with pytest.raises(BadTask, match=r"the expected call of `till\.pay_in` raises KeyError"):
        verdict(tags(PAY_ANN), sample(implementation=BANK, calls=expect(pay("eve", 1))), sandbox)


def test_calls_may_be_judged_all_the_same() -> None:
    given = sample(implementation=BANK, calls=expect(PAY_ANN), result="ok")
    assert not verdict(tags(call("till.pay_in", who="ann", amount=3, note="tip")), given, judge="calls").passed
    assert verdict(tags(PAY_ANN), given, judge="calls").passed


# ------------------------------------------------------------------------------------------------------ several turns


def reply(completion: Completion, given: Sample, sandbox: Any, **options: Any) -> str | None:
    assert tool_call.reply is not None
    return tool_call.reply(completion, given, sandbox, **options)


def test_the_environment_answers_with_results(sandbox: Any) -> None:
    given = sample(implementation=BANK, end_state={"accounts['ann']": 8})
    first = reply(Completion(tags(PAY_ANN, SEE_ANN)), given, sandbox)
    assert first is not None
    lines = [json.loads(line) for line in first.splitlines()]
    assert lines[0] == "ok"
    assert lines[1]["balance"] == 8
    second = reply(transcript(tags(PAY_ANN), '"ok"', tags(PAY_ANN, SEE_ANN)), given, sandbox)
    assert second is not None
    assert [json.loads(line) for line in second.splitlines()][1]["balance"] == 11
    raised = reply(Completion(tags(pay("eve", 1))), given, sandbox)
    assert raised == json.dumps({"error": "KeyError: 'eve'"})


def test_the_environment_has_nothing_to_say() -> None:
    given = sample(implementation=BANK, end_state={"accounts['ann']": 8})
    never = Scripted()
    for text in ("Done.", "", "<tool_call>", "<think>" + tags(PAY_ANN), tags(call("pay")), tags(call("till.pay_in"))):
        assert reply(Completion(text), given, never) is None
    assert reply(transcript(tags(PAY_ANN), '"ok"', "Done."), given, never) is None
    assert reply(Completion(tags(*[PAY_ANN] * 3)), given, never, max_calls=2) is None
    assert reply(Completion(tags(PAY_ANN)), sample(calls=[]), None) is None


def test_the_environment_tells_of_a_tool_that_does_not_end() -> None:
    given = sample(implementation=BANK, result=1)
    told = reply(Completion(tags(PAY_ANN, SEE_ANN)), given, Scripted(report("ok", killed_by="timeout")), timeout=1.0)
    assert told == '"ok"\n{"error": "it did not end within 1 s"}'


def test_the_whole_transcript_counts(sandbox: Any) -> None:
    given = sample("8", implementation=BANK, end_state={"accounts['ann']": 8})
    seen = transcript(tags(PAY_ANN), '"ok"', tags(SEE_ANN), "…", " 8. ")
    assert verdict(seen, given, sandbox).passed
    assert verdict(transcript(tags(PAY_ANN), '"ok"', "<think>5 + 3</think>8.0"), given, sandbox).passed
    wrong = verdict(transcript(tags(PAY_ANN), '"ok"', "9"), given, sandbox)
    assert wrong.status is Status.FAILED
    assert "the last turn says `9`, the answer is `8`" in wrong.detail
    assert wrong.parts["answer"] == 0.0
    assert wrong.score < 1.0
    more = verdict(transcript(tags(PAY_ANN), '"ok"', tags(SEE_ANN)), given, sandbox)
    assert "the last turn is a call" in more.detail
    assert not verdict(transcript(tags(PAY_ANN), '"ok"', tags(PAY_ANN), '"ok"', "8"), given, sandbox).passed
    assert not verdict(transcript("8", "?", "8"), given, sandbox).passed
    assert not verdict(transcript("<tool_call>", "?", tags(PAY_ANN), "?", "8"), given, sandbox).passed


def test_what_raised_in_an_earlier_turn_may_be_mended(sandbox: Any) -> None:
    given = sample(implementation=BANK, end_state={"accounts['ann']": 8})
    bad = pay("anne", 3)
    assert verdict(transcript(tags(bad), "KeyError", tags(PAY_ANN)), given, sandbox).passed
    assert not verdict(tags(bad, PAY_ANN), given, sandbox).passed
    assert not verdict(transcript(tags(PAY_ANN), '"ok"', tags(bad)), given, sandbox).passed
    same = sample(implementation=BANK, calls=expect(PAY_ANN))
    assert verdict(transcript(tags(bad), "KeyError", tags(PAY_ANN)), same, sandbox).passed


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("Paris", ["Paris", " paris. ", "PARIS!"], ["Paris or Rome", "It is Paris", "", "Pari"]),
        (42, ["42", "42.0", "42."], ["43", "the answer is 42", "4 2"]),
        ("1250", ["1,250", "1250.00"], ["1.250", "12,50"]),
        (0.5, ["0.5", ".5", "5e-1"], ["1/2", "0.51"]),
    ],
)
def test_the_answer_is_what_the_last_turn_says(answer: Any, right: list[str], wrong: list[str]) -> None:
    given = sample(answer, calls=[])
    for text in right:
        assert verdict(text, given).passed, text
    for text in wrong:
        assert not verdict(text, given).passed, text


def test_in_a_single_turn_the_answer_stands_beside_the_calls() -> None:
    given = sample("8", calls=expect(PAY_ANN))
    assert verdict(tags(PAY_ANN) + "\n8", given).passed
    assert not verdict(tags(PAY_ANN), given).passed


# ---------------------------------------------------------------------------------------------------- gold and spoil


def test_gold_passes_and_spoiled_fails(sandbox: Any) -> None:
    for given in (
        sample(calls=expect(PAY_ANN, SEE_BOB)),
        sample(calls=[{"till.pay_in": {"who": ["ann", "bob"], "amount": ["", 3], "note": [""]}}]),
        sample(calls=expect(call("balance"))),
        sample(calls=[]),
        sample("8", calls=expect(PAY_ANN)),
        sample(7, calls=[]),
        sample(calls=expect(PAY_ANN), implementation=BANK),
        sample(calls=expect(PAY_ANN), implementation=BANK, end_state={"LOG": ["ann"]}),
    ):
        assert verdict(gold(given), given, sandbox).passed
        spoiled = spoil(given)
        assert spoiled is not None
        assert verdict(spoiled, given, sandbox).status is Status.FAILED
    shared = Sample("one", meta={"calls": expect(PAY_ANN)})
    assert verdict(gold(shared), shared, tools=TOOLS).passed
    assert verdict(str(spoil(shared)), shared, tools=TOOLS).status is Status.FAILED
    unknown = sample(implementation=BANK, result="ok")
    assert spoil(unknown) is None
    with pytest.raises(BadTask, match="the task has to say what is perfect"):
        gold(unknown)


def test_the_kit_holds() -> None:
    made = kit()
    assert len(made.cases) >= 40
    assert len(made.hacks) >= 30
    for case in [*made.cases, *made.hacks]:
        options = {key: case.reference[key] for key in ("ordered", "format") if key in case.reference}
        given = Sample("one", meta={"tools": case.reference["tools"], "calls": case.reference["calls"]})
        assert verdict(case.completion, given, **options).passed is case.passes, case.kind
    assert not any(case.passes for case in made.hacks)
