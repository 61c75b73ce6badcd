"""The host's evaluator of checks agrees with Python, within bounds, and knows what it does not know."""

from __future__ import annotations

import collections
import fractions
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlvr_verifiers.code.evaluate import Evaluator
from rlvr_verifiers.code.nodes import CallMissing, CallRaised, FaultyTest, NeedsJudge, Pretender
from rlvr_verifiers.code.table import Piece, Table, compiled

from rlvr import Opaque, Returned


def table(expression: str) -> Table:
    found = compiled((Piece(expression, 0, True, "0"),))
    assert isinstance(found, Table), found
    return found


def value(expression: str, *values: Any, used: int = 0) -> Any:
    """What an expression over `f(0)`, `f(1)`, ... gives when these return the values."""
    found = table(expression)
    returned = {}
    for number, call in enumerate(found.calls):
        assert call.source.startswith("f(")
        returned[number] = Returned(values[int(call.source[2:-1])], used)
    return Evaluator(returned, {}).evaluate(found.steps[-1].tree)


def reference(expression: str, *values: Any) -> Any:
    return eval(expression, {"f": lambda i: values[i], **MODULES})  # noqa: S307


MODULES = {name: __import__(name) for name in ("math", "collections", "string")} | {"Counter": collections.Counter}


EXPRESSIONS = [
    "f(0) == 3",
    "f(0) != 3",
    "not f(0)",
    "1 < f(0) <= 3 < 4",
    "f(0) in (1, 2, 3)",
    "f(0) not in [1, 2]",
    "f(0) is None",
    "f(0) is not True",
    "abs(f(0) - 3.0000001) < 1e-6",
    "round(f(0) / 7, 2)",
    "f(0) ** 2 % 5 // 2",
    "-f(0) + ~f(0) << 2 >> 1 & 7 | 8 ^ 3",
    "str(f(0)) + repr(f(0)) + '%d!' % f(0)",
    "f'{f(0)!r:>5} {f(0):.2f}'",
    "'{} {:>4}'.format(f(0), 'a')",
    "isinstance(f(0), (int, float))",
    "type(f(0)) == int, type(f(0)) is int",
    "type(f(0)).__name__",
    "math.isclose(f(0), 3.0), math.sqrt(f(0)) > 1",
    "[f(0), (f(0),), {f(0)}, {f(0): f(0)}]",
    "max(f(0), 2) + min([f(0), 9])",
    "list(range(f(0)))[::-1]",
    "1 if f(0) == 3 else 0",
    "divmod(f(0), 2), pow(f(0), 3, 5)",
    "(lambda a, b=2: a * b)(f(0))",
    "bin(f(0)), hex(f(0)), oct(f(0)), chr(f(0) + 60)",
    "int('12') + int(f(0)) + float(f(0))",
]
SEQUENCES = [
    "len(f(0))",
    "sorted(f(0))",
    "sorted(f(0), key=lambda v: -v, reverse=True)",
    "sum(f(0)), sum(f(0), 5)",
    "set(f(0)) == {1, 2}",
    "tuple(f(0)) + (9,)",
    "f(0)[0], f(0)[-1], f(0)[1:]",
    "[v * 2 for v in f(0) if v > 1]",
    "{v: i for i, v in enumerate(f(0))}",
    "{v % 2 for v in f(0)}",
    "all(v > 0 for v in f(0)), any(v > 2 for v in f(0))",
    "list(map(str, f(0)))",
    "list(zip(f(0), f(0)))",
    "list(filter(None, f(0)))",
    "list(reversed(f(0)))",
    "[*f(0), *f(0)]",
    "Counter(f(0)).most_common(1)",
    "Counter(f(0)) == {1: 1, 2: 1, 3: 1}",
    "f(0).count(1) + f(0).index(2)",
    "f(0) * 2 + [0]",
    "max(f(0), default=0), max(f(0), key=lambda v: -v)",
    "[(a, b) for a in f(0) for b in range(a)]",
    "','.join(map(str, f(0)))",
    "''.join(sorted(str(v) for v in f(0))).upper().startswith('12')",
    "f(0) == [1, 2, 3], f(0) != (1, 2, 3)",
    "f(0) < [1, 2, 4]",
    "string.digits[f(0)[0]]",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_numbers(expression: str) -> None:
    for number in (3, 4):
        assert value(expression, number) == reference(expression, number)


@pytest.mark.parametrize("expression", SEQUENCES)
def test_lists(expression: str) -> None:
    for numbers in ([1, 2, 3], [2, 1]):
        try:
            expected = reference(expression, numbers)
        except Exception as error:
            with pytest.raises(type(error)):
                value(expression, numbers)
        else:
            assert value(expression, numbers) == expected


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-50, 50)
    | st.floats(allow_nan=True, width=16)
    | st.text("ab1 ", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)
