"""The procedural programming task: golds and tests agree, the splits are disjoint, and the data never change."""

from __future__ import annotations

import ast
import hashlib
import random
from collections import Counter
from typing import Any

import pytest
from rlvr_tasks.code import KINDS, PER_KIND, TESTS, Kind, load, make_tests, names, problems, split_of
from rlvr_tasks.code_lessons import ANYWHERE, RIGHT, SLIPS, conversations, slip

from rlvr import Sample

BUILTINS = {"max": max, "min": min, "sum": sum, "range": range}


def samples() -> list[Sample]:
    return [*load("train"), *load("test")]


def test_the_same_version_is_the_same_data() -> None:
    text = "\n".join(f"{s.id}|{s.prompt}|{s.answer}|{s.meta['tests']}" for s in samples())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "eab08d3859dc3e12", (
        "raise the task's version with its data"
    )


def test_no_problem_is_in_both_splits_under_any_name() -> None:
    train, test = load("train"), load("test")
    assert not {s.id for s in train} & {s.id for s in test}
    assert len({s.id for s in train}) == len(train)
    for kind in KINDS:
        assert {split_of(kind.name, numbers) for numbers in kind.space} == {"train", "test"}
        assert len(set(kind.space)) == len(kind.space)


def test_every_level_is_there() -> None:
    for split in ("train", "test"):
        counts = Counter(s.meta["kind"] for s in load(split))  # type: ignore[arg-type]
        assert set(counts) == {kind.name for kind in KINDS}
        assert max(counts.values()) <= PER_KIND[split]
        assert min(counts.values()) >= PER_KIND[split] / 2


def test_problems_are_short() -> None:
    for sample in samples():
        assert len(str(sample.prompt)) <= 70
        assert len(str(sample.answer)) <= 80


def test_tests_hold_calls_of_the_function_that_is_asked_for() -> None:
    for sample in samples():
        [function] = [node for node in ast.parse(str(sample.answer)).body if isinstance(node, ast.FunctionDef)]
        assert f"Write {function.name}({function.args.args[0].arg}): " in str(sample.prompt)
        assert len(sample.meta["tests"]) == TESTS
        for test in sample.meta["tests"]:
            argument, wanted = case(test)
            assert test == f"assert {function.name}({argument!r}) == {wanted!r}"


def case(test: str) -> tuple[Any, Any]:
    """The argument and the expected value of `assert f(argument) == expected`."""
    [statement] = ast.parse(test).body
    assert isinstance(statement, ast.Assert)
    assert isinstance(statement.test, ast.Compare)
    call = statement.test.left
    assert isinstance(call, ast.Call)
    return ast.literal_eval(call.args[0]), ast.literal_eval(statement.test.comparators[0])


