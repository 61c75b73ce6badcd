"""What of a completion is the answer of the model, and what is its reasoning.

<think>maybe 3</think> It is 4.         It is 4.
maybe 3</think> It is 4.                It is 4.        the prompt had opened the tag
It is 4.                                It is 4.
<think>maybe 3                          none            the reasoning was cut off
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def own_turn(text: str) -> str | None:
    """What follows the last `</think>`, or all of the text if there is none; None where a `<think>` is still open."""
    if "think>" not in text:
        return text
    rest = text[text.rfind(CLOSE) + len(CLOSE) :] if CLOSE in text else text
    return None if OPEN in rest else rest
