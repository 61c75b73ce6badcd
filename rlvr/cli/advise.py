"""`rlvr advise`."""

from __future__ import annotations

import math
import shlex
import sys
from typing import Annotated, cast

from cyclopts import Parameter

from rlvr.advice import (
    CHOICES,
    GIB,
    Advice,
    Checker,
    Data,
    Hardware,
    Situation,
    Solves,
    Step,
    find_hardware,
    model_of,
    read_model,
    read_params,
    shape_of,
)
from rlvr.advice import (
    advise as give_advice,
)
from rlvr.cli.flags import Json
from rlvr.cli.output import facts, note, say, say_json, table
from rlvr.errors import UsageError, nearest

QUESTIONS = {
    "data": "What data is there? Several with commas.",
    "checker": "What can tell right from wrong?",
    "params": "How large is the model, such as 0.5B?",
}
MEANING = {
    "none": "nothing",
    "prompts": "prompts",
    "gold": "good answers",
    "labels": "completions marked good or bad",
    "pairs": "chosen and rejected completions",
    "judge": "someone to ask",
    "partial": "a checker that sees a part",
    "exact": "an exact checker",
    "learned": "a reward model",
}


def advise(
    *,
    data: Annotated[
        tuple[str, ...],
        Parameter(
            help="What there is: none, prompts, gold, labels, pairs, or judge (someone to ask). May be repeated.",
            negative=(),
        ),
    ] = (),
    checker: Annotated[
        str, Parameter(help="What can tell right from wrong: none, partial, exact, or learned (a reward model).")
    ] = "",
    params: Annotated[str, Parameter(help="The model's size, such as `0.5B`.")] = "",
    model: Annotated[str, Parameter(help="The model: `starter`, a folder, or a hub name with its size in it.")] = "",
    solves: Annotated[
        str, Parameter(help="How many prompts the model solves now and then: none, some, most. [default: some]")
    ] = "some",
    task: Annotated[str, Parameter(help="The task for the commands. [default: gsm8k]")] = "gsm8k",
    gpus: Annotated[int | None, Parameter(help="GPUs of the machine; those of this one by default.")] = None,
    gpu_memory: Annotated[float | None, Parameter(help="GiB of each.")] = None,
    lora: Annotated[int, Parameter(help="Rank of adapters; 0 trains all weights where they fit. [default: 0]")] = 0,
    context: Annotated[int, Parameter(help="Tokens of prompt and completion. [default: 1024]")] = 1024,
    vocabulary: Annotated[int, Parameter(help="Rows of the embedding, where the model's are not known.")] = 0,
    json: Json = False,
) -> int:
    """Say which stage to run next, why, whether it fits into memory, and how to run it.

    What is not given is asked on a terminal; the hardware is looked up. Exits with 1 where nothing fits, or where there
    is nothing to learn from.
    """
    given = [word for words in data for word in words.replace(",", " ").split()]
    asked = {"data": bool(given), "checker": bool(checker), "params": bool(params or model)}
    if missing := [name for name, known in asked.items() if not known]:
        if not sys.stdin.isatty():
            flags = ", ".join(f"`--{name}`" for name in missing)
            raise UsageError(f"`rlvr advise` needs {flags}", "on a terminal it asks for what is not given")
        given = given or ask("data").replace(",", " ").split()
        checker = checker or ask("checker")
        params = params if params or model else ask("params")
    for name, words in (("data", given), ("checker", [checker]), ("solves", [solves])):
        for word in words:
            one_of(name, word)
    if "none" in given and len(given) > 1:
        raise UsageError("`--data none` does not go with other data", "leave `none` out")
    shape = read_model(model) if model and not params else None
    if shape is None and not params:
        raise UsageError(f"the size of `{model}` is not known", "give it: `--params 0.5B`")
    shape = shape or shape_of(read_params(params), vocabulary)
    here = find_hardware()
    number = here.gpus if gpus is None else gpus
    size = here.gpu_memory if gpu_memory is None else gpu_memory
    if not math.isfinite(size):
        raise UsageError(f"`--gpu-memory` is `{size}`", "give it in GiB, such as `80`")
    if number and not size:
        raise UsageError("the memory of the GPUs is not known", "give it in GiB: `--gpu-memory 80`")
    if number < 0 or context < 1 or lora < 0 or size < 0 or vocabulary < 0:
        raise UsageError(
            "a number is below what it can be", "GPUs, memory, rank and vocabulary are 0 or more, the context 1 or more"
        )
    situation = Situation(
        cast("tuple[Data, ...]", tuple(dict.fromkeys(given))),
        cast(Checker, checker),
        model or model_of(shape.params),
        shape,
        Hardware(number, size, here.cores, here.memory),
        cast(Solves, solves),
        task,
        lora,
        context,
    )
    advice = give_advice(situation)
    if json:
        say_json(advice.to_json())
    else:
        show(situation, advice)
    return 0 if advice.steps and all(step.fits for step in advice.steps) else 1