BINARY = ["+", "-", "*", "/", "//", "%", "==", "!=", "<", "<=", "in", "is", "and", "or", "&", "|"]
FUNCTIONS = [
    "len",
    "sorted",
    "str",
    "list",
    "sum",
    "abs",
    "bool",
    "set",
    "tuple",
    "repr",
    "max",
    "round",
    "int",
    "dict",
]


@st.composite
def expressions(draw: Any, depth: int = 0) -> str:
    shape = draw(st.integers(0, 6 if depth < 3 else 1))
    inner = expressions(depth + 1)
    if shape == 0:
        return draw(st.sampled_from(["f(0)", "f(1)"]))
    if shape == 1:
        return draw(st.sampled_from(["0", "2", "1.5", "'a'", "[1, 'a']", "None", "True", "{'a': 1}", "(1, 2)"]))
    if shape == 2:
        return f"({draw(inner)} {draw(st.sampled_from(BINARY))} {draw(inner)})"
    if shape == 3:
        return f"{draw(st.sampled_from(FUNCTIONS))}({draw(inner)})"
    if shape == 4:
        return f"({draw(inner)})[{draw(st.sampled_from(['0', '-1', '1:', repr('a')]))}]"
    if shape == 5:
        return f"[(x, {draw(st.sampled_from(['x', '1', 'len(x)', 'x == 1']))}) for x in {draw(inner)}]"
    return f"(not {draw(inner)})"


@settings(max_examples=400)
@given(expressions(), PLAIN, PLAIN)
def test_it_agrees_with_python(expression: str, first: Any, second: Any) -> None:
    import warnings

    if "f(" not in expression:
        return
    found = compiled((Piece(expression, 0, True, "0"),))
    if not isinstance(found, Table):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected, raised = reference(expression, first, second), None
        except Exception as error:
            expected, raised = None, type(error)
    try:
        got = value(expression, first, second)
    except (NeedsJudge, FaultyTest):
        return
    except Exception as error:
        got, failed = None, type(error)
    else:
        failed = None
    assert failed is raised
    assert type(got) is type(expected)
    assert repr(got) == repr(expected) or got == expected


def test_the_python_meaning_of_equality() -> None:
    assert value("f(0) == 1", True)
    assert value("f(0) == 1.0", 1)
    assert value("f(0) == (1, 2)", (1, 2))
    assert not value("f(0) == [1, 2]", (1, 2))
    assert value("f(0) == {'b': 1, 'a': 2}", {"a": 2, "b": 1})
    assert value("f(0) == {'a': 2}", collections.Counter("aa"))
    assert not value("f(0) == f(0)", float("nan"))
    assert value("f(0) == 0.5", fractions.Fraction(1, 2))
    assert value("f(0).most_common(1)", collections.Counter("aab")) == [("a", 2)]


# ------------------------------------------------------------------------------------------- objects of the program


def test_an_object_equals_nothing() -> None:
    liar = Opaque("Liar")
    assert value("f(0) == 1", liar) is False
    assert value("f(0) != 1", liar) is True
    assert value("not (f(0) == 1)", liar) is True
    assert value("f(0) in [1, 2]", liar) is False
    assert value("f(0) is None", liar) is False
    assert value("f(0) == [1, 2]", [1, liar]) is False


@pytest.mark.parametrize(
    "expression",
    [
        "list(f(0))",
        "len(f(0))",
        "str(f(0))",
        "not f(0)",
        "f(0) and 1",
        "f(0) < 3",
        "f(0) + 1",
        "isinstance(f(0), int)",
        "type(f(0))",
        "f(0) == f(1)",
        "1 in f(0)",
        "sorted([f(0), 1])",
        "[v for v in f(0)]",
        "f'{f(0)}'",
        "'%s' % f(0)",
        "1 if f(0) else 0",
    ],
)
def test_more_of_an_object_is_for_the_judge(expression: str) -> None:
    with pytest.raises(NeedsJudge):
        value(expression, Opaque("Liar"), Opaque("Liar"))


def test_an_object_with_methods_of_text_pretends() -> None:
    with pytest.raises(Pretender):
        value("f(0).startswith('a')", Opaque("Liar"))
    assert value("f(0).startswith('a')", "abc") is True


