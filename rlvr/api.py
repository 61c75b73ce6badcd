"""One call for scripts and tests: verify a completion, on a scorer that all callers share.

The scorer starts on first use with one worker, takes on others when there is a backlog, and is closed at
exit. Its settings come from the environment, such as `RLVR_SCORER_TIMEOUT` or `RLVR_SANDBOX_IMAGE`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from rlvr.composition import leaves
from rlvr.config import from_environment, resolve
from rlvr.errors import UsageError
from rlvr.registry import VerifierSpec, registry
from rlvr.scoring import Scorer
from rlvr.types import Completion, Composition, Sample, Verdict

_lock = threading.Lock()
_shared: Scorer | None = None


def verify(name: str | Composition, completion: str | Completion, /, **reference: Any) -> Verdict:
    """What the verifier `name` says of one completion. Safe from any thread; it waits for the verdict.

    Whatever goes wrong in the verifier is an `error` or `timeout` verdict, not an exception.

    Args:
        name: A registered verifier; `rlvr verifiers` lists them. Or a composition, whose parts have their own options.
        completion: The text, or a `Completion` where the verifier looks at more than that.
        reference: What to hold it against. `answer` and `prompt` become those of the sample, options of the
            verifier are passed as such, all others become the sample's `meta`. JSON values only.

    Raises:
        UsageError: The completion is no text, a reference that the verifier needs is missing, or one is not
            JSON.
        UnknownNameError: There is no such verifier.
        PluginError: It belongs to a broken plugin.
        MissingDependencyError: It runs code, and there is no safe sandbox.
    """
    return _submit(name, *_meant(name, completion, reference)).result()


def verify_batch(name: str | Composition, pairs: Iterable[tuple[str | Completion, Mapping[str, Any]]]) -> list[Verdict]:
    """Verdicts of many `(completion, reference)` pairs, in their order.

        verify_batch("math", [(r"\\boxed{1/2}", {"answer": "0.5"}), ("the answer is 3", {"answer": "4"})])

    Raises:
        The same as `verify`, before anything is verified; the message says which pair.
    """
    for one in leaves(name):
        registry().verifier(str(one.verifier))
    jobs = []
    for index, pair in enumerate(pairs):
        try:
            completion, reference = pair
        except (TypeError, ValueError):
            raise UsageError(
                f"pair {index} is a `{type(pair).__name__}`", "give `(completion, {'answer': ...})` pairs"
            ) from None
        if not isinstance(reference, Mapping):
            raise UsageError(
                f"the reference of pair {index} is a `{type(reference).__name__}`",
                "give a mapping, such as `{'answer': '42'}`",
            )
        try:
            jobs.append(_meant(name, completion, reference))
        except UsageError as error:
            raise UsageError(f"pair {index}: {error.message}", error.hint) from None
    first = jobs[0][2] if jobs else {}
    if all(options == first for _, _, options in jobs):
        with _lock:
            batch = _scorer().submit_batch(name, [(completion, sample) for completion, sample, _ in jobs], first)
        return batch.result()
    return [future.result() for future in [_submit(name, *job) for job in jobs]]


def prepared(
    spec: VerifierSpec, completion: str | Completion, reference: Mapping[str, Any]
) -> tuple[Completion, Sample, dict[str, Any]]:
    """The completion, sample and options that one call of `verify` means.

    Raises:
        UsageError: The completion is no text, or a reference that the verifier needs is missing.
    """
    if isinstance(completion, str):
        completion = Completion(completion)
    elif not isinstance(completion, Completion):
        raise UsageError(
            f"a completion is text or a `Completion`, not a `{type(completion).__name__}`",
            "pass what the model wrote",
        )
    missing = [key for key in spec.reference if key not in reference]
    if missing:
        example = ", ".join(f"{key}=..." for key in spec.reference)
        raise UsageError(
            f"the verifier `{spec.name}` needs " + " and ".join(f"`{key}`" for key in missing),
            f"call `verify({spec.name!r}, completion, {example})`",
        )
    options = {k: value for k, value in reference.items() if k in spec.options and k not in spec.reference}
    meta = {k: value for k, value in reference.items() if k not in options}
    prompt, answer = meta.pop("prompt", ""), meta.pop("answer", None)
    return completion, Sample("verify", prompt, answer, meta), options


def _meant(
    name: str | Composition, completion: str | Completion, reference: Mapping[str, Any]
) -> tuple[Completion, Sample, dict[str, Any]]:
    """What one call means for a verifier, or for all parts of a composition, which share the sample.

    Raises:
        UsageError: As `prepared` does, or a keyword is an option, which a composition's parts have from `part`.
    """
    if not isinstance(name, Composition):
        return prepared(registry().verifier(name), completion, reference)
    parts = [(registry().verifier(str(one.verifier)), one.options) for one in leaves(name)]
    shared = dict.fromkeys(key for spec, _ in parts for key in spec.reference)
    for spec, given in parts:
        prepared(spec, completion, {key: value for key, value in given.items() if key in shared} | dict(reference))
        for key in reference:
            if key in spec.options and key not in shared:
                raise UsageError(
                    f"`{key}` is an option of `{spec.name}`, which is one part of a composition",
                    f"give it to the part: `part({spec.name!r}, {key}=...)`",
                )
    rest = {key: value for key, value in reference.items() if key not in ("prompt", "answer")}
    sample = Sample("verify", reference.get("prompt", ""), reference.get("answer"), rest)
    return completion if isinstance(completion, Completion) else Completion(completion), sample, {}


def _submit(
    name: str | Composition, completion: Completion, sample: Sample, options: dict[str, Any]
) -> Future[Verdict]:
    """Queues a verification on the shared scorer, which cannot be replaced in between."""
    with _lock:
        return _scorer().submit(name, completion, sample, options)


def _scorer() -> Scorer:
    """The shared scorer; the caller holds the lock.

    A new one takes its place in a forked child, after `load_plugin`, and when no worker could be started.
    The old one is closed when it has nothing left to do, at exit at the latest.
    """
    global _shared
    old = _shared
    if old is None or old.outdated or old.registry is not registry():
        settings = {
            name: text
            for name, text in from_environment(os.environ).items()
            if name.startswith(("scorer.", "sandbox.")) and name != "scorer.missing_limit"
        }
        config = resolve([("environment", settings)]).config
        _shared = Scorer(
            workers=config.scorer.workers,
            timeout=config.scorer.timeout,
            memory_mb=config.scorer.memory_mb,
            sandbox=config.scorer.sandbox,
            sandbox_options=asdict(config.sandbox),
            eager=False,
        )
        if old is not None and not old.pending:
            old.close()
    assert _shared is not None
    return _shared


def _after_fork() -> None:
    global _lock, _shared
    _lock = threading.Lock()
    _shared = None


os.register_at_fork(after_in_child=_after_fork)
