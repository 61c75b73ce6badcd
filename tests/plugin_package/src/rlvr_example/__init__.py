"""An rlvr plugin with one of everything."""

from rlvr import Completion, Sample, Sandbox, Verdict, hookimpl, sandbox, shaper, verifier
from rlvr_example.process import PlainProcess


@verifier("word-limit", reference=["max_words"])
def word_limit(completion: Completion, sample: Sample, *, count_numbers: bool = True) -> Verdict:
    """Passes when the reply keeps to `max_words` words.

    Numbers count as words unless `count_numbers` is off.
    """
    words = [word for word in completion.text.split() if count_numbers or not word.isdigit()]
    limit = sample.meta["max_words"]
    return Verdict.of(len(words) <= limit, f"{len(words)} words, limit {limit}")


@verifier("prints", timeout=20, reference=["answer"])
def prints(completion: Completion, sample: Sample, sandbox: Sandbox) -> Verdict:
    """Passes when the reply is a Python program that prints the answer."""
    execution = sandbox.run(completion.text)
    printed = execution.stdout.strip()
    return Verdict.of(printed == str(sample.answer), f"printed `{printed}`, wanted `{sample.answer}`")


@shaper("per-word")
def per_word(verdict: Verdict, completion: Completion) -> float:
    """The score divided by the number of words."""
    return verdict.score / max(1, len(completion.text.split()))


@sandbox("plain-process", safe=False)
def plain_process() -> Sandbox:
    """An ordinary child process, which holds nothing: for tests only."""
    return PlainProcess()


@hookimpl
def rlvr_verifiers():
    return [word_limit, prints]


@hookimpl
def rlvr_shapers():
    return [per_word]


@hookimpl
def rlvr_sandboxes():
    return [plain_process]


@hookimpl
def rlvr_tasks():
    return ["short-replies.toml"]
