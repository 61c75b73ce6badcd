"""Rules: what they take, what is about the task and what about the reply, and what a verdict says."""

from __future__ import annotations

import builtins
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.text import IDS, language, text
from rlvr_verifiers.text.language import SCRIPTS, known, spoken
from rlvr_verifiers.text.sentences import BY_LANGUAGE

import rlvr
from rlvr import Completion, MissingDependencyError, Sample, Verdict
from rlvr.registry import registry


def judge(completion: str, *rules: dict[str, Any], answer: Any = None, **options: Any) -> Verdict:
    meta = {"rules": list(rules)} if rules else {}
    verdict = text(Completion(completion), Sample("s", "", answer, meta), **options)
    assert isinstance(verdict, Verdict)
    return verdict


# ------------------------------------------------------------------------------------------------- verdicts


def test_the_score_is_the_share_of_the_rules_by_weight() -> None:
    rules = [{"contains": "a", "weight": 3}, {"contains": "b", "name": "has-b"}, {"words": 1}]
    verdict = judge("a", *rules)
    assert (verdict.status, verdict.score) == ("failed", 0.8)
    assert verdict.parts == {"contains": 1.0, "has-b": 0.0, "words": 1.0, "open": True}
    assert verdict.detail == "`has-b`: `b` does not occur (2 of 3 rules hold)"
    assert judge("a b", *rules[:2]).score == 1.0


def test_the_detail_says_what_was_found() -> None:
    assert judge("word " * 63, {"words": {"max": 50}}).detail == "`words`: 63 words, limit 50"
    assert judge("one", {"words": {"min": 2}}).detail == "`words`: 1 words, at least 2"
    assert "it is `Rome`, not `Paris`" in judge("Rome", exact="Paris").detail


def test_rules_of_the_same_kind_have_names_of_their_own() -> None:
    assert set(judge("a", {"contains": "a"}, {"contains": "b"}).parts) == {"contains", "contains-2", "open"}


def test_short_hand_goes_with_the_rules_of_a_sample() -> None:
    verdict = judge("<answer>4</answer>", {"contains": "4"}, tags=["answer"], characters={"max": 40})
    assert verdict.passed
    assert set(verdict.parts) == {"contains", "tags", "characters", "open"}


def test_what_has_one_right_reply_is_not_open() -> None:
    assert "open" not in judge("a", {"exact": "a"}).parts
    assert "open" not in judge("a", {"any": [{"exact": "a"}, {"contains": "b"}]}).parts
    assert judge("a", {"not": {"exact": "b"}}).parts["open"]


def test_from_the_outside() -> None:
    assert rlvr.verify("text", "It is Paris.", contains="Paris").passed
    assert rlvr.verify("text", "B", choice="B").passed
    assert not rlvr.verify("text", "paris", exact="Paris").passed
    assert rlvr.verify("text", "<think>x</think>B", rules=[{"choice": True}], answer="B").passed
    assert rlvr.verify("text", "a", instruction_id_list=["punctuation:no_comma"], kwargs=[{}]).passed
    assert rlvr.verify("text", "x", regex="(?=x)").status == "error"


# ---------------------------------------------------------------------------------------------- what is judged


@pytest.mark.parametrize(
    ("completion", "on", "seen"),
    [
        ("<think>a</think>b", "reply", "b"),
        ("a</think>b", "reply", "b"),
        ("<think>a</think>b", "think", "a"),
        (" <think>a</think>b", "think", "a"),
        ("<think>a</think>x <answer>b</answer> y", "answer", "b"),
        ("<think>a</think>b", "all", "<think>a</think>b"),
        ("b", "reply", "b"),
    ],
)
def test_targets(completion: str, on: str, seen: str) -> None:
    assert judge(completion, {"exact": seen, "on": on}).passed
    assert judge(completion, {"exact": seen}, on=on).passed


