"""`report.md` of `rlvr pairs`: what came of it, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlvr.judge.config import PairsConfig
from rlvr.judge.verdicts import REASONS, UNREAD


def percent(share: Mapping[str, Any]) -> str:
    """A share with its interval and what it is of."""
    if share["share"] is None:
        return "none"
    return f"{share['share']:.1%} [{share['low']:.1%}, {share['high']:.1%}] of {share['n']}"


def money(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:.4f}"


def cell(text: object) -> str:
    """Text in a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def rows(heading: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table."""
    every = [heading, ["---"] * len(heading), *lines]
    return "".join("| " + " | ".join(map(cell, line)) + " |\n" for line in every)


def written_report(
    config: PairsConfig, judges: Sequence[str], principles: Sequence[str], result: Mapping[str, Any]
) -> str:
    """The page.

    Args:
        config: The settings.
        judges: What the judges are called.
        principles: The list.
        result: As it is in `result.json`.
    """
    found = result["agreement"]
    origin = f"the task {config.task}" if config.task else config.data
    kind = f"{config.revise} rounds of critique and revision" if config.revise else "completions compared"
    drawn = "the whole list at once" if config.by == "all" else "one of them, drawn by the seed"
    parts = [
        "# Preference pairs\n",
        f"{result['pairs']} pairs of {result['comparisons']} comparisons. {result['prompts']} prompts of {origin}; "
        f"{kind}; judged by {', '.join(judges)}, in both orders.\n",
        "A judge is a model too: what it prefers is a learned reward, not a checked one. `rlvr pairs audit` puts a "
        "sample of these pairs before a person.\n",
        "## Dropped\n",
        rows(
            ("reason", "comparisons", "what it means"),
            [(reason, count, REASONS[reason]) for reason, count in result["dropped"].items()],
        ),
    ]
    without = result["prompts_without_comparison"]
    if without:
        counts = ", ".join(f"{count} {reason}" for reason, count in without.items())
        parts.append(f"Prompts with nothing to compare: {counts}.\n")
    parts += [
        "## Agreement\n",
        "Without position bias a judge chooses what is shown first half of the time, as it sees every comparison in "
        "both orders.\n",
        rows(
            ("judge", "same in both orders", "first one chosen", "ties", *UNREAD),
            [
                (
                    judge,
                    percent(own["consistent"]),
                    percent(own["first_chosen"]),
                    own["tie_answers"],
                    *(own[what] for what in UNREAD),
                )
                for judge, own in found["judges"].items()
            ],
        ),
    ]
    if found["between_judges"]:
        lines = [
            (" and ".join(row["raters"]), percent(row), "none" if row["kappa"] is None else f"{row['kappa']:.2f}")
            for row in found["between_judges"]
        ]
        parts.append(rows(("judges", "agree", "Cohen's kappa"), lines))
    for heading, name in (("the verifier", "with_verifier"), ("the labels of the data", "with_labels")):
        if found[name]["n"]:
            parts.append(f"Pairs that agree with {heading}: {percent(found[name])}.\n")
    if result["data"]["bad"]:
        bad = ", ".join(f"{count} {kind}" for kind, count in result["data"]["bad"].items())
        parts.append(f"Rows of the data that were left out: {bad}.\n")
    bills = [
        (
            one["model"],
            one["role"],
            one["asked"],
            one["read"],
            one["written"],
            money(one["paid"]),
            one["from_cache"],
            money(one["saved"]),
        )
        for one in result["cost"]["models"]
    ]
    heads = ("model", "role", "answers asked for", "tokens read", "written", "paid", "answers from the cache", "saved")
    parts += ["## Cost\n", rows(heads, bills), f"In all: {money(result['cost']['paid'])}.\n"]
    parts += [f"## Principles\n\nA comparison goes by {drawn}.\n", "".join(f"- {text}\n" for text in principles)]
    return "\n".join(parts)
