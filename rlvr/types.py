"""The nouns of rlvr: sample, completion, verdict, task, and the protocols of what is pluggable.

Standard library only, so that a plugin can import this without paying for anything else.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from concurrent.futures import Future
    from os import PathLike
    from random import Random

Message = Mapping[str, str]
"""One chat message: `{"role": "user", "content": "..."}`."""

Split = Literal["train", "test"]


class Status(enum.StrEnum):
    """What a verification found. Only PASSED and FAILED say something about the completion."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    TIMEOUT = "timeout"
    ABSTAINED = "abstained"

    @property
    def valid(self) -> bool:
        """Whether this status may reach an advantage; the others are missing data."""
        return self in (Status.PASSED, Status.FAILED)


@dataclass(frozen=True, slots=True)
class Sample:
    """One problem of a task.

    Attributes:
        id: Stable and unique within its task: the same row has the same id in every run.
        prompt: The user's text, or a whole chat as a list of messages.
        answer: The gold answer, where the task has one.
        meta: Whatever else a verifier needs (the row's other columns, for TOML tasks). JSON values only, as
            it travels to worker processes.
    """

    id: str
    prompt: str | Sequence[Message] = ""
    answer: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a completion that has several.

    Attributes:
        role: `policy` for what the model wrote, `environment` for what it was told in reply.
        text: The text, special tokens removed.
    """

    role: Literal["policy", "environment"]
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote for one prompt.

    Attributes:
        text: The decoded completion, special tokens removed. With several turns, that of the policy's last turn.
        token_ids: The sampled ids, the end-of-sequence token included where there was one. With several turns, all
            that follows the prompt, the environment's tokens included.
        logprobs: log π(token) of each id under the sampling policy and temperature, same length as
            `token_ids`; 0.0 for a token of the environment.
        finish_reason: `stop` for an end-of-sequence token, `length` for a completion that was cut.
        turns: The whole transcript after the prompt, policy and environment in alternation, the last one the policy's;
            empty where there was a single turn.
        foreign: Runs of `token_ids` that the environment wrote, as `(start, stop)`. They get no gradient.
        version: Updates that the weights had seen which it was begun with.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: Literal["stop", "length"] = "stop"
    turns: tuple[Turn, ...] = ()
    foreign: tuple[tuple[int, int], ...] = ()
    version: int = 0

    @property
    def written(self) -> int:
        """How many tokens the policy wrote."""
        return len(self.token_ids) - sum(stop - start for start, stop in self.foreign)

    @property
    def truncated(self) -> bool:
        """Whether the completion was cut at the token limit."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion. A verdict is not a reward: a shaper says what to pay for it.

    Attributes:
        status: passed, failed, error, timeout or abstained.
        score: In [0, 1]; 1.0 is full marks. 0.0 for a missing verdict, where it means nothing.
        detail: The reason in words; never empty.
        parts: Named partial scores or facts, JSON values only. Under `flags` a verifier lists attempts to forge a
            verdict that it noticed, each a word or two; a step's metrics count them.
        duration: Seconds that the verification took; filled in by the scorer.

    Raises:
        ValueError: If the score is not a finite number in [0, 1], or the detail is empty.
    """

    status: Status
    score: float
    detail: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    duration: float = 0.0

    def __post_init__(self) -> None:
        if type(self.status) is not Status:
            object.__setattr__(self, "status", Status(self.status))
        if type(self.score) is not float:
            object.__setattr__(self, "score", float(self.score))
        if not 0.0 <= self.score <= 1.0:  # nor NaN
            raise ValueError(f"the score of a verdict must be a number in [0, 1], not {self.score!r}")
        if not isinstance(self.detail, str) or not self.detail.strip():
            raise ValueError("a verdict needs a detail: the reason in words")

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED

    @property
    def valid(self) -> bool:
        """Whether the verdict says something about the completion (passed or failed)."""
        return self.status.valid

    @classmethod
    def of(
        cls, passed: bool, detail: str, score: float | None = None, parts: Mapping[str, Any] | None = None
    ) -> Verdict:
        """Passed or failed. The score is 1.0 or 0.0 unless given (partial credit)."""
        status = Status.PASSED if passed else Status.FAILED
        return cls(status, float(bool(passed)) if score is None else score, detail, parts or {})

    @classmethod
    def error(cls, detail: str, parts: Mapping[str, Any] | None = None) -> Verdict:
        """The check itself went wrong. Missing data: no advantage comes from it."""
        return cls(Status.ERROR, 0.0, detail, parts or {})

    @classmethod
    def timeout(cls, detail: str, parts: Mapping[str, Any] | None = None) -> Verdict:
        """The check ran out of its clock and was killed. Missing data."""
        return cls(Status.TIMEOUT, 0.0, detail, parts or {})

    @classmethod
    def abstain(cls, detail: str, parts: Mapping[str, Any] | None = None) -> Verdict:
        """The verifier cannot decide this case and says so. Missing data."""
        return cls(Status.ABSTAINED, 0.0, detail, parts or {})

    def took(self, seconds: float) -> Verdict:
        """This verdict with its duration filled in."""
        return replace(self, duration=seconds)


@dataclass(frozen=True, slots=True)
class Part:
    """One verifier of a composition.

    Attributes:
        verifier: Name of a registered verifier, or a composition.
        options: Keyword options of the verifier.
        weight: Its share of a weighted sum; what a penalty takes off.
        required: Whether the whole verdict is missing when this one is.
    """

    verifier: str | Composition
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    required: bool = True


@dataclass(frozen=True, slots=True)
class Composition:
    """Several verifiers under one verdict; `rlvr.composition` makes and explains them.

    Attributes:
        rule: How the parts' verdicts become one.
        parts: The verifiers by name, in order.
        threshold: Score from which a weighted sum passes.
    """

    rule: Literal["all-of", "any-of", "weighted", "gate", "penalty"]
    parts: Mapping[str, Part]
    threshold: float = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A labelled completion.

    Attributes:
        completion: What a model might write.
        passes: Whether it is right.
        reference: What it is held against, as the keywords of `rlvr.verify`: references, options, `answer`, `prompt`.
        kind: What it is an example of, in a word or two.
    """

    completion: str
    passes: bool
    reference: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Law:
    """A metamorphic law: a rewriting of completions under which a verifier promises to say the same.

    Attributes:
        name: What the rewriting does, in a word or two.
        rewrite: `rewrite(completion, rng)` gives another spelling, or None for one that it cannot rewrite.
    """

    name: str
    rewrite: Callable[[str, Random], str | None]