@pytest.mark.parametrize(
    ("completion", "on"),
    [
        ("", "reply"),
        ("\u200b \n", "reply"),
        ("<!-- a -->", "reply"),
        ("<think>a", "reply"),
        ("<think>a</think>", "reply"),
        ("b", "think"),
        ("b", "answer"),
        ("<answer>a</answer><answer>b</answer>", "answer"),
        ("<answer></answer>", "answer"),
        ("<think><answer>a</answer></think>", "answer"),
    ],
)
def test_no_rule_holds_where_there_is_nothing_not_even_a_negated_one(completion: str, on: str) -> None:
    assert judge(completion, {"not": {"contains": "x", "on": on}}).status == "failed"
    assert judge(completion, {"words": {"max": 9}, "on": on}).status == "failed"


def test_a_completion_beyond_the_limit_fails() -> None:
    assert "1,000,001 characters" in judge("a" * 1_000_001, contains="a").detail


# -------------------------------------------------------------------------------------------- not, any and all

WORDY = st.text(alphabet="ab\u0430\u200b .,\n", max_size=30).filter(lambda text: any(map(str.isalpha, text)))
RULE = st.sampled_from(
    [
        {"contains": "a"},
        {"contains": "ab", "word": True},
        {"regex": "b+"},
        {"words": {"max": 3}},
        {"words": {"min": 3}},
        {"sentences": 1},
        {"starts": "a"},
        {"instruction": "punctuation:no_comma"},
    ]
)


@given(WORDY, RULE)
def test_a_rule_and_its_negation_never_hold_together(completion: str, rule: dict[str, Any]) -> None:
    assert not (judge(completion, rule).passed and judge(completion, {"not": rule}).passed)
    assert judge(completion, {"not": {"not": rule}}).passed == judge(completion, rule).passed


@given(st.text(alphabet="ab .,\n", max_size=30).filter(lambda text: any(map(str.isalpha, text))), RULE)
def test_of_plain_text_a_rule_or_its_negation_holds(completion: str, rule: dict[str, Any]) -> None:
    assert judge(completion, rule).passed != judge(completion, {"not": rule}).passed


