"""The verifier `reward-model`: asks a served reward model, which was learned from preferences, for a score."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
from typing import Any

from rlvr import Completion, Sample, Verdict, verifier

SCHEME = "unix:"
ANSWER_LIMIT = 1 << 16
PATIENCE = 20.0
"""Seconds to wait for a server that is being started again; the verification's own clock is mostly shorter."""

LEARNED = "learned score, not a check"

_links: dict[tuple[int, str], Any] = {}


@verifier("reward-model", timeout=30.0, learned=True)
def reward_model(completion: Completion, sample: Sample, *, model: str = "", threshold: float = 0.5) -> Verdict:
    """A learned score: what a reward model says of a completion. It checks nothing.

    The model was trained by `rlvr reward` on pairs of completions, and is right only about text like that in its pairs.
    A policy that is trained against it for long finds text that it likes and people do not, so anchor such a run by its
    KL, or make the score one part of a reward whose other parts are checked.

    The raw score of the model is brought to mean 0 and deviation 1 of its validation pairs; the verdict's score is the
    sigmoid of that. `parts` has `learned`, `raw` (the normalised score, which the shaper `learned` pays) and `logit`
    (as the model gave it). The scorer serves each model from one process, in batches. The completion is read as plain
    text: special tokens spelled out in it are no special tokens.

    Abstains on a completion of several turns, and on one that is longer than the model reads.

    Options:
        model: The folder of the model, the `final/` of a run of `rlvr reward`; or the address of one that is served.
        threshold: Score from which the verdict is passed.
    """
    if completion.turns:
        return Verdict.abstain("a reward model reads one turn, and this has several", {"learned": True})
    if not model.startswith(SCHEME):
        return Verdict.error("the scorer did not serve the model", {"learned": True})
    try:
        answer = ask(model, {"prompt": sample.prompt, "completion": completion.text})
    except (OSError, ValueError) as error:
        return Verdict.error(f"the reward model's server does not answer: {error}", {"learned": True})
    if "abstained" in answer:
        return Verdict.abstain(str(answer["abstained"]), {"learned": True})
    raw, logit = answer.get("score"), answer.get("raw")
    if not isinstance(raw, float) or not math.isfinite(raw):
        return Verdict.error(f"the reward model has no score: {answer.get('error', answer)}"[:500], {"learned": True})
    score = 1 / (1 + math.exp(-raw)) if raw > -700 else 0.0
    side = "at least" if score >= threshold else "below"
    return Verdict.of(
        score >= threshold,
        f"{LEARNED}: {raw:+.2f} deviations from the mean, {score:.2f} is {side} {threshold:g}",
        score,
        {"learned": True, "raw": raw, "logit": logit},
    )


def ask(address: str, request: Any) -> dict[str, Any]:
    """The server's answer, over a connection that is kept. A connection that turns out to be dead is opened again once.

    Raises:
        OSError, ValueError: There is no server, or it sends what is no answer.
    """
    key = (os.getpid(), address)
    line = json.dumps(request).encode() + b"\n"
    for fresh in (False, True):
        if key not in _links or fresh:
            _links[key] = connect(address.removeprefix(SCHEME))
        try:
            link = _links[key]
            link.write(line)
            link.flush()
            answer = link.readline(ANSWER_LIMIT)
        except OSError:
            answer = b""
        if answer.endswith(b"\n"):
            found = json.loads(answer)
            if isinstance(found, dict):
                return found
            raise ValueError("its answer is no object")
        with contextlib.suppress(OSError):
            _links.pop(key).close()
    raise OSError("it hung up; it is started again a few times")


def connect(path: str) -> Any:
    """A connection to the socket; waits a while for one that is being started again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(path)
            with link:
                return link.makefile("rwb")
        except OSError:
            link.close()
            if why := epitaph(path):
                raise OSError(f"it is gone for good: {why}") from None
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def epitaph(path: str) -> str:
    """Why there will be no server at that socket any more; empty where there may be."""
    with contextlib.suppress(OSError), open(os.path.join(os.path.dirname(path), "gone"), encoding="utf-8") as told:
        return told.read()[:300]
    return "" if os.path.isdir(os.path.dirname(path)) else "its directory was removed"