class Evaluator:
    """Evaluates the few forms that programs of this task have, so that no program is ever run here."""

    def __init__(self, source: str, steps: int = 10_000) -> None:
        [function] = ast.parse(source).body
        assert isinstance(function, ast.FunctionDef)
        self.body, self.parameter, self.steps = function.body, function.args.args[0].arg, steps

    def __call__(self, argument: Any) -> Any:
        returned = self.block(self.body, {self.parameter: argument})
        return returned[0] if returned else None

    def block(self, body: list[ast.stmt], scope: dict[str, Any]) -> list[Any]:
        """What is returned, in a list; an empty one when the block ends without."""
        for statement in body:
            match statement:
                case ast.Return(value):
                    return [self.value(value, scope)]
                case ast.Assign([ast.Name(name)], value):
                    scope[name] = self.value(value, scope)
                case ast.AugAssign(ast.Name(name), ast.Mult(), value):
                    scope[name] *= self.value(value, scope)
                case ast.Expr(value):
                    self.value(value, scope)
                case ast.While(condition, inner):
                    while self.value(condition, scope):
                        self.steps -= 1
                        if not self.steps:
                            raise TimeoutError
                        if returned := self.block(inner, scope):
                            return returned
                case _:
                    raise NotImplementedError(ast.dump(statement))
        return []

    def value(self, node: ast.expr | None, scope: dict[str, Any]) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return scope[name]
            case ast.BinOp(left, operator, right):
                a, b = self.value(left, scope), self.value(right, scope)
                return {
                    ast.Add: lambda: a + b,
                    ast.Sub: lambda: a - b,
                    ast.Mult: lambda: a * b,
                    ast.Mod: lambda: a % b,
                }[type(operator)]()
            case ast.BoolOp(operator, values):
                found = (self.value(value, scope) for value in values)
                return any(found) if isinstance(operator, ast.Or) else all(found)
            case ast.IfExp(condition, yes, no):
                return self.value(yes if self.value(condition, scope) else no, scope)
            case ast.Compare(left, operators, others):
                values = [self.value(value, scope) for value in [left, *others]]
                return all(self.compare(*three) for three in zip(operators, values, values[1:], strict=False))
            case ast.Subscript(whole, ast.Slice(lower, upper)):
                ends = [None if end is None else self.value(end, scope) for end in (lower, upper)]
                return self.value(whole, scope)[slice(*ends)]
            case ast.Subscript(whole, index):
                return self.value(whole, scope)[self.value(index, scope)]
            case ast.ListComp(made, [loop]) | ast.GeneratorExp(made, [loop]):
                assert isinstance(loop.target, ast.Name)
                scopes = [scope | {loop.target.id: item} for item in self.value(loop.iter, scope)]
                kept = [inner for inner in scopes if all(self.value(test, inner) for test in loop.ifs)]
                return [self.value(made, inner) for inner in kept]
            case ast.Call(ast.Name("print"), _):
                return None
            case ast.Call(ast.Name(name), arguments):
                return BUILTINS[name](*(self.value(argument, scope) for argument in arguments))  # type: ignore[operator]
        raise NotImplementedError(ast.dump(node) if node else "")

    @staticmethod
    def compare(operator: ast.cmpop, a: Any, b: Any) -> bool:
        return {
            ast.Lt: lambda: a < b,
            ast.LtE: lambda: a <= b,
            ast.Gt: lambda: a > b,
            ast.GtE: lambda: a >= b,
            ast.Eq: lambda: a == b,
        }[type(operator)]()


def passes(source: str, asserts: list[str]) -> bool:
    try:
        program = Evaluator(source)
        return all(program(argument) == wanted for argument, wanted in map(case, asserts))
    except (SyntaxError, IndexError, TypeError, TimeoutError):
        return False


def test_golds_are_right_by_another_route() -> None:
    for sample in samples():
        assert passes(str(sample.answer), sample.meta["tests"]), sample


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_slip_fails_on_every_problem(kind: Kind) -> None:
    rng = random.Random(0)
    for numbers in kind.space[::3]:
        function, parameter = names(kind, rng)
        asserts = make_tests(kind, numbers, function, rng)
        for which in ["", *ANYWHERE]:
            assert not passes(slip(kind, numbers, function, parameter, which), asserts), (numbers, which)


def test_an_endless_loop_is_one() -> None:
    [kind] = [kind for kind in KINDS if "while" in kind.body]
    with pytest.raises(TimeoutError):
        Evaluator(slip(kind, (3, 4), "f", "n", "endless"))(100)


def test_lessons_are_from_the_train_split_and_mixed_as_said() -> None:
    assert set(RIGHT) == set(SLIPS) == {kind.name for kind in KINDS}
    lessons = conversations(3, RIGHT)
    asked = {str(s.prompt).split(": ", 1)[1] for s in load("test")}
    drawn = [next(lessons) for _ in range(3000)]
    assert not {question.split(": ", 1)[1] for question, _ in drawn} & asked
    textbook = conversations(3, {})
    assert all("return" in next(textbook)[1] for _ in range(300))
    share = sum("print(" in program for _, program in drawn) / len(drawn)
    assert 0.5 * ANYWHERE["prints"] < share < 2 * ANYWHERE["prints"]


def test_there_are_problems_enough() -> None:
    for kind in KINDS:
        assert len(problems(kind, "train")) >= 150
