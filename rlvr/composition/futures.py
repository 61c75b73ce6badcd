"""Verifying the parts of a composition, and many verifications under one future. No threads of our own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from rlvr.composition.verdicts import combine, opens
from rlvr.composition.writing import refuse
from rlvr.types import Composition, Part, Verdict

T = TypeVar("T")


def composed(composition: Composition, submit: Callable[[Part], Future[Verdict]]) -> Future[Verdict]:
    """The verdict of a composition, once its parts have theirs.

    The parts are submitted at once, those of a gate one after the other. A part whose future is cancelled or fails has
    an error verdict. Cancelling what is returned cancels the parts.

    Args:
        composition: The composition.
        submit: Queues the verification of one part. It is called in this thread, and for what stands behind a gate in
            the thread that resolves the futures.

    Raises:
        UsageError: The composition cannot be used.
        RlvrError: As `submit` does here; what it raises later becomes an error verdict.
    """
    refuse(composition)
    names = list(composition.parts)
    waves = iter([[name] for name in names] if composition.rule == "gate" else [names])
    verdicts: dict[str, Verdict] = {}
    whole: Future[Verdict] = Future()

    def ask(wave: Sequence[str]) -> None:
        futures: list[Future[Verdict]] = []
        try:
            for name in wave:
                futures.append(submit(composition.parts[name]))
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        batch = gathered(futures)
        whole.add_done_callback(lambda _: whole.cancelled() and batch.cancel())
        batch.add_done_callback(lambda _: heard(wave, batch))

    def heard(wave: Sequence[str], batch: Future[list[Verdict]]) -> None:
        if batch.cancelled():  # as the whole was
            return
        verdicts.update(zip(wave, batch.result(), strict=True))
        following = next(waves, None) if opens(composition.parts[wave[-1]], verdicts[wave[-1]]) else None
        if following:
            try:
                ask(following)
                return
            except Exception as error:
                verdicts[following[0]] = Verdict.error(f"it could not be submitted: {_cause(error)}")
        _settle(whole, lambda: combine(composition, verdicts))

    ask(next(waves))
    return whole


def gathered(futures: Sequence[Future[Verdict]]) -> Future[list[Verdict]]:
    """One future for the verdicts of many, in their order. Cancelling it cancels them.

    A future that is cancelled or fails counts as an error verdict, so that the others are not lost with it.
    """
    whole: Future[list[Verdict]] = Future()
    lock = threading.Lock()
    left = len(futures)

    def heard(_: Future[Verdict]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = not left
        if last:
            _settle(whole, lambda: [_verdict_of(future) for future in futures])

    whole.add_done_callback(lambda _: whole.cancelled() and [future.cancel() for future in futures])
    for future in futures:
        future.add_done_callback(heard)
    if not futures:
        whole.set_result([])
    return whole


def _settle(future: Future[T], make: Callable[[], T]) -> None:
    """Gives a future its result, or the exception that came instead; one that was cancelled stays so."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = make()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _verdict_of(future: Future[Verdict]) -> Verdict:
    if future.cancelled():
        return Verdict.error("its verification was cancelled")
    error = future.exception()
    return future.result() if error is None else Verdict.error(_cause(error))


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
