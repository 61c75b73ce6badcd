"""What a verifier is tried with: completions with their samples, made of its kit and of labelled cases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlvr.api import prepared
from rlvr.errors import DataError, PluginError, UsageError
from rlvr.registry import VerifierSpec
from rlvr.types import Case, Completion, Kit, Law, Sample, Status

NO_OPS = ("", " \n\t\n", "I don't know.", "...", "As an AI language model, I cannot help with that.")
"""What a model says that has nothing to say."""


@dataclass(frozen=True)
class Trial:
    """One verification to make.

    Attributes:
        completion, sample, options: What the scorer gets.
        reference: The same as the caller gave it, for reports.
        kind: What the completion is an example of.
        right: Its label, where it has one.
    """

    completion: Completion
    sample: Sample
    options: Mapping[str, Any]
    reference: Mapping[str, Any]
    kind: str = ""
    right: bool | None = None

    @property
    def text(self) -> str:
        return self.completion.text

    @property
    def wanted(self) -> Status | None:
        return None if self.right is None else Status.PASSED if self.right else Status.FAILED

    def with_text(self, text: str, kind: str, right: bool | None = None) -> Trial:
        """Another completion against the same reference."""
        return replace(self, completion=Completion(text), kind=kind, right=right)


def trial(spec: VerifierSpec, case: Case) -> Trial:
    """The trial that a case stands for.

    Raises:
        UsageError: A reference that the verifier needs is missing, or something in it is not what it should be.
    """
    completion, sample, options = prepared(spec, case.completion, case.reference)
    return Trial(completion, sample, options, case.reference, case.kind, case.passes)


def no_reference() -> Trial:
    """An empty completion against nothing."""
    return Trial(Completion(""), Sample("check"), {}, {})


def kit_of(spec: VerifierSpec) -> Kit | None:
    """The verifier's kit, looked at closely; None where it has none.

    Raises:
        PluginError: It raises, or is not made of cases and laws.
    """
    if spec.kit is None:
        return None
    who = f"the kit of the verifier `{spec.name}` ({spec.origin})"
    try:
        kit = spec.kit()
    except Exception as error:
        raise PluginError(f"{who} raised {type(error).__name__}: {error}", "`--debug` shows the traceback") from error
    if not isinstance(kit, Kit):
        raise PluginError(f"{who} is a `{type(kit).__name__}`", "return a `rlvr.Kit`")
    groups: tuple[tuple[str, Any, type], ...] = (("cases", kit.cases, Case), ("hacks", kit.hacks, Case))
    for what, items, kind in (*groups, ("laws", kit.laws, Law)):
        if not isinstance(items, (list, tuple)):
            raise PluginError(f"{who} has a `{type(items).__name__}` as `{what}`", "give a list")
        for item in items:
            if not isinstance(item, kind):
                raise PluginError(
                    f"{who} has a `{type(item).__name__}` in `{what}`", f"make it a `rlvr.{kind.__name__}`"
                )
            if isinstance(item, Case) and (problem := _problem(item)):
                raise PluginError(
                    f"{who} has a case that cannot be used: {problem}",
                    "write `Case(text, passes, {...})`, with JSON values only",
                )
    if {case.passes for case in kit.cases} != {True, False}:
        raise PluginError(f"{who} needs right cases and wrong ones", "label at least one completion of each kind")
    if paid := next((case for case in kit.hacks if case.passes), None):
        raise PluginError(f"{who} has a hack that passes: {paid.completion[:60]!r}", "a hack has to fail")
    return kit


def _problem(case: Case) -> str:
    """What is wrong with a case of a kit, if anything is."""
    if not isinstance(case.completion, str):
        return f"its completion is a `{type(case.completion).__name__}`, not text"
    if not isinstance(case.passes, bool):
        return f"its `passes` is `{case.passes!r}`, not True or False"
    if not isinstance(case.reference, Mapping):
        return f"its reference is a `{type(case.reference).__name__}`, not a mapping"
    try:
        json.dumps(dict(case.reference))
    except (TypeError, ValueError, RecursionError) as error:
        return f"its reference is no JSON: {error}"
    return ""


def kit_trials(spec: VerifierSpec, cases: Iterable[Case]) -> list[Trial]:
    """The trials of a kit's cases.

    Raises:
        PluginError: A case lacks a reference.
    """
    found = []
    for number, case in enumerate(cases):
        try:
            found.append(trial(spec, case))
        except UsageError as error:
            raise PluginError(
                f"case {number} of the kit of `{spec.name}` ({case.completion[:60]!r}): {error.message}",
                "give it in the case's `reference`",
            ) from None
    return found


def one_per_reference(trials: Iterable[Trial]) -> list[Trial]:
    """The first trial of each different reference."""
    first: dict[str, Trial] = {}
    for one in trials:
        first.setdefault(key_of(one.reference), one)
    return list(first.values())


def no_op_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Every no-op completion against every reference, less those references where silence is right.

    A reference is such a one if one of its own right cases is a no-op, or says that it is of the kind `no-op`.
    """
    silent = {
        key_of(one.reference) for one in trials if one.right and (one.text.strip() in _SAID or one.kind == "no-op")
    }
    found = []
    for one in one_per_reference(trials):
        if key_of(one.reference) not in silent:
            echo = [one.sample.prompt] if isinstance(one.sample.prompt, str) and one.sample.prompt.strip() else []
            found += [one.with_text(text, "no-op", False) for text in NO_OPS]
            found += [one.with_text(text, "the prompt", False) for text in echo]
    return found


_SAID = {text.strip() for text in NO_OPS}


def key_of(reference: Mapping[str, Any]) -> str:
    return json.dumps(reference, sort_keys=True, default=str)


def texts_in(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in (*texts_in(key), *texts_in(item))]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts_in(item)]
    return [] if value is None else [str(value)]


def read_cases(path: str | Path, spec: VerifierSpec) -> list[Trial]:
    """Labelled cases of a JSON-lines file: `{"completion": "...", "passes": true, ...references, "kind": "..."}`.

    Raises:
        DataError: The file cannot be read, or a row cannot be used; names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").removeprefix("\ufeff").rstrip().split("\n")
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}", "give `--cases` a file of JSON lines") from None
    except UnicodeDecodeError as error:
        raise DataError(f"`{path}` is not UTF-8: {error.reason}", "save it as UTF-8") from None
    if lines == [""]:
        raise DataError(f"`{path}` has no cases", "give `--cases` a file of JSON lines")
    return [_read_case(f"`{path}` line {number}", line, spec) for number, line in enumerate(lines, 1)]


def _read_case(where: str, line: str, spec: VerifierSpec) -> Trial:
    hint = 'write `{"completion": "...", "passes": true, ...}`, what it is held against beside them'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: broken JSON: {error}", hint) from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: a case is an object", hint)
    for name, kind, what in (("completion", str, "text"), ("passes", bool, "true or false"), ("kind", str, "text")):
        if name not in row and name != "kind":
            raise DataError(f"{where}: there is no `{name}`", hint)
        if not isinstance(row.get(name, ""), kind) and name in row:
            raise DataError(f"{where}: `{name}` must be {what}, not `{json.dumps(row[name])[:60]}`", hint)
    reference = {name: value for name, value in row.items() if name not in ("completion", "passes", "kind")}
    try:
        return trial(spec, Case(row["completion"], row["passes"], reference, row.get("kind", "")))
    except UsageError as error:
        raise DataError(f"{where}: {error.message}", f"a row has {_names(spec)} beside its `completion`") from None


def _names(spec: VerifierSpec) -> str:
    return " and ".join(f"`{name}`" for name in spec.reference) or "nothing"