@given(WORDY, RULE, RULE)
def test_any_and_all(completion: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    one, two = judge(completion, first).passed, judge(completion, second).passed
    assert judge(completion, {"any": [first, second]}).passed == (one or two)
    assert judge(completion, {"all": [first, second]}).passed == (one and two)
    assert judge(completion, first, second).passed == (one and two)


@given(st.lists(st.sampled_from(["one", "two's", "drei"]), min_size=1, max_size=12), st.integers(1, 12))
def test_bounds_on_words(items: list[str], limit: int) -> None:
    completion = " ".join(items)
    assert judge(completion, {"words": {"max": limit}}).passed == (len(items) <= limit)
    assert judge(completion, {"words": {"min": limit}}).passed == (len(items) >= limit)
    assert judge(completion, {"words": limit}).passed == (len(items) == limit)


# ------------------------------------------------------------------------------------- wrong rules are the task's


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "a rule has one kind"),
        ({"contains": "a", "exact": "a"}, "has `contains` and `exact`"),
        ({"contain": "a"}, "known: contains, regex"),
        ({"contains": ""}, "empty text"),
        ({"contains": ["a", 1.5, None]}, "text or a list of texts"),
        ({"contains": "a", "ignore_case": True}, "takes no `ignore_case`; it takes case word times"),
        ({"contains": "a", "on": "reasoning"}, "known: reply, answer, think, all"),
        ({"contains": "a", "weight": 0}, "a number above 0"),
        ({"contains": "a", "name": "two words"}, "must be a word"),
        ({"contains": "a", "name": "flags"}, "cannot be called"),
        ({"contains": True}, "asks for the sample's answer, and there is none"),
        ({"regex": "(?<=a)b"}, "look-behind"),
        ({"regex": r"(a)\1"}, "back-reference"),
        ({"regex": "(a"}, "missing )"),
        ({"regex": 5}, "must be text"),
        ({"words": {"min": 3, "max": 2}}, "bounds nothing"),
        ({"words": {}}, "bounds nothing"),
        ({"words": {"most": 2}}, "it takes `min` and `max`"),
        ({"words": -1}, "whole number from 0"),
        ({"words": True}, "whole number from 0"),
        ({"choice": "Paris"}, "a `choice` is a letter"),
        ({"choice": "E", "options": ["a", "b"]}, "a letter of AB"),
        ({"language": "xx"}, "the language `xx` is not known"),
        ({"tags": ["a b"]}, "different names"),
        ({"tags": ["a", "A"]}, "different names"),
        ({"json": False}, "takes `true`"),
        ({"any": []}, "there must be one"),
        ({"any": [{"contains": "a"}, {"contains": "b", "on": "all"}]}, "about the same"),
        ({"instruction": "keywords:exist"}, "there is no instruction `keywords:exist`"),
        ({"instruction": "keywords:existence"}, "needs `keywords`"),
        ({"instruction": "punctuation:no_comma", "kwargs": {"n": 1}}, "takes no `n`"),
        (
            {"instruction": "length_constraints:number_words", "kwargs": {"num_words": 3, "relation": "over"}},
            "known: at least, at most",
        ),
        (
            {"instruction": "length_constraints:number_words", "kwargs": {"num_words": "3", "relation": "at least"}},
            "whole number",
        ),
    ],
)
def test_a_rule_that_cannot_be_used_says_why(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        judge("a", rule)


def test_rules_have_bounds() -> None:
    deep: dict[str, Any] = {"contains": "a"}
    for _ in range(20):
        deep = {"not": deep}
    with pytest.raises(ValueError, match="inside of each other"):
        judge("a", deep)
    with pytest.raises(ValueError, match="more than 200 rules"):
        judge("a", *[{"contains": "a"}] * 201)
    with pytest.raises(ValueError, match="there are no rules"):
        judge("a")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"contains": "a", "word": "no"}, "`word` of the rule `contains` is true or false"),
        ({"contains": [True]}, "must be text"),
        ({"starts": ["a", "b"]}, "must be one text"),
        ({"choice": "A", "options": "AAB"}, "different letters"),
        ({"choice": "A", "options": ""}, "different letters"),
        ({"not": {"tags": "b"}, "on": "answer", "weight": True}, "weight"),
    ],
)
def test_what_would_be_ignored_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge("a", rule)
    with pytest.raises(ValueError, match="`loose` is true or false"):
        judge("a", {"contains": "a"}, loose="no")


@pytest.mark.parametrize("kind", ["not", "any", "all"])
def test_what_combines_rules_says_what_they_are_about(kind: str) -> None:
    inner: Any = {"contains": "sorry"} if kind == "not" else [{"contains": "4"}]
    for on, passes in (("answer", True), ("reply", kind != "not"), ("think", False)):
        verdict = judge("<think>sorry</think>sorry <answer>4</answer>", {kind: inner, "on": on})
        assert verdict.passed is passes, on


def test_what_a_page_would_show_counts_where_it_is_forbidden() -> None:
    no_comma = {"instruction": "punctuation:no_comma"}
    for said in ("a&#44;b", "a&#x2c; b", "a&comma;b"):
        assert not judge(said, no_comma).passed
    for said in ("a&#4;b", "a&#9999999;b", "AT&T; no", "a &" + "#" + "4" * 5000 + ";", "&" * 5000):
        assert judge(said, no_comma).passed
    assert not judge("fo&shy;o", {"not": {"contains": "foo"}}).passed
    assert not judge("fo&shy;o", {"contains": "foo"}).passed


