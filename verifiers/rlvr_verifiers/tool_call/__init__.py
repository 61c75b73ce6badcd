"""The `tool-call` verifier: did the model call the right tools, and did that do what it should?

`formats` reads the calls out of a turn by written rules (with `tagged` and `pythonic`), `tools` reads the schemas of
the tools, `expected` and `matching` hold calls against those that the task expects, `running` makes them in the sandbox
with the task's own implementation, and `judging` says what was found. No text of a completion is ever run, or part of a
program.
"""

from __future__ import annotations

from .calls import Malformed, Reading, ToolCall
from .formats import FORMATS, read_turn
from .tools import BadTask, toolset
from .verifier import tool_call
from .writing import written

__all__ = ["FORMATS", "BadTask", "Malformed", "Reading", "ToolCall", "read_turn", "tool_call", "toolset", "written"]
