"""The `json-schema` verifier: is the completion the JSON that was asked for?

`extract` finds the JSON that the completion meant by written rules, `schemas` says whether it is valid and how much of
the schema it keeps to, and `compare` holds it against a reference.
"""

from __future__ import annotations

from .compare import BadRules, Outcome, Rules
from .extract import Found, extract
from .verifier import json_schema

__all__ = ["BadRules", "Found", "Outcome", "Rules", "extract", "json_schema"]