# -------------------------------------------------------------------------------------------------- calls and trails


def test_accessors_that_the_program_applied_are_not_applied_again() -> None:
    found = table("f(0).items[1] == 2")
    assert found.calls[0].trail == (".items", "[1]")
    tree = found.steps[0].tree
    assert Evaluator({0: Returned(2, used=2)}, {}).evaluate(tree) is True
    assert Evaluator({0: Returned([1, 2], used=1)}, {}).evaluate(tree) is True
    with pytest.raises(NeedsJudge):
        Evaluator({0: Returned([1, 2], used=0)}, {}).evaluate(tree)
    with pytest.raises(CallRaised, match="KeyError"):
        Evaluator({0: Returned(raised="KeyError: 1", used=1)}, {}).evaluate(tree)
    with pytest.raises(CallMissing):
        Evaluator({}, {}).evaluate(tree)


def test_a_base_class_says_nothing_of_attributes() -> None:
    with pytest.raises(NeedsJudge):
        value("f(0).x == 1", (1, 2))  # perhaps it was a named tuple
    with pytest.raises(AttributeError):
        value("f(0).upper() == 'A'", None)


def test_the_fault_of_a_test_is_told_apart() -> None:
    with pytest.raises(FaultyTest, match="ZeroDivisionError"):
        value("f(0) == 1 / 0", 1)
    assert value("f(0) or 1 / 0", 1) == 1
    with pytest.raises(ZeroDivisionError):
        value("1 / f(0)", 0)


# ------------------------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize(
    ("expression", "given"),
    [
        ("f(0) ** f(0)", 10**6),
        ("2 ** f(0)", 10**9),
        ("1 << f(0)", 10**9),
        ("'a' * f(0)", 10**9),
        ("[0] * f(0)", 10**9),
        ("list(f(0))", range(10**12)),
        ("sum(f(0))", range(10**12)),
        ("sorted(f(0))", range(10**12)),
        ("max(f(0))", range(10**12)),
        ("set(f(0))", range(10**30)),
        ("list(map(list, [f(0)]))", range(10**12)),
        ("1.5 in f(0)", range(10**12)),
        ("f(0).count(1.5)", range(10**12)),
        ("list(zip(f(0), f(0)))", range(10**12)),
        ("[v for v in f(0)]", range(10**12)),
        ("all(v >= 0 for v in f(0))", range(10**12)),
        ("list(range(f(0)))", 10**12),
        ("math.factorial(f(0))", 10**7),
        ("math.comb(f(0), 5000)", 10**7),
        ("round(f(0), -f(0))", 10**9),
        ("f(0) * f(0) * f(0)", 1 << (1 << 20)),
        ("f(0) // (f(0) >> 500000)", 1 << (1 << 20)),
        ("f(0).zfill(10 ** 9)", "a"),
        ("f(0).ljust(10 ** 9)", "a"),
        ("f(0).replace('', 'a' * 1000)", "a" * 10**5),
        ("f(0).join(['a'] * 1000)", "a" * 10**5),
        ("f(0).expandtabs(10 ** 8)", "\t"),
        ("sum(f(0), [])", [[0]] * 100_000),
        ("'{:>1000000000}'.format(f(0))", "a"),
        ("'%1000000000d' % f(0)", 1),
        ("f'{f(0):>1000000000}'", 1),
        ("bytes(f(0))", 10**10),
        ("sum(a * b for a in f(0) for b in f(0))", list(range(2000))),
    ],
    ids=lambda part: part if isinstance(part, str) and len(part) < 60 else type(part).__name__,
)
def test_nothing_takes_long(expression: str, given: Any) -> None:
    start = time.process_time()
    found = compiled((Piece(f"{expression} == 0", 0, True, "0"),))
    if isinstance(found, Table):
        with pytest.raises(NeedsJudge):
            Evaluator(dict.fromkeys(range(9), Returned(given)), {}).evaluate(found.steps[-1].tree)
    assert time.process_time() - start < 15


def test_a_template_of_the_program_is_not_formatted_with() -> None:
    for expression in ("f(0).format(1)", "f(0) % 1", "'{0.__class__}'.format(f(0))", "'{:{}}'.format(f(0), 9)"):
        found = compiled((Piece(expression, 0, True, "0"),))
        if isinstance(found, Table):
            with pytest.raises(NeedsJudge):
                value(expression, "{}")
