"""From answers to a preference: both orders of every judge, then all judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr.examples.agreement import pairwise, share
from rlvr.judge.sources import Item

UNREAD = ("missing", "refused", "cut", "unclear")
"""What may have become of a question besides an answer, the gravest first."""

REASONS = {
    "missing": "a request got no answer",
    "refused": "a judge declined to answer",
    "cut": "a judge's answer ran into its limit of tokens",
    "unclear": "a judge's answer does not have the form that was asked for",
    "order": "a judge changed its mind when the two were shown the other way round",
    "judges-disagree": "the judges do not prefer the same one",
    "tie": "neither is better",
    "same-text": "both are the same",
    "empty-completion": "a completion is empty",
    "not-utf8": "a completion has half a surrogate pair, which no file of pairs can hold",
    "revision-cut": "the revision ran into its limit of tokens",
    "revision-not-better": "the judge prefers what was revised",
}
"""Why a comparison makes no pair."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one judge said of a comparison.

    Attributes:
        forth: Its answer with the first completion as A: `A`, `B`, `tie`, or one of `UNREAD`.
        back: Its answer with the second one as A.
        confidence: The chance that it gives to what it prefers, mean over both orders, where it is a local model.
    """

    forth: str
    back: str
    confidence: float | None = None

    @property
    def problem(self) -> str:
        """Why it prefers nothing; empty where it does, or finds a tie."""
        for unread in UNREAD:
            if unread in (self.forth, self.back):
                return unread
        return "" if self.forth == {"A": "B", "B": "A", "tie": "tie"}[self.back] else "order"

    @property
    def prefers(self) -> Literal[0, 1, "tie"] | None:
        """The completion that it prefers in both orders, or a tie in both; None where there is a problem."""
        if self.problem:
            return None
        return "tie" if self.forth == "tie" else 0 if self.forth == "A" else 1


@dataclass(slots=True)
class Comparison:
    """Two completions of one prompt and what came of them.

    Attributes:
        item: The prompt.
        texts: The two; of a revision, what was revised is the second.
        principles: What they were judged by.
        revised: Whether the first is a revision of the second.
        rulings: By judge.
        statuses: What the verifier says of each, where there is one and its verdict is valid.
        better: Which one makes the pair's chosen; None where it makes no pair.
        reason: A key of `REASONS` where it makes none.
        notes: Further columns of the pair, such as the critiques.
    """

    item: Item
    texts: tuple[str, str]
    principles: Sequence[str] = ()
    revised: bool = False
    rulings: dict[str, Ruling] = field(default_factory=dict)
    statuses: tuple[str, str] | None = None
    better: int | None = None
    reason: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    def decide(self, agree: str) -> None:
        """Makes one preference of all rulings.

        Args:
            agree: `all` or `majority` of the judges have to prefer the same one.
        """
        preferred = Counter(ruling.prefers for ruling in self.rulings.values())
        votes, needed = len(self.rulings), len(self.rulings) if agree == "all" else len(self.rulings) // 2 + 1
        for index in (0, 1):
            if preferred[index] >= needed:
                self.better = index
        if self.better is not None:
            if self.revised and self.better == 1:
                self.better, self.reason = None, "revision-not-better"
            return
        problems = [ruling.problem for ruling in self.rulings.values() if ruling.problem]
        if problems and (agree == "all" or len(problems) * 2 >= votes):
            self.reason = min(problems, key=list(REASONS).index)
        else:
            self.reason = "tie" if preferred["tie"] >= needed else "judges-disagree"

    def votes(self) -> dict[str, str | None]:
        """What each judge said of the pair: `chosen`, `rejected`, `tie`, or None for no ruling."""
        names = {self.better: "chosen", "tie": "tie", None: None}
        return {judge: names.get(ruling.prefers, "rejected") for judge, ruling in self.rulings.items()}

    def answers(self) -> dict[str, list[str]]:
        """The answers of each judge, in both orders."""
        return {judge: [ruling.forth, ruling.back] for judge, ruling in self.rulings.items()}


def agreement(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """How judges agree with themselves, with each other, with the verifier and with labels that were there.

    Returns:
        JSON values. `judges`: for each, `consistent`, the share of comparisons with both orders answered in which it
        said the same in both; `first_chosen`, the share of its preferences that fell on what was shown first, which is
        a half without position bias, as every comparison is shown in both orders; and counts of what could not be read.
        `between_judges`: of comparisons in which both were consistent, the share of the same preference, and Cohen's
        kappa. `with_verifier`: of pairs in which one completion passes and the other fails, the share in which the one
        that passes was chosen. `with_labels`: the share of pairs that have the direction that the data had.
    """
    judges = list(dict.fromkeys(judge for one in comparisons for judge in one.rulings))
    by_judge: dict[str, Any] = {}
    ratings: dict[str, dict[Hashable, Hashable]] = {judge: {} for judge in judges}
    for judge in judges:
        rulings = [(index, one.rulings[judge]) for index, one in enumerate(comparisons) if judge in one.rulings]
        read = [ruling for _, ruling in rulings if ruling.problem in ("", "order")]
        answers = Counter(answer for ruling in read for answer in (ruling.forth, ruling.back))
        unread = Counter(answer for _, ruling in rulings for answer in (ruling.forth, ruling.back) if answer in UNREAD)
        by_judge[judge] = {
            "consistent": share(sum(not ruling.problem for ruling in read), len(read)),
            "first_chosen": share(answers["A"], answers["A"] + answers["B"]),
            "tie_answers": answers["tie"],
            **{what: unread[what] for what in UNREAD},
        }
        ratings[judge] = {index: ruling.prefers for index, ruling in rulings if not ruling.problem}
    kept = [one for one in comparisons if one.better is not None]
    told = [one for one in kept if one.statuses and set(one.statuses) == {"passed", "failed"}]
    labelled = [one for one in kept if one.item.better is not None and not one.revised]
    return {
        "judges": by_judge,
        "between_judges": pairwise(ratings),
        "with_verifier": share(sum(passes(one) for one in told), len(told)),
        "with_labels": share(sum(one.better == one.item.better for one in labelled), len(labelled)),
    }


def passes(comparison: Comparison) -> bool:
    """Whether what was chosen is what passes the check."""
    assert comparison.statuses is not None
    assert comparison.better is not None
    return comparison.statuses[comparison.better] == "passed"


def cost(rows: Sequence[Mapping[str, Any]], prices: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """What the answers cost, by model and role.

    Args:
        rows: The run's answers.
        prices: Of a million tokens read and written, by model.

    Returns:
        For each: answers and tokens that this run asked for and paid, those that a shared cache gave for nothing, and
        what both would come to, None where no price is known. Attempts that failed are not in it: endpoints do not say
        what they count.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        answer, price = row["answer"], prices.get(row["model"])
        entry = found.setdefault(
            (row["model"], row["role"]),
            {"asked": 0, "read": 0, "written": 0, "paid": 0.0, "from_cache": 0, "saved": 0.0},
        )
        worth = None if price is None else (price[0] * answer["read"] + price[1] * answer["written"]) / 1e6
        shared = bool(row.get("shared"))
        entry["from_cache" if shared else "asked"] += 1
        if not shared:
            entry["read"] += answer["read"]
            entry["written"] += answer["written"]
        money = "saved" if shared else "paid"
        entry[money] = None if worth is None else entry[money] + worth
        if worth is None:
            entry["paid"] = entry["saved"] = None
    by = [{"model": model, "role": role, **entry} for (model, role), entry in sorted(found.items())]
    for entry in by:
        for money in ("paid", "saved"):
            entry[money] = None if entry[money] is None else round(entry[money], 6)
    known = [entry["paid"] for entry in by]
    return {"models": by, "paid": None if None in known else round(sum(known), 6)}
