"""The form of a whole text."""

from __future__ import annotations

import re

from .. import jsontext
from .findings import Finding
from .seen import View, shown

_FENCED = re.compile(r"\s*```(?:json|JSON|Json)?[ \t]*\r?\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)


def is_json(view: View) -> Finding:
    """Whether a text is one JSON object or array, a code fence around it aside."""
    fenced = _FENCED.match(view.raw)
    try:
        value = jsontext.read(fenced[1] if fenced else view.raw)
    except jsontext.Refused as error:
        return Finding(False, f"it is no JSON: {shown(str(error), 120)}")
    return Finding(
        isinstance(value, (dict, list)), "it is JSON" if isinstance(value, (dict, list)) else "it is a bare value"
    )
