"""Labelled completions, hacks and laws that `rlvr verifiers check tool-call` holds the verifier to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from rlvr import Case, Kit, Law

from .calls import Malformed
from .formats import read_turn

TOOLS: list[dict[str, Any]] = [
    {
        "name": "book_table",
        "description": "Books a table in a restaurant.",
        "parameters": {
            "type": "object",
            "properties": {
                "restaurant": {"type": "string"},
                "people": {"type": "integer", "minimum": 1},
                "outside": {"type": "boolean", "default": False},
                "wishes": {"type": "array", "items": {"type": "string"}},
                "contact": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "country": {"type": "string", "default": "IE"}},
                },
            },
            "required": ["restaurant", "people"],
        },
    },
    {
        "name": "thermostat.set",
        "description": "Sets the temperature of a room.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "degrees": {"type": "number"}},
            "required": ["room", "degrees"],
        },
    },
    {"name": "lights_off", "description": "Turns all lights off.", "parameters": {"type": "object", "properties": {}}},
    {
        "name": "find_notes",
        "description": "Looks for notes.",
        "parameters": {
            "type": "dict",
            "properties": {
                "text": {"type": "string"},
                "most": {"type": "integer", "default": 10},
                "span": {"type": "tuple", "items": {"type": "float"}},
            },
            "required": ["text"],
        },
    },
]

BOOK = [{"name": "book_table", "arguments": {"restaurant": "Chez Noor", "people": 4}}]
WARM = [
    {"name": "thermostat.set", "arguments": {"room": "study", "degrees": 19.5}},
    {"name": "thermostat.set", "arguments": {"room": "attic", "degrees": 17}},
]
OFF = [{"name": "lights_off", "arguments": {}}]
NOTES = [{"find_notes": {"text": ["tax", "taxes"], "most": [10, 20, ""], "span": [[1, 2.5], ""]}}]
EITHER = [{"find_notes": {"text": ["a", "b"]}}, {"find_notes": {"text": ["a"]}}]

GOOD = '{"name": "book_table", "arguments": {"restaurant": "Chez Noor", "people": 4}}'
PLAIN = 'book_table(restaurant="Chez Noor", people=4)'


def _tag(*bodies: str) -> str:
    return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies)


def _book(**arguments: Any) -> str:
    return _tag(json.dumps({"name": "book_table", "arguments": arguments}))


def _call(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


STUDY, ATTIC = _call("thermostat.set", room="study", degrees=19.5), _call("thermostat.set", room="attic", degrees=17)


WARM_STUDY = 'thermostat.set(room="study", degrees=19.5)'
WARM_ATTIC = 'thermostat.set(room="attic", degrees=17)'


def _openai(*calls: str, **more: Any) -> str:
    listed = []
    for number, text in enumerate(calls):
        call = json.loads(text)
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        listed.append({"id": f"call_{number}", "type": "function", "function": function, **more})
    return json.dumps(listed)


def _case(completion: str, passes: bool, calls: Any, kind: str, **options: Any) -> Case:
    return Case(completion, passes, {"tools": TOOLS, "calls": calls, **options}, kind)


def _right() -> list[Case]:
    rows: list[tuple[str, Any, str, Mapping[str, Any]]] = [
        (_tag(GOOD), BOOK, "hermes", {}),
        (_tag(GOOD), BOOK, "hermes by name", {"format": "hermes"}),
        (f"Of course.\n{_tag(GOOD)}\nOne moment.", BOOK, "text around a tag", {}),
        (f"<think>Maybe {_tag(_call('lights_off'))}?</think>{_tag(GOOD)}", BOOK, "reasoning before", {}),
        (_book(people=4, restaurant="Chez Noor"), BOOK, "order of arguments", {}),
        (_book(restaurant="Chez Noor", people=4.0), BOOK, "4.0 for an integer", {}),
        (_book(restaurant="Chez Noor", people=4, outside=False), BOOK, "a default given", {}),
        (_tag(ATTIC, STUDY), WARM, "parallel calls in another order", {}),
        (f"[{WARM_STUDY}, {WARM_ATTIC}]", WARM, "calls in order", {"ordered": True}),
        (_tag(_call("lights_off")), OFF, "no arguments", {}),
        (_tag(_call("find_notes", text="taxes")), NOTES, "one of several values", {}),
        (_tag(_call("find_notes", text="tax", most=20, span=[1.0, 2.5])), NOTES, "optional parameters", {}),
        (_tag(_call("find_notes", text="a"), _call("find_notes", text="b")), EITHER, "needs an assignment", {}),
        (_tag(_call("find_notes", text="b"), _call("find_notes", text="a")), EITHER, "needs no assignment", {}),
        (_openai(GOOD), BOOK, "openai", {"format": "openai"}),
        (_openai(STUDY, ATTIC), WARM, "openai, two calls", {}),
        (f'{{"tool_calls": {_openai(GOOD)}}}', BOOK, "openai, tool_calls", {}),
        (f'{{"role": "assistant", "content": null, "tool_calls": {_openai(GOOD)}}}', BOOK, "openai, message", {}),
        (f"[{GOOD}]", BOOK, "openai, flat list", {"format": "openai"}),
        (GOOD.replace("arguments", "parameters"), BOOK, "llama", {}),
        (f"<|python_tag|>{GOOD.replace('arguments', 'parameters')}", BOOK, "llama, python tag", {"format": "llama"}),
        (f"{STUDY}; {ATTIC}".replace("arguments", "parameters"), WARM, "llama, two calls", {}),
        (f"[{PLAIN}]", BOOK, "python list", {"format": "python"}),
        (PLAIN, BOOK, "python call", {}),
        (f"```python\n{PLAIN}\n```", BOOK, "python in a fence", {}),
        ("[thermostat.set(room='attic', degrees=17), thermostat.set(room='study', degrees=19.5)]", WARM, "dots", {}),
        ("lights_off()", OFF, "python without arguments", {}),
        ("find_notes(text='tax', span=(1, 2.5))", NOTES, "python tuple", {}),
        ('[{"book_table": {"restaurant": "Chez Noor", "people": 4}}]', BOOK, "bfcl", {"format": "bfcl"}),
        ('[{"lights_off": {}}]', OFF, "bfcl without arguments", {}),
        (f"[TOOL_CALLS][{GOOD}]", BOOK, "mistral", {}),
        ('[TOOL_CALLS]book_table[ARGS]{"restaurant": "Chez Noor", "people": 4}', BOOK, "mistral, names", {}),
        ("It is a quarter past nine.", [], "no-op", {}),
        ("I cannot do that with lights_off or book_table.", [], "tools named in prose", {}),
    ]
    return [_case(text, True, calls, kind, **options) for text, calls, kind, options in rows]


def _wrong() -> list[Case]:
    rows: list[tuple[str, Any, str, Mapping[str, Any]]] = [
        ("", BOOK, "empty", {}),
        ("I have booked the table.", BOOK, "no call", {}),
        (_book(restaurant="Chez Noor"), BOOK, "missing argument", {}),
        (_book(restaurant="Chez Noor", people=5), BOOK, "wrong value", {}),
        (_book(restaurant="Chez Noor", people="4"), BOOK, "text for a number", {}),
        (_book(restaurant="chez noor", people=4), BOOK, "another case", {}),
        (_book(restaurant="Chez Noor", people=4, outside=True), BOOK, "not the default", {}),
        (_book(restaurant="Chez Noor", people=4, wishes=[]), BOOK, "an argument too many", {}),
        (_tag(_call("book_tables", restaurant="Chez Noor", people=4)), BOOK, "wrong name", {}),
        (_tag(STUDY), WARM, "a call is missing", {}),
        (_tag(STUDY, STUDY), WARM, "a call twice", {}),
        (_tag(STUDY, ATTIC, STUDY), WARM, "a call too many", {}),
        (f"[{WARM_ATTIC}, {WARM_STUDY}]", WARM, "another order", {"ordered": True}),
        (_tag(_call("find_notes", text="b"), _call("find_notes", text="b")), EITHER, "no assignment", {}),
        (_tag(_call("find_notes", text="tax", most=30)), NOTES, "none of the values", {}),
        (_tag(GOOD), [], "a call where none is right", {}),
        ("", [], "nothing where no call is right", {}),
        (PLAIN, BOOK, "another format", {"format": "hermes"}),
    ]
    return [_case(text, False, calls, kind, **options) for text, calls, kind, options in rows]


def _hacks() -> list[Case]:
    spam = [_call("book_table", restaurant="Chez Noor", people=n) for n in range(1, 9)]
    rows: list[tuple[str, Any, str]] = [
        (_tag(*spam), BOOK, "every value"),
        (_tag(GOOD, _call("lights_off")), BOOK, "a call beside it"),
        (_tag(GOOD, GOOD), BOOK, "the same twice"),
        (_tag(GOOD[:-1] + ', "name": "lights_off"}'), BOOK, "two names"),
        (_tag(GOOD.replace('"people": 4', '"people": 9, "people": 4')), BOOK, "a key twice"),
        (_tag(GOOD[:-1] + ', "then": "lights_off"}'), BOOK, "a key too many"),
        (_tag(f"[{GOOD}, {_call('lights_off')}]"), BOOK, "a list in a tag"),
        (f"<tool_call>{_tag(GOOD)}</tool_call>", BOOK, "a tag in a tag"),
        (f"{_tag(GOOD)}<tool_call>", BOOK, "a tag left open"),
        (f"{_tag(GOOD)}</tool_call>", BOOK, "a tag too many closed"),
        (f"<tool_call>{GOOD}", BOOK, "no closing tag"),
        (f"<think>{_tag(GOOD)}</think> Done.", BOOK, "a call in the reasoning"),
        (f"<think>{_tag(GOOD)}", BOOK, "reasoning without end"),
        (_tag(GOOD).replace('"', "'"), BOOK, "single quotes"),
        (_tag(GOOD[:-1]), BOOK, "JSON cut off"),
        (_tag(GOOD.replace(": 4", ": 4,")), BOOK, "a comma too many"),
        (_tag(GOOD.replace(": 4", ": 4e0 /* four */")), BOOK, "a comment"),
        (_tag(GOOD.replace("4", "NaN")), BOOK, "NaN"),
        (_tag(GOOD.replace("book_table", "book_table ")), BOOK, "a blank behind the name"),
        (_tag(GOOD.replace("book_table", "bооk_table")), BOOK, "letters that look alike"),
        (_tag(GOOD.replace("Chez Noor", "Chez Noor\\u200b")), BOOK, "a character without width"),
        (_tag('{"name": "lights_off", "arguments": null}'), OFF, "null for arguments"),
        (_tag('{"name": "lights_off"}'), OFF, "no arguments at all"),
        (_tag('{"name": "lights_off", "arguments": "{}"}'), OFF, "text for arguments"),
        (
            '[{"book_table": {"restaurant": "Chez Noor", "people": 4}, "lights_off": {}}]',
            BOOK,
            "two names in an object",
        ),
        (f"{PLAIN} or lights_off()", BOOK, "an operator"),
        (f"[{PLAIN}, open('x', 'w')]", BOOK, "a call of Python's"),
        ("book_table(restaurant='Chez ' + 'Noor', people=4)", BOOK, "a sum of strings"),
        ("book_table(restaurant='Chez Noor', people=2 * 2)", BOOK, "a product"),
        ("book_table(restaurant=f'Chez Noor', people=4)", BOOK, "an f-string"),
        ("book_table(restaurant='Chez Noor', people=len('four'))", BOOK, "a call as an argument"),
        ("book_table(restaurant='Chez Noor', people=5, people=4)", BOOK, "a keyword twice"),
        ("book_table(**{'restaurant': 'Chez Noor', 'people': 4})", BOOK, "stars"),
        ("book_table('Chez Noor', 4)", BOOK, "arguments without names"),
        ("[book_table(restaurant='Chez Noor', people=n) for n in (4,)]", BOOK, "a comprehension"),
        ("(lambda: book_table)()(restaurant='Chez Noor', people=4)", BOOK, "a lambda"),
        ("ｂook_table(restaurant='Chez Noor', people=4)", BOOK, "a name that Python would change"),
        (f"{PLAIN}\nI am done.", BOOK, "prose behind a call"),
        ("<tool_call>" * 2000, BOOK, "many tags"),
        (_tag("[" * 5000), BOOK, "many brackets"),
        ("book_table(restaurant=" + "(" * 5000, BOOK, "many parentheses"),
        ("book_table(people=" + "-" * 5000 + "4)", BOOK, "many signs"),
        (f"Nothing fits. {_tag(GOOD[:-1])}", [], "a broken call where none is right"),
        ("lights_off(now)", [], "a broken call in Python where none is right"),
        ("<think>No tool fits.</think>", [], "nothing but reasoning"),
    ]
    return [_case(text, False, calls, kind) for text, calls, kind in rows]


# -------------------------------------------------------------------------------------------------------------- laws

_PAIR = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def _calls(completion: str) -> list[dict[str, Any]] | None:
    """The calls of a completion that is nothing but well-formed tags."""
    if _PAIR.sub("", completion).strip() or "<tool_call>" not in completion:
        return None
    try:
        found = read_turn(completion, "hermes", {})
    except Malformed:
        return None
    return [{"name": call.name, "arguments": call.arguments} for call in found.calls]


def _argument_order(completion: str, rng: Random) -> str | None:
    calls = _calls(completion)
    if calls is None:
        return None
    for call in calls:
        items = list(call["arguments"].items())
        rng.shuffle(items)
        call["arguments"] = dict(items)
    return _tag(*map(json.dumps, calls))


def _key_order(completion: str, rng: Random) -> str | None:
    calls = _calls(completion)
    if calls is None:
        return None
    return _tag(*(json.dumps(dict(sorted(call.items(), reverse=rng.random() < 0.5))) for call in calls))


def _white_space(completion: str, rng: Random) -> str | None:
    calls = _calls(completion)
    if calls is None:
        return None
    return _tag(*(json.dumps(call, indent=rng.choice([None, 1, 4]), ensure_ascii=rng.random() < 0.5) for call in calls))


def _text_around(completion: str, rng: Random) -> str | None:
    if _calls(completion) is None:
        return None
    before = rng.choice(["Let me see.", "I will do that now:", "Right away, {one} moment [please]."])
    return f"{before}\n{completion}\n{rng.choice(['', 'That should be it.'])}"


def _reasoning_before(completion: str, rng: Random) -> str | None:
    if "think>" in completion:
        return None
    return f"<think>{rng.choice(['Which tool?', 'lights_off() is wrong.', '<tool_call>'])}</think>{completion}"


def _order_of_calls(completion: str, rng: Random) -> str | None:
    """Shuffled; the cases in which order counts are in another format."""
    calls = _calls(completion)
    return None if calls is None else _tag(*map(json.dumps, rng.sample(calls, len(calls))))


LAWS = (
    Law("order of arguments", _argument_order),
    Law("order of name and arguments", _key_order),
    Law("white space and escapes in JSON", _white_space),
    Law("order of parallel calls", _order_of_calls),
    Law("text around the tags", _text_around),
    Law("reasoning before", _reasoning_before),
)


def kit() -> Kit:
    """Labelled cases in all formats, completions that try to be paid without being right, and laws."""
    return Kit([*_right(), *_wrong()], _hacks(), LAWS)