def one_of(name: str, word: str) -> None:
    """Refuses a word that is none of a question's answers.

    Raises:
        UsageError: Says the nearest one.
    """
    if word in CHOICES[name]:
        return
    near = nearest(word, CHOICES[name])
    known = ", ".join(f"`{choice}`" for choice in CHOICES[name])
    raise UsageError(f"`--{name}` is `{word}`", f"did you mean `{near}`?" if near else f"it is one of {known}")


def ask(name: str) -> str:
    """A question on the terminal, until it has an answer."""
    for choice in CHOICES.get(name, ()):
        note(f"  {choice:8}  {MEANING[choice]}")
    while True:
        note(QUESTIONS[name])
        line = sys.stdin.readline()
        if not line:
            raise UsageError(f"`rlvr advise` needs `--{name}`", "it asked and got no answer")
        words = line.replace(",", " ").split()
        if words and (name not in CHOICES or all(word in CHOICES[name] for word in words)):
            return line.strip()


def show(situation: Situation, advice: Advice) -> None:
    """Prints an advice for a person."""
    case, hardware = advice.case, situation.hardware
    machine = (
        f"{hardware.gpus} GPU{'s' if hardware.gpus > 1 else ''} with {hardware.gpu_memory:.0f} GiB"
        if hardware.gpus
        else f"{hardware.cores} cores and {hardware.memory:.0f} GiB, no GPU"
    )
    stages = " → ".join(f"rlvr {step.stage}{f' ({step.method})' if step.method else ''}" for step in advice.steps)
    facts(
        [
            ("you have", f"{case.have}; {situation.shape.params / 1e9:.3g}B parameters, {machine}"),
            ("do", stages or "collect something to learn from"),
            ("because", case.reason),
            ("data", case.needs),
            ("cost", case.cost),
            ("risk", case.risk),
            ("watched by", ", ".join(case.guards) or "-"),
            ("otherwise", case.change),
        ]
    )
    for number, step in enumerate(advice.steps, 1):
        say("")
        say(
            f"{number}. {step.stage}" + (f", {step.method}" if step.method else "") + ("" if number > 1 else "  (next)")
        )
        say(f"   {shlex.join(step.command)}")
        if step.note:
            say(f"   {step.note}")
        say("")
        show_memory(step)


def show_memory(step: Step) -> None:
    """What one process of a step holds."""
    rows: list[tuple[str, ...]] = [
        (
            part.name,
            f"{part.params / 1e9:.3g}B" if part.params >= 1e7 else f"{part.params / 1e6:.3g}M" if part.params else "",
            part.each,
            str(part.when),
            ("~" if part.estimate else "") + f"{part.bytes / GIB:.2f}",
        )
        for part in step.memory
    ]
    rows.append(("at the peak, in each process", "", "", "", f"{step.bytes / GIB:.2f}"))
    table(("in memory", "parameters", "bytes of each", "while", "GiB"), rows, ("parameters", "GiB"))
    say(f"{'fits' if step.fits else 'DOES NOT FIT'} into the {step.room / GIB:.1f} GiB that can be used")