def test_columns_of_ifeval_must_fit_each_other() -> None:
    with pytest.raises(ValueError, match="has 1 entries and `kwargs` 2"):
        text(Completion("a"), Sample("s", meta={"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]}))
    assert len(IDS) == 25


def test_numbers_may_be_floats_and_nulls_are_left_out() -> None:
    kwargs = {"num_words": 2.0, "relation": "at least", "keywords": None}
    assert judge("a b", {"instruction": "length_constraints:number_words", "kwargs": kwargs}).passed


@pytest.mark.parametrize(
    "version", ["Here it is:\nno commas", "no commas\nHope, this helps", "Sure, here:\nno\nWell, bye", "n*o"]
)
def test_loose_judging_forgives_the_first_and_last_line(version: str) -> None:
    rules = {
        "instructions": [{"id": "punctuation:no_comma"}, {"id": "keywords:existence", "kwargs": {"keywords": ["no"]}}]
    }
    assert judge(version, loose=True, **rules).passed
    assert judge("a, b\nc, no\nd, e", loose=True, **rules).status == "failed"


# --------------------------------------------------------------------------------------------------- languages


@pytest.mark.parametrize("code", BY_LANGUAGE)
def test_a_sentence_is_in_its_language_and_no_other(code: str) -> None:
    assert spoken(BY_LANGUAGE[code], code)[0] is True
    assert spoken(BY_LANGUAGE[code] * 50, code)[0] is True
    alike = next((group for group in language._ALIKE if code in group), {code})
    for other in SCRIPTS.keys() - alike:
        assert spoken(BY_LANGUAGE[code], other)[0] is False, other


def test_short_text_is_undecided_only_where_it_could_be_right() -> None:
    assert judge("Ja.", language="de").status == "abstained"
    assert judge("Ja.", {"language": "de"}, {"contains": "nein"}).status == "failed"
    assert judge("Ja.", language="ru").status == "failed"
    assert judge("Да.", language="de").status == "failed"
    assert judge("42", language="de").status == "failed"
    assert judge("네.", language="ko").passed


def test_one_sentence_in_front_is_not_the_language_of_the_whole() -> None:
    english = "The weather is fine today and we go to the park with our friends. " * 20
    assert judge(BY_LANGUAGE["de"] + " " + english, language="de").status == "failed"
    assert judge(english + "```python\nprint('x')\n```", language="en").passed


def test_codes() -> None:
    assert [known(code) for code in ("pt-BR", "zh-CN", "nb", "EN", "iw")] == ["pt", "zh", "no", "en", "he"]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("py3langid"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    language._identifier.cache_clear()
    with pytest.raises(MissingDependencyError, match="needs the extra `text`") as raised:
        judge(BY_LANGUAGE["de"], language="de")
    assert "rlvr[text]" in raised.value.hint
    assert judge(BY_LANGUAGE["ko"], language="ko").passed  # its script says it
    language._identifier.cache_clear()


# ------------------------------------------------------------------------------------------------- hostile text

HOSTILE = {
    "letters": "a" * 1_000_000,
    "stops": "A. " * 333_333,
    "lines": "\n" * 999_999 + "a",
    "items": "- a\n" * 250_000,
    "marks": "a" + "\u0300\u0316" * 250_000,
    "hidden": "a\u200b" * 250_000,
    "disguise": "a\u0430" * 333_333,
    "phrases": "\ufdfa" * 333_333,
    "comments": "<!--" * 250_000,
    "fences": "```\n" * 250_000,
    "stars": "*" * 1_000_000,
    "brackets": "[x" * 500_000,
    "angles": "<<x" * 333_333,
    "bullet": "-" + " " * 999_998 + "x",
    "tags": "<think " * 142_857,
    "json": "[" * 500_000 + "]" * 500_000,
    "surrogates": "\ud800" * 333_333,
}
EVERYTHING = [
    {"contains": "ab", "word": True},
    {"regex": r"(x+x+)+y|(a|aa)+$"},
    {"normalised": "a"},
    {"choice": "B"},
    *({unit: {"min": 5, "max": 50}} for unit in ("words", "sentences", "paragraphs", "lines", "characters")),
    {"language": "en"},
    {"tags": ["think", "answer"]},
    {"json": True},
    {"not": {"contains": "password"}},
]


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_judged_in_linear_time(kind: str) -> None:
    start = time.process_time()
    verdict = judge(HOSTILE[kind], *EVERYTHING)
    assert verdict.status == "failed"
    assert time.process_time() - start < 10  # about 1 s for all rules on a quiet machine


def test_it_is_listed_and_light() -> None:
    spec = registry().verifier("text")
    assert spec.kit is not None
    assert spec.summary.startswith("Passes when the reply keeps all rules")
