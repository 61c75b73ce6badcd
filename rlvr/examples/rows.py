"""Rows to learn from: a demonstration, a pair, a label; and what was wrong with those that cannot be used.

    Demonstration   prompt, completion                     `rlvr sft`
    Pair            prompt, chosen, rejected               `rlvr prefer`, `rlvr reward`
    Label           prompt, completion, good or bad        `rlvr prefer --method kto`

A prompt is a chat, a list of messages; a completion is the text of the assistant's turn. A row that cannot be used is a
`Bad` one: it is counted by its kind and named by its place, and a stage stops for it unless told to skip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlvr.errors import DataError
from rlvr.types import Message

NAMED = 5
"""How many bad rows of each kind a message names."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What to write. `where` is the row's place, such as "`a.jsonl` line 3"; `tools` are what the prompt shows of them,
    in the form that chat templates take."""

    prompt: tuple[Message, ...]
    completion: str
    where: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt, the better one first. `extra` are the row's other columns, such as `annotator`."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    where: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a row of a `pairs.jsonl`, which TRL reads too."""
        turn = [{"role": "assistant"}]
        return {
            **self.extra,
            "prompt": [dict(message) for message in self.prompt],
            "chosen": [{**turn[0], "content": self.chosen}],
            "rejected": [{**turn[0], "content": self.rejected}],
        }


@dataclass(frozen=True, slots=True)
class Label:
    """A completion and whether it is good."""

    prompt: tuple[Message, ...]
    completion: str
    good: bool
    where: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": [dict(message) for message in self.prompt],
            "completion": [{"role": "assistant", "content": self.completion}],
            "label": self.good,
        }


def key_of(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """What a prompt is known by: two that are equal have the same."""
    return tuple((message["role"], message["content"]) for message in prompt)


def squeezed(text: str) -> str:
    """The text with each run of white space as one space; completions that agree in it count as the same."""
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be used.

    Attributes:
        kind: `not-utf8`, `not-json`, `not-csv`, `missing-column`, `wrong-type`, `empty-prompt`, `empty-completion`,
            `chosen-equals-rejected`, `special-token` or `too-long`.
        where: The row's place, such as "`a.jsonl` line 3".
        detail: What is wrong, in words.
    """

    kind: str
    where: str
    detail: str


E = TypeVar("E", Demonstration, Pair, Label)


@dataclass
class Report:
    """What became of the rows of a source.

    Attributes:
        source: Where they came from, in words.
        rows: How many there were.
        bad: Those that cannot be used.
        facts: What else is worth knowing, such as lengths.
    """

    source: str
    rows: int = 0
    bad: list[Bad] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Bad rows by kind, the commonest first."""
        return dict(Counter(bad.kind for bad in self.bad).most_common())

    def summary(self) -> str:
        """One line: how many of how many, which kinds, and the first rows of each."""
        parts = []
        for kind, count in self.counts.items():
            places = [bad.where.removeprefix(f"{self.source} ") for bad in self.bad if bad.kind == kind]
            more = ", ..." if count > NAMED else ""
            parts.append(f"{count} {kind} ({', '.join(places[:NAMED])}{more})")
        return f"{len(self.bad)} of {self.rows} rows of {self.source} cannot be used: " + "; ".join(parts)

    def lines(self) -> list[str]:
        """As Markdown, for a report."""
        said = [f"{self.rows} rows of {self.source}, {len(self.bad)} of them unusable."]
        if self.bad:
            said += ["", self.summary() + "."]
        flat = {
            f"{name} ({part})" if part else name: value
            for name, own in self.facts.items()
            for part, value in (own.items() if isinstance(own, Mapping) else [("", own)])
        }
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in flat.items()}
        facts = [f"* {name.replace('_', ' ')}: {value}" for name, value in shown.items()]
        return [*said, "", *facts] if facts else said

    def refuse(self, rows: Sequence[object], action: str) -> None:
        """Stops for bad rows unless they are to be skipped, and where no good one is left.

        Args:
            rows: The good ones.
            action: `refuse` or `skip`.

        Raises:
            DataError: Names the rows.
        """
        if self.bad and action == "refuse":
            raise DataError(self.summary(), "mend them, or leave them out with `--bad-rows skip`")
        if not rows:
            said = self.summary() if self.bad else f"{self.source} has no rows"
            if not self.bad and (alone := self.facts.get("labels_without_partner")):
                raise DataError(
                    f"{alone} labels of {self.source} make no pair: no prompt has a good and a bad one",
                    "`rlvr prefer --method kto` learns from labels as they are",
                )
            raise DataError(said, "give at least one row that can be used")

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for `data.json`: every bad row is in it."""
        return {
            "source": self.source,
            "rows": self.rows,
            "usable": self.rows - len(self.bad),
            "bad": self.counts,
            "bad_rows": [{"kind": b.kind, "where": b.where, "detail": b.detail} for b in self.bad],
            **self.facts,
        }
