"""The `math` verifier on labelled answers: our own, and those in `../shared` where that stands beside the clone."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr import Completion, Sample, Scorer, Status, Verdict, api

CORPORA = sorted((Path(__file__).parents[1] / "corpora" / "math").glob("*.jsonl"))
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="there is no ../shared/data")

KNOWN_WRONG: dict[str, str] = {
    "adversarial": ("adv-0119 adv-0401 adv-0402 adv-0408 adv-0443 adv-0634 adv-0635"),
    "numbers": ("num-0155"),
    "responses": ("resp2-0073"),
    "structures": (
        "struct-0147 struct-0187 struct-0228 struct-0289 struct-0291 struct-0332 struct-0362 struct-0399 "
        "struct-0417 struct-0418 struct-0424 struct-0430 struct-0431 struct-0478 struct-0497 struct-0498 "
        "struct-0501 struct-0586 struct-0658"
    ),
}
"""Rows by file that the verifier gets wrong; a row that it gets right must leave."""


REALLY_EQUAL: set[tuple[str, str]] = set()
"""Pairs of references that are the same, though not by their letters."""


def bare(text: str) -> str:
    """A reference without what is not its value: blanks, the size of a fraction, dollars, degrees."""
    for mark, other in (("dfrac", "frac"), ("tfrac", "frac"), (" ", ""), ("\\!", ""), ("$", ""), ("^\\circ", "")):
        text = text.replace(mark, other)
    return text


def rows_of(*files: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row.get("core", True)]


def completion(row: dict[str, Any]) -> str:
    text: str = row["prediction"]
    if row.get("form", "answer") == "response" or "\\boxed" in text:
        return text
    return f"\\boxed{{{text.strip().strip('$')}}}"


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    with Scorer(timeout=10) as scorer:
        pairs = [(Completion(completion(row)), Sample(str(row.get("id")), answer=row["gold"])) for row in rows]
        return scorer.submit_batch("math", pairs).result(300)


def passed(verdicts: Iterable[Verdict]) -> list[bool]:
    return [verdict.status is Status.PASSED for verdict in verdicts]


@pytest.mark.parametrize("file", CORPORA, ids=lambda file: file.stem)
def test_our_own_corpora(file: Path) -> None:
    rows = rows_of(file)
    verdicts = judge(rows)
    assert all(verdict.valid for verdict in verdicts)
    wrong = {row["id"] for row, said in zip(rows, passed(verdicts), strict=True) if said != row["expected"]}
    assert wrong == set(KNOWN_WRONG.get(file.stem, "").split())
    assert max(verdict.duration for verdict in verdicts) < 2  # a tenth of that on a quiet machine


@needs_shared
def test_the_shared_development_rows() -> None:
    rows = rows_of(SHARED / "math_equiv_dev.jsonl")
    said = passed(judge(rows))
    accepted = sum(yes and not row["expected"] for yes, row in zip(said, rows, strict=True))
    right = sum(yes == row["expected"] for yes, row in zip(said, rows, strict=True))
    assert right / len(rows) >= 0.993
    assert accepted <= len(rows) / 1_000 + 1


@needs_shared
def test_the_shared_adversarial_rows() -> None:
    rows = rows_of(SHARED / "math_adversarial_dev.jsonl")
    verdicts = judge(rows)
    right = sum(yes == row["expected"] for yes, row in zip(passed(verdicts), rows, strict=True))
    assert right / len(rows) >= 0.99
    assert all(verdict.valid for verdict in verdicts)


@needs_shared
@pytest.mark.parametrize(("file", "key"), [("gsm8k_train_2000", "final"), ("math_1500", "answer")])
def test_references_pass_against_themselves_and_fail_against_others(file: str, key: str) -> None:
    golds = [row[key] for row in rows_of(SHARED / "tasks" / f"{file}.jsonl")]
    for spelled in (r"\boxed{%s}", "The final answer is $%s$.", "so it is \\[ \\boxed{ %s } \\]"):
        rows = [{"gold": gold, "prediction": spelled % gold, "form": "response"} for gold in golds]
        refused = [row["gold"] for row, yes in zip(rows, passed(judge(rows)), strict=True) if not yes]
        assert not refused
    others = [*golds[1:], golds[0]]
    rows = [{"gold": gold, "prediction": rf"\boxed{{{other}}}"} for gold, other in zip(golds, others, strict=True)]
    said = passed(judge(rows))
    wrong = {
        (gold, other) for gold, other, yes in zip(golds, others, said, strict=True) if yes and bare(gold) != bare(other)
    }
    assert wrong <= REALLY_EQUAL


@pytest.fixture
def no_shared_scorer() -> Iterator[None]:
    """Ends the workers of `rlvr.verify` afterwards, which other tests would count."""
    yield
    if api._shared is not None:
        api._shared.close()


def test_the_thread_does_not_matter(no_shared_scorer: None) -> None:
    rows = rows_of(*CORPORA)[::20]
    pairs = [(completion(row), {"answer": row["gold"]}) for row in rows]
    here = passed(rlvr.verify("math", text, **reference) for text, reference in pairs)
    found: list[list[bool]] = []

    def work() -> None:
        found.append(passed(rlvr.verify("math", text, **reference) for text, reference in pairs))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    async def gathered() -> list[Verdict]:
        return await asyncio.gather(
            *(asyncio.to_thread(rlvr.verify, "math", text, **reference) for text, reference in pairs)
        )

    assert found == [here]
    assert passed(asyncio.run(gathered())) == here
    assert passed(rlvr.verify_batch("math", pairs)) == here


def test_batches_are_fast() -> None:
    pairs = [(Completion(f"{n} + 0 = {n}, so the answer is {n}."), Sample("s", answer=str(n))) for n in range(4_000)]
    with Scorer(workers=1) as scorer:
        scorer.submit_batch("math", pairs[:500]).result(60)
        start = time.perf_counter()
        verdicts = scorer.submit_batch("math", pairs).result(60)
        rate = len(pairs) / (time.perf_counter() - start)
    assert all(passed(verdicts))
    assert rate > 5_000  # measured: 35,000 on one quiet core
