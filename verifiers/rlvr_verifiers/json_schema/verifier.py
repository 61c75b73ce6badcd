"""The verifier itself: what it is given, and what it makes of what it finds."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Literal

from rlvr import Completion, Sample, Verdict, verifier

from ..jsontext import Refused, read, shown
from ..schemas import Checker, Report, checker
from .compare import Outcome, Rules
from .extract import Found, extract
from .kit import kit

FORM_SHARE = 0.1
"""What a valid value has of the score whose fields are all wrong."""

_MISSING = object()
_encode = json.JSONEncoder(allow_nan=False).encode
_rules: dict[str, Rules] = {}


def reference_of(sample: Sample) -> Any:
    """The reference value of a sample, or `_MISSING`.

    Raises:
        ValueError: It is text that is no JSON.
    """
    if "reference" in sample.meta:
        return sample.meta["reference"]
    if sample.answer is None:
        return _MISSING
    if not isinstance(sample.answer, str):
        return sample.answer
    try:
        return read(sample.answer)
    except Refused as problem:
        raise ValueError(f"the reference `answer` is text, but no JSON: {problem}") from None


def _gold(sample: Sample) -> str:
    """The reference as JSON; nothing where there is only a schema."""
    reference = reference_of(sample)
    return "" if reference is _MISSING else json.dumps(reference, ensure_ascii=False)


def _spoil(sample: Sample) -> str | None:
    """The reference with one leaf changed, or a member left out where there is no leaf to change."""
    reference = reference_of(sample)
    if reference is _MISSING:
        return None
    spoiled = json.loads(json.dumps(reference))
    leaves = list(_leaves(spoiled))
    if not leaves:
        return "[0]" if spoiled == {} else "{}"
    holder, key = random.Random(sample.id).choice(leaves)
    if holder is None:
        return json.dumps(_changed(spoiled))
    holder[key] = _changed(holder[key])
    return json.dumps(spoiled, ensure_ascii=False)


def _leaves(value: Any, holder: Any = None, key: Any = None) -> Any:
    """`(holder, key)` of everything that is neither an object nor an array."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _leaves(member, value, name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, value, index)
    else:
        yield holder, key


def _changed(leaf: Any) -> Any:
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int | float):
        return 2 * leaf + 7
    return f"{leaf} or not" if isinstance(leaf, str) else "null"


@verifier("json-schema", reference=["schema"], optional=["reference", "answer"], gold=_gold, spoil=_spoil, kit=kit)
def json_schema(
    completion: Completion,
    sample: Sample,
    *,
    schema: Any = None,
    mode: Literal["strict", "extract"] = "extract",
    formats: bool = False,
    registry: Any = None,
    compare: Any = None,
    tolerance: float = 0.0,
) -> Verdict:
    """Passes when the completion is JSON that `schema` allows, and equals `reference` where there is one.

    The JSON is the whole completion, else the last fenced block, else the only object or array in the text; what
    stands before `</think>` does not count. It is read strictly: duplicate keys, NaN, trailing commas and comments are
    refused. A reference is `reference`, else `answer` (text is read as JSON). The score of what fails is the share of
    the constraints that hold, and with a reference mostly the share of the fields that are right.

    Options:
        schema: The schema of all samples, as an object, true or false, or as JSON text; a sample's own goes first.
        mode: `strict` for the whole completion or nothing.
        formats: Whether `format` counts.
        registry: Other schemas by URI for `$ref`, as an object or JSON text. Nothing is ever fetched.
        compare: Rules for fields by path, such as `{"price": 0.01, "tags": "set", "name": "text"}`.
        tolerance: How far any number may be off from the reference.
    """
    try:
        if mode not in ("strict", "extract"):
            raise ValueError(f"the option `mode` must be `strict` or `extract`, not {shown(mode)}")
        check = checker(
            _as_json("schema", sample.meta.get("schema", schema)), formats=bool(formats), registry=_registry(registry)
        )
        rules = _read_rules(compare, tolerance)
        reference = reference_of(sample)
        if reference is not _MISSING:
            _check_reference(reference, check, rules)
    except ValueError as error:  # the task's fault, whatever the completion says
        return Verdict.error(str(error))
    found = extract(completion.text, mode)
    if found.problem:
        parts: dict[str, Any] = {"found": found.how, "problem": found.problem.rule, "valid": False, "schema": 0.0}
        if reference is not _MISSING:
            parts["fields"] = 0.0
        where = "no JSON in the last block" if found.how == "fence" else "no JSON"
        return Verdict.of(False, f"{where}: {found.problem}", score=0.0, parts=parts)
    report = check.report(found.value)
    outcome = None if reference is _MISSING else rules.compare(reference, found.value)
    return _verdict(found, report, outcome)


def _check_reference(reference: Any, check: Checker, rules: Rules) -> None:
    """Raises where nothing can be right: nothing equals the reference, or the schema does not allow what does.

    By rules of comparison something else may equal the reference, so that it need not be valid itself.
    """
    try:
        _encode(reference)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the `reference` is no JSON: {error}") from None
    if not rules.given and not rules.default.absolute and not check.valid(reference):
        path, message = check.problems(reference, 1)[0]
        raise ValueError(f"the schema does not allow the `reference`: `{path}` {message}")


def _verdict(found: Found, report: Report, outcome: Outcome | None) -> Verdict:
    valid = not report.failed
    parts: dict[str, Any] = {"found": found.how, "valid": valid, "schema": round(report.share, 6)}
    said = []
    if not valid:
        first = report.problems[0]
        count = f" (the first of {report.failed} problems)" if report.failed > 1 else ""
        said.append(f"`{first.path}` {first.message}{count}")
        parts["problems"] = [f"{path} {message}" for path, message in report.problems[:5]]
    score = report.share
    if outcome is not None:
        parts["fields"] = round(outcome.share, 6)
        score *= FORM_SHARE + (1 - FORM_SHARE) * outcome.share
        if not outcome.equal:
            said.append(f"{outcome.difference} ({outcome.share:.0%} of the fields are right)")
    if not said:
        equal = "" if outcome is None else " and equals the reference"
        return Verdict.of(True, f"the JSON is valid{equal} ({found.how})", parts=parts)
    return Verdict.of(False, "; ".join(said), score=min(score, 0.99), parts=parts)


def _registry(registry: Any) -> Mapping[str, Any] | None:
    if registry is None:
        return None
    registry = _as_json("registry", registry)
    if not isinstance(registry, dict):
        raise ValueError("the option `registry` must give a schema for each URI")
    return registry


def _as_json(name: str, value: Any) -> Any:
    """A value that may be given as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return read(value)
    except Refused as problem:
        raise ValueError(f"`{name}` is text, but no JSON: {problem}") from None


def _read_rules(compare: Any, tolerance: float) -> Rules:
    key = repr((compare, tolerance))
    found = _rules.get(key)
    if found is None:
        if len(_rules) > 256:
            _rules.clear()
        found = _rules[key] = Rules(_as_json("compare", compare), tolerance)
    return found
