"""`rlvr verify`."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from rlvr.cli.errors import ENVIRONMENT
from rlvr.cli.flags import Json, Plugin, open_scorer
from rlvr.cli.output import say, say_json
from rlvr.errors import UsageError, nearest
from rlvr.registry import VerifierSpec, load_plugin, registry
from rlvr.types import Completion, Sample, Status

EXIT = {Status.PASSED: 0, Status.FAILED: 1}


def verify(
    name: Annotated[str, Parameter(help="A verifier; `rlvr verifiers` lists them.")],
    completion: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="What the model wrote; `-` reads it from stdin, as one that starts with `--` must be.",
        ),
    ],
    /,
    *reference: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="What to hold it against, as `--KEY VALUE` or `--KEY=VALUE`.")
    ],
    prompt: Annotated[str, Parameter(help="The prompt that was answered.")] = "",
    timeout: Annotated[float | None, Parameter(help="Seconds of wall clock.")] = None,
    sandbox: Annotated[str, Parameter(help="Sandbox for a verifier that runs code.")] = "",
    plugin: Plugin = (),
    json: Json = False,
) -> int:
    r"""Verify one completion and say why.

    For example `rlvr verify math '\boxed{1/2}' --answer 0.5`. Exits 0 when it passed, 1 when it failed, 3 when
    there is no verdict (error, timeout, abstained).

    Every other flag is a reference or an option of the verifier, `--max-words 5` being `max_words`. A value is read
    as JSON where it is JSON (`5`, `true`, `[1, 2]`), else as text; `--answer` and options that are text stay text.
    Flags of this command work on both sides of the completion.
    """
    if timeout is not None and not timeout > 0:
        raise UsageError(f"`--timeout` is `{timeout:g}`, but must be above 0", "give seconds")
    for path in plugin:
        load_plugin(path)
    spec = registry().verifier(name)
    text, given = arguments([completion, *reference])
    values = {key: value_of(spec, key, text) for key, text in given.items()}
    check_names(spec, values, {*given, *(("prompt",) if prompt else ())})
    options = {key: value for key, value in values.items() if key in spec.options}
    if timeout is not None and "timeout" in spec.options:
        options["timeout"], timeout = timeout, None
    meta = {key: value for key, value in values.items() if key not in spec.options}
    sample = Sample("verify", prompt, meta.pop("answer", None), meta)
    with open_scorer({"scorer.sandbox": sandbox} if sandbox else {}, workers=1) as scorer:
        verdict = scorer.submit(name, Completion(text), sample, options, timeout).result()
    if json:
        say_json(
            {
                "verifier": name,
                "status": verdict.status,
                "score": verdict.score,
                "passed": verdict.passed,
                "detail": verdict.detail,
                "parts": dict(verdict.parts),
                "duration": verdict.duration,
            }
        )
    else:
        say(
            f"{verdict.status}  {verdict.score:.2f}  {verdict.detail}"
            if verdict.valid
            else f"{verdict.status}  {verdict.detail}"
        )
    return EXIT.get(verdict.status, ENVIRONMENT)


def arguments(tokens: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The completion and the references in what was left on the command line, in whatever order.

    Raises:
        UsageError: No completion or two, a flag without a value, or one that is given twice.
    """
    completions: list[str] = []
    given: dict[str, str] = {}
    rest = iter(tokens)
    for token in rest:
        if not token.startswith("--"):
            completions.append(token)
            continue
        flag, equals, text = token.partition("=")
        key = flag[2:].replace("-", "_")
        value = text if equals else next(rest, None)
        if value is None:
            raise UsageError(f"`{flag}` has no value", f"write `{flag} VALUE`, or `{flag}=VALUE`")
        if not key.isidentifier():
            raise UsageError(f"`{flag}` cannot name a reference", "use letters, digits and hyphens")
        if key in given:
            raise UsageError(f"`{flag}` is given twice", "give it once")
        given[key] = value
    if len(completions) > 1:
        both = " and ".join(f"`{completion}`" for completion in completions[:2])
        raise UsageError(f"there is more than one completion: {both}", "quote it as one, or give `-` to read stdin")
    if not completions:
        raise UsageError("there is no completion", "give what the model wrote, or `-` to read stdin")
    return read_stdin() if completions == ["-"] else completions[0], given


def read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8: {error.reason}", "save it as UTF-8") from None


def value_of(spec: VerifierSpec, key: str, text: str) -> Any:
    """The value behind `--key`.

    Raises:
        UsageError: An option's value is of another type than its default.
    """
    default = spec.options.get(key)
    if key == "answer" or isinstance(default, str):
        return text
    try:
        value = json_format.loads(text, parse_constant=lambda word: word)
    except (ValueError, RecursionError):
        value = text
    for kind, wanted in ((bool, "`true` or `false`"), (int | float, "a number")):
        if isinstance(default, kind):
            if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
                raise UsageError(
                    f"`{flag_of(key)}` is `{text}`, but must be {wanted}", f"`rlvr verifiers show {spec.name}`"
                )
            break
    return value


def check_names(spec: VerifierSpec, values: Mapping[str, Any], given: set[str]) -> None:
    """Every reference that the verifier needs must be there, and none may look like a misspelt one.

    Raises:
        UsageError: Says which flag to give.
    """
    known = {*spec.reference, *spec.optional, *spec.options}
    for key in values:
        near = nearest(key, known - given)
        if key not in known and near:
            raise UsageError(f"`{spec.name}` takes no `{flag_of(key)}`", f"did you mean `{flag_of(near)}`?")
    missing = [f"`{flag_of(key)}`" for key in spec.reference if key not in given]
    if missing:
        example = " ".join(f"{flag_of(key)} ..." for key in spec.reference)
        raise UsageError(
            f"the verifier `{spec.name}` needs {' and '.join(missing)}",
            f"write `rlvr verify {spec.name} COMPLETION {example}`",
        )


def flag_of(key: str) -> str:
    return "--" + key.replace("_", "-")
