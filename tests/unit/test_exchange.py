"""Processes that share a flow, played by threads: what one saw all know, and what stops one stops all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rlvr import Completion, RunStopped, Sample, Task, Turn, Verdict
from rlvr.exchange import together
from rlvr.flow import Closed, Meter, SharedFlow
from rlvr.interrupt import Interrupt, Interrupted
from rlvr.mixture import Problem

TASK = Task("t", "math", lambda split: [])
PROBLEMS = [Problem(10 + n, TASK, Sample(str(n), "p", "1")) for n in range(5)]


class Table:
    """Where the threads of one test meet."""

    def __init__(self, processes: int) -> None:
        self.texts = [""] * processes
        self.barrier = threading.Barrier(processes, timeout=20)


class Seat:
    """One process's exchange."""

    def __init__(self, table: Table, process: int, spread: bool = True) -> None:
        self.table, self.process, self.processes, self.spread = table, process, len(table.texts), spread

    def share(self, text: str) -> list[str]:
        self.table.texts[self.process] = text
        self.table.barrier.wait()
        found = list(self.table.texts)
        self.table.barrier.wait()
        return found


class Echo:
    """A flow that closes what it was asked for, the last first, with completions that say who wrote them."""

    def __init__(self, process: int, fails: bool = False) -> None:
        self.process, self.fails, self.meter = process, fails, Meter()
        self.asked: list[Problem] = []

    @property
    def open(self) -> int:
        return len(self.asked)

    def room(self) -> int:
        return 100

    def ask(self, problems: Sequence[Problem]) -> None:
        self.asked += problems

    def closed(self) -> list[Closed]:
        if self.fails:
            raise ValueError("no more memory")
        problem = self.asked.pop()
        completion = Completion("\ud800é", (1, 2), (-0.1, -1e-9), "stop", (Turn("policy", "x"),), ((0, 1),), 3)
        verdict = Verdict.of(True, f"by {self.process}", parts={"n": problem.number}).took(0.25)
        return [Closed(problem, (7, 8), (completion,), (verdict,))]

    def close(self) -> None:
        self.asked.clear()


def play(processes: int, part: Callable[[Seat], Any], spread: bool = True) -> list[Any]:
    """What each process got, or raised."""
    table = Table(processes)

    def run(process: int) -> Any:
        try:
            return part(Seat(table, process, spread))
        except Exception as error:
            return error

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(run, range(processes)))


def a_round(seat: Seat, fails: int = -1, stops: int = -1) -> list[Closed]:
    interrupt = Interrupt()
    interrupt.noted = seat.process == stops
    flow = SharedFlow(Echo(seat.process, seat.process == fails), seat, 1, 5, interrupt)
    assert flow.room() == 5
    flow.ask(PROBLEMS)
    assert flow.open == 5
    found = flow.closed()
    assert (flow.open, flow.room(), flow.closed()) == (0, 0, [])
    return found


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_every_process_gets_all_groups_in_the_order_of_their_numbers(processes: int) -> None:
    first, *others = play(processes, a_round)
    assert [group.problem for group in first] == PROBLEMS
    assert all(other == first for other in others)
    assert {group.verdicts[0].detail for group in first} == {f"by {n}" for n in range(min(processes, 5))}
    assert first[0].completions[0].text == "\ud800é"


def test_where_only_the_first_samples_all_get_what_it_made() -> None:
    first, second = play(2, a_round, spread=False)
    assert first == second
    assert {group.verdicts[0].detail for group in first} == {"by 0"}


def test_what_stops_one_process_stops_all() -> None:
    first, second = play(2, lambda seat: a_round(seat, fails=1))
    assert isinstance(second, ValueError)
    assert isinstance(first, RunStopped)
    assert "process 1 of the run failed: ValueError: no more memory" in first.message


def test_ctrl_c_in_one_process_is_ctrl_c_in_all() -> None:
    assert [type(found) for found in play(3, lambda seat: a_round(seat, stops=2))] == [Interrupted] * 3


def test_work_that_succeeds_everywhere_gives_each_process_its_own_result() -> None:
    assert play(3, lambda seat: together(seat, lambda: seat.process)) == [0, 1, 2]