@dataclass(frozen=True, slots=True)
class Kit:
    """What `rlvr verifiers check` holds a verifier to.

    Attributes:
        cases: Labelled completions, right ones and wrong ones.
        hacks: Completions that try to be paid without being right; all of them must fail.
        laws: The metamorphic laws that it declares.
    """

    cases: Sequence[Case]
    hacks: Sequence[Case] = ()
    laws: Sequence[Law] = ()


@dataclass(frozen=True)
class Task:
    """A dataset, a prompt, a verifier and a reward, under one name.

    Attributes:
        name: How the command line calls it.
        verifier: Name of a registered verifier, or a composition of several.
        load: `load(split)` yields the samples of `"train"` or `"test"`, always in the same order.
        description: One line for `rlvr tasks`.
        version: Raised when prompts, data or verifier options change, so that runs can be told apart.
        verifier_options: Keyword options of the verifier, the conventions of this data set.
        system: System message put before each prompt, if any.
        turns: Turns that the policy may take at most. Between two, the verifier's `reply` answers for the environment.
        show_tools: Whether the samples' `meta["tools"]` are handed to the model's chat template.
        gold: What a perfect completion for a sample looks like, where that is not for the verifier to say (as with a
            composition).
        defaults: Config values that suit this task, in dotted form (`{"learner.lr": 1e-3}`). Flags,
            environment and config files win over them.
        with_data: Makes the same task over a local copy of its data; None when the task has no data files.
        source: Where the task was defined (a file, or the plugin that registered it).
    """

    name: str
    verifier: str | Composition
    load: Callable[[Split], Iterable[Sample]]
    description: str = ""
    version: int = 1
    verifier_options: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    turns: int = 1
    show_tools: bool = False
    gold: Callable[[Sample], str] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    with_data: Callable[[str | PathLike[str]], Task] | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a sandbox saw when it ran a program. It never says what that is worth.

    Attributes:
        exit_code: The program's own exit code, negative for a signal; None when a limit ended it.
        stdout: What it printed, cut at the sandbox's limit. Bytes that are not UTF-8 are surrogate escapes.
        stderr: The same for errors.
        duration: Wall seconds.
        killed_by: The limit that ended it, if one did: `timeout` (its own time), `memory` or `output`; `starved` when
            the machine was too busy to give it the time it was promised, which says nothing about the program.
        cut: Whether some of its output is missing.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    duration: float
    killed_by: Literal["timeout", "memory", "output", "starved"] | None = None
    cut: bool = False


@runtime_checkable
class Sandbox(Protocol):
    """Runs untrusted Python under limits and reports what happened."""

    name: str

    def run(self, code: str, *, stdin: str = "", timeout: float = 10.0, memory_mb: int = 512) -> Execution:
        """Runs `code` as a program in a fresh, isolated process.

        Raises:
            RlvrError: When the sandbox itself fails; the scorer makes an `error` verdict of it.
        """

    def close(self) -> None:
        """Releases whatever the sandbox holds."""


