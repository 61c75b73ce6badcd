"""Calls as a model would write them, for gold completions and the tests."""

from __future__ import annotations

import json
import keyword
from collections.abc import Sequence
from typing import Any

from .calls import ToolCall

NO_CALL = "None of the tools can do this."
"""What to say where no call is right."""


def written(calls: Sequence[ToolCall], form: str) -> str:
    """The calls in a format.

    Raises:
        ValueError: The format has no form for a name in them.
    """
    match form:
        case "auto" | "hermes":
            return "\n".join(f"<tool_call>\n{_json(_named(call))}\n</tool_call>" for call in calls)
        case "openai":
            return _json(
                [
                    {
                        "id": f"call_{number}",
                        "type": "function",
                        "function": {"name": call.name, "arguments": _json(call.arguments)},
                    }
                    for number, call in enumerate(calls)
                ]
            )
        case "llama":
            return "; ".join(_json({"name": call.name, "parameters": call.arguments}) for call in calls)
        case "bfcl":
            return _json([{call.name: call.arguments} for call in calls])
        case "python":
            return f"[{', '.join(map(_expression, calls))}]"
        case "mistral":
            return f"[TOOL_CALLS]{_json([_named(call) for call in calls])}"
        case "deepseek":
            inner = "".join(
                f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{_json(call.arguments)}<｜tool▁call▁end｜>"
                for call in calls
            )
            return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"
    raise ValueError(f"there is no format `{form}`")


def _named(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _expression(call: ToolCall) -> str:
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in call.name.split(".")):
        raise ValueError(f"`{call.name}` is no name in Python")
    if not all(key.isidentifier() for key in call.arguments):
        raise ValueError(f"a parameter of `{call.name}` is no name in Python")
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
