"""The parts of the kit: labelled cases from a file, no-op completions, reports, and the pytest helper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlvr import Case, Completion, DataError, Kit, PluginError, Sample, UsageError, Verdict, verifier
from rlvr.accuracy import wilson
from rlvr.kit.alarms import alarms
from rlvr.kit.bench import PATIENCE, Bench
from rlvr.kit.check import same
from rlvr.kit.report import CHECKS, Breach, Confusion, Finding, Report, Speed, encodable
from rlvr.kit.trials import NO_OPS, kit_of, kit_trials, no_op_trials, one_per_reference, read_cases, texts_in
from rlvr.registry import Registry, VerifierSpec
from rlvr.testing import VerifierTests, check_verifier, verifier_report

PLUGINS = Path(__file__).parents[1] / "plugins"
DEFECTIVE = PLUGINS / "defective.py"


def made(kit: Any = None) -> VerifierSpec:
    @verifier("made", reference=["answer", "tests"], kit=kit)
    def check(completion: Completion, sample: Sample, *, strict: bool = False) -> bool:
        return completion.text == sample.answer

    return check


def case(completion: str = "4", passes: bool = True, kind: str = "", **reference: Any) -> Case:
    return Case(completion, passes, {"answer": "4", "tests": []} | reference, kind)


# ---------------------------------------------------------------------------------------------------- labelled cases


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_cases_of_a_file(tmp_path: Path) -> None:
    rows = (
        {"completion": "4", "passes": True, "answer": "4", "tests": ["a"], "kind": "plain"},
        {"completion": "\ud800", "passes": False, "answer": "4", "tests": [], "strict": True},
    )
    first, second = read_cases(write(tmp_path / "cases.jsonl", *rows), made())
    assert (first.text, first.right, first.kind, first.sample.answer) == ("4", True, "plain", "4")
    assert first.sample.meta == {"tests": ["a"]}
    assert (second.text, second.right, second.options) == ("\ud800", False, {"strict": True})
    assert second.reference == {"answer": "4", "tests": [], "strict": True}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"completion": "4",', "broken JSON"),
        ("[1]", "a case is an object"),
        ("", "broken JSON"),
        ({"passes": True, "answer": "4", "tests": []}, "no `completion`"),
        ({"completion": "4", "answer": "4", "tests": []}, "no `passes`"),
        ({"completion": 4, "passes": True, "answer": "4", "tests": []}, "`completion` must be text"),
        ({"completion": "4", "passes": "yes", "answer": "4", "tests": []}, "`passes` must be true or false"),
        ({"completion": "4", "passes": 1, "answer": "4", "tests": []}, "`passes` must be true or false"),
        ({"completion": "4", "passes": True, "answer": "4", "tests": [], "kind": 3}, "`kind` must be text"),
        ({"completion": "4", "passes": True, "answer": "4"}, "needs `tests`"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: Any, problem: str) -> None:
    good = {"completion": "4", "passes": True, "answer": "4", "tests": []}
    path = write(tmp_path / "cases.jsonl", good, row, good)
    with pytest.raises(DataError, match=problem) as error:
        read_cases(path, made())
    assert f"`{path}` line 2" in error.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_cases(tmp_path / "none.jsonl", made())
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_cases(tmp_path / "latin.jsonl", made())
    with pytest.raises(DataError, match="has no cases"):
        read_cases(write(tmp_path / "empty.jsonl"), made())


# -------------------------------------------------------------------------------------------------------------- kits


@pytest.mark.parametrize(
    ("kit", "problem"),
    [
        (lambda: None, "is a `NoneType`"),
        (lambda: 1 // 0, "raised ZeroDivisionError"),
        (lambda: Kit([]), "needs right cases and wrong ones"),
        (lambda: Kit([case()]), "needs right cases and wrong ones"),
        (lambda: Kit([case(), case("5", False)], [case()]), "has a hack that passes"),
        (lambda: Kit([case(), case("5", False)], laws=[str.upper]), "a `method_descriptor` in `laws`"),
        (lambda: Kit(["4"]), "a `str` in `cases`"),
        (lambda: Kit([], ["4"]), "a `str` in `hacks`"),
        (lambda: Kit(None), "a `NoneType` as `cases`"),
        (lambda: Kit([Case(4, True)]), "its completion is a `int`"),
        (lambda: Kit([Case("4", "yes")]), "its `passes` is `'yes'`"),
        (lambda: Kit([Case("4", True, "4")]), "its reference is a `str`"),
        (lambda: Kit([Case("4", True, {"answer": {4}})]), "its reference is no JSON"),
    ],
)
def test_a_kit_that_cannot_be_used(kit: Any, problem: str) -> None:
    with pytest.raises(PluginError, match=problem):
        kit_of(made(kit))


def test_a_case_that_lacks_a_reference_is_a_mistake_of_the_kit() -> None:
    with pytest.raises(PluginError, match=r"case 0 of the kit of `made` .* needs `tests`"):
        kit_trials(made(), [Case("4", True, {"answer": "4"})])


def test_a_verifier_without_a_kit_has_none() -> None:
    assert kit_of(made()) is None


def test_a_batch_that_is_given_up_has_the_verdicts_of_the_first_trials() -> None:
    """Trials of other options are verified in another batch, and some never are: the rest must not move up."""

    def submit_batch(name: str, pairs: Sequence[Any], options: Any, timeout: float | None) -> Future[list[Verdict]]:
        hung: Future[list[Verdict]] = Future()
        hung.set_result([Verdict.timeout("hung").took(1.0) for _ in pairs])
        return hung

    registry = SimpleNamespace(verifier=lambda name: made())
    desk: Any = SimpleNamespace(timeout=1.0, registry=registry, submit_batch=submit_batch, close=lambda: None)
    options = [{}, {"strict": True}, *[{}] * PATIENCE]
    trials = kit_trials(made(), [case(**one) for one in options])
    with Bench("made", lambda: desk) as bench:
        assert len(bench.batch(trials)) == 1
        assert bench.gave_up


def test_no_ops_are_held_against_every_reference_once() -> None:
    trials = kit_trials(made(), [case(), case("5", False), case(answer="7", prompt="Which?")])
    assert len(one_per_reference(trials)) == 2
    found = no_op_trials(trials)
    assert all(one.right is False for one in found)
    assert [one.text for one in found] == [*NO_OPS, *NO_OPS, "Which?"]


@pytest.mark.parametrize("silent", [case(" I don't know.\n"), case("No tool is needed.", kind="no-op")])
def test_no_ops_are_not_held_against_a_reference_where_silence_is_right(silent: Case) -> None:
    trials = kit_trials(made(), [silent, case("5", False, answer="7")])
    assert {one.sample.answer for one in no_op_trials(trials)} == {"7"}


def test_texts_in_a_reference() -> None:
    assert texts_in({"a": ["b", {"c": 1.5}], "d": None}) == ["a", "b", "c", "1.5", "d"]


# ----------------------------------------------------------------------------------------------------------- reports


def test_a_confusion_matrix_has_wilson_intervals() -> None:
    found = Confusion()
    for right, verdict in [
        *[(True, Verdict.of(True, "yes"))] * 8,
        (True, Verdict.of(False, "no")),
        (True, Verdict.error("broken")),
        *[(False, Verdict.of(False, "no"))] * 5,
        (False, Verdict.abstain("who knows")),
    ]:
        found.add(right, verdict)
    assert found.counts == {
        True: {"passed": 8, "failed": 1, "missing": 1},
        False: {"passed": 0, "failed": 5, "missing": 1},
    }
    assert found.rates() == {
        "right cases that pass": (8, 10, 0.8, *wilson(8, 10)),
        "wrong cases that fail": (5, 6, 5 / 6, *wilson(5, 6)),
        "cases as labelled": (13, 16, 13 / 16, *wilson(13, 16)),
    }


def test_rates_of_what_there_is_none_of_are_left_out() -> None:
    found = Confusion()
    found.add(True, Verdict.of(True, "yes"))
    assert set(found.rates()) == {"right cases that pass", "cases as labelled"}


def test_speed_has_percentiles() -> None:
    speed = Speed.of([i / 100 for i in range(100, 0, -1)], 2.0, 3, 7.0)
    assert (speed.verdicts, speed.workers, speed.per_second) == (100, 3, 50.0)
    assert (speed.p50, speed.p99, speed.slowest) == (0.5, 0.99, 7.0)


def test_a_report_is_red_by_check_and_can_be_written_as_json() -> None:
    findings = {name: Finding(name) for name in CHECKS}
    findings["hostile"].breaches.append(Breach("hostile", "saw \ud800", "\udc00", {"answer": "\ud800"}))
    report = Report("made", findings, True)
    assert not report.ok
    assert report.red == ["hostile"]
    assert "\\udc00" in json.dumps(report.to_json(), ensure_ascii=False).encode().decode()


def test_a_share_of_the_cases_may_go_wrong() -> None:
    finding = Finding("cases", 100, [Breach("cases", "wrong", "")] * 2, tolerated=2)
    assert finding.ok
    finding.tolerated = 1
    assert not finding.ok


def test_text_that_no_encoding_takes_is_escaped() -> None:
    assert encodable({"a\ud800": ["\udcff", 1, None, "é"]}) == {"a\\ud800": ["\\udcff", 1, None, "é"]}


def test_verdicts_are_compared_by_status_and_score() -> None:
    assert same(Verdict.of(True, "one"), Verdict.of(True, "two").took(3))
    assert not same(Verdict.of(False, "one"), Verdict.of(False, "one", score=0.5))
    assert not same(Verdict.of(False, "one"), Verdict.error("one"))


def test_alarms_are_found_in_the_source_of_a_plugin_and_nowhere_else() -> None:
    found = Registry.load([PLUGINS / "alarmed.py"]).verifiers
    lines = list(alarms(found["alarmed"].fn.__module__))
    assert len(lines) == 2
    assert all("signal.alarm" in line for line in lines)
    assert not list(alarms(found["math"].fn.__module__))


# -------------------------------------------------------------------------------------------------- the pytest helper


def test_the_helper_lists_breaches() -> None:
    options: dict[str, Any] = {"plugin": DEFECTIVE, "fuzz": 5, "timeout": 2.0}
    report = verifier_report("accepts-empty", **options)
    assert report.red == ["empty"]
    with pytest.raises(
        AssertionError, match=r"(?s)breaches\nempty \(no-op\): failed was wanted, not passed.*'answer': 4"
    ):
        check_verifier("accepts-empty", **options)
    check_verifier("accepts-empty", checks=["gold", "wrong", "laws"], **options)


def test_the_helper_knows_its_checks() -> None:
    with pytest.raises(UsageError, match="no check `golf`") as error:
        check_verifier("math", checks=["golf"])
    assert "`gold`" in error.value.hint


class TestSound(VerifierTests):
    """The tests that a plugin's author gets."""

    verifier, plugin, fuzz, timeout = "sound", DEFECTIVE, 5, 2.0
    at_least = 0.5

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def labelled(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        rows = [{"completion": "4", "passes": True, "answer": 4}, {"completion": "4", "passes": False, "answer": 4}]
        cls.cases = write(tmp_path_factory.mktemp("cases") / "cases.jsonl", *rows)

    def test_cases_are_counted(self) -> None:
        assert self.report().labelled.agreed == 1
        assert len(self.report().findings["cases"].breaches) == 1