@dataclass(frozen=True, slots=True)
class Call:
    """An expression to evaluate in the namespace of a program.

    Attributes:
        source: The expression, such as `solve([1, 2])`.
        trail: Accessors behind it, such as `.pop()` or `[0]`. The sandbox applies them one by one for as long as the
            value is not plain data; from there on they are the caller's to apply.
    """

    source: str
    trail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Stands for a value that is not plain data, and equals nothing but itself.

    Attributes:
        type: The name of its class, as the program says.
    """

    type: str


@dataclass(frozen=True, slots=True)
class Returned:
    """What one call gave: a value, or the exception it raised.

    Attributes:
        value: Plain data (None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range and the
            like; a subclass counts as its base), or `Opaque`.
        used: How many accessors of the trail were applied.
        raised: Name of the exception's class, and its text behind a colon; None when it returned.
    """

    value: Any = None
    used: int = 0
    raised: str | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """What the calls of one program gave. All of it is the program's own word.

    Attributes:
        execution: How its process went.
        returned: One for each call that ended, in order; fewer than were asked for when the program ended before.
        loaded: Whether the program's body ran to its end.
        error: The exception that ended it, where it did not.
        flags: Attempts to forge that were noticed, such as `left-early` or `lying-object`.
    """

    execution: Execution
    returned: tuple[Returned, ...]
    loaded: bool
    error: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a judged test list: its name or source line, whether it held, and why not."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge process found that ran tests against a program in another process.

    Attributes:
        execution: How the program's process went.
        checks: What was checked, in order.
        complete: Whether the whole test list was run to its end.
        error: Why the judge stopped or what the tests themselves raised; empty if nothing did.
        output: What the tests printed.
        flags: Attempts to forge that were noticed.
    """

    execution: Execution
    checks: tuple[Check, ...]
    complete: bool
    error: str = ""
    output: str = ""
    flags: tuple[str, ...] = ()


@runtime_checkable
class CodeSandbox(Sandbox, Protocol):
    """A sandbox that can also keep the tests away from the program they test.

    Attributes:
        isolation: How it isolates, for the verdict: backend, runtime, image, limits. JSON values.
    """

    isolation: Mapping[str, Any]

    def call(self, code: str, calls: Sequence[Call], *, timeout: float = 10.0, memory_mb: int = 512) -> Calls:
        """Loads `code` as a module in a fresh, isolated process and evaluates the calls there, in order.

        Expected values stay with the caller, who compares.

        Raises:
            RlvrError: When the sandbox itself fails.
        """

    def judge(
        self,
        code: str,
        tests: str,
        *,
        names: Sequence[str] = (),
        kind: Literal["asserts", "pytest"] = "asserts",
        timeout: float = 10.0,
        memory_mb: int = 512,
    ) -> Judgement:
        """Runs `tests` in one isolated process and `code` in another that never sees them.

        Args:
            code: The program.
            tests: Test source.
            names: What the tests take from the program; for `pytest` the modules as which they import it, `solution`
                if there is none.
            kind: `asserts` for statements that run from top to bottom, `pytest` for a pytest file.
            timeout: Seconds for all of it.
            memory_mb: Memory for each of the two processes.

        Raises:
            RlvrError: When the sandbox itself fails.
        """


class Verifier(Protocol):
    """Looks at one completion and one sample and says what is true of it."""

    def __call__(self, completion: Completion, sample: Sample) -> Verdict | bool | float:
        """A bool means passed or failed; a float in [0, 1] is a score, passed at 1.0.

        Whatever it raises becomes an `error` verdict. A third positional parameter named `sandbox` asks for a
        sandbox; keyword-only parameters are options that a task may set.
        """


class Shaper(Protocol):
    """A pure function from a valid verdict and its completion to a reward."""

    def __call__(self, verdict: Verdict, completion: Completion) -> float: ...


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample one group.

    Attributes:
        max_tokens: Tokens after which a completion is cut.
        temperature: Softmax temperature; 0 is greedy.
        top_p: Nucleus mass kept; 1 keeps all. Log-probabilities are of the untruncated distribution.
        seed: Seed of this call; the same call with the same seed samples the same on the same hardware.
        rooms: The limit of each prompt, where they differ; `max_tokens` is the largest then.
        seeds: The seed of each prompt, in place of `seed`, so that what is sampled for one does not depend on which
            others are sampled with it (but for rounding).
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    rooms: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()


@runtime_checkable
class Sampler(Protocol):
    """Turns prompts into groups of completions."""

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, params: SamplingParams
    ) -> Iterator[tuple[int, Completion]]:
        """Yields `(index into prompts, completion)` the moment a completion ends; each index comes
        `group_size` times, in any order."""

    def sync(self, version: int) -> Mapping[str, float]:
        """Takes over the weights as they are now, after `version` updates; returns metrics, times in seconds.

        Raises:
            RlvrError: They did not arrive.
        """

    def rest(self) -> None:
        """Frees memory for the learner until the next `sync`, where it can."""

    def close(self) -> None:
        """Releases the engine."""


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that takes a prompt at any time."""

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> Future[Completion]:
        """Generates one completion beside all others under way. Cancelling the future ends the work."""
