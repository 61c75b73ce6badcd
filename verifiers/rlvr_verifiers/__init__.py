"""The verifiers that come with rlvr."""

from __future__ import annotations

from typing import Any

from rlvr import hookimpl


@hookimpl
def rlvr_verifiers() -> list[Any]:
    # Imported here, as at the top it would put the verifier `math` in the place of the submodule.
    from rlvr_verifiers.code import code
    from rlvr_verifiers.json_schema import json_schema
    from rlvr_verifiers.math import math
    from rlvr_verifiers.reward_model import reward_model
    from rlvr_verifiers.text import text
    from rlvr_verifiers.tool_call import tool_call

    return [code, json_schema, math, reward_model, text, tool_call]
