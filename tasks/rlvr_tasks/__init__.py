"""The tasks that come with rlvr: four that are made up as they go; the others, from the hub or a local copy."""

from __future__ import annotations

from rlvr import Task, hookimpl


@hookimpl
def rlvr_tasks() -> list[Task | str]:
    # Imported here, as at the top they would put the tasks `code` and `math` in the place of the submodules.
    from rlvr_tasks.code import code
    from rlvr_tasks.json_extraction import json
    from rlvr_tasks.math import math
    from rlvr_tasks.tools import tools

    return [
        math,
        code,
        json,
        tools,
        "gsm8k.toml",
        "mbpp.toml",
        "humaneval.toml",
        "ifeval.toml",
        "bfcl.toml",
        "code-stdio.toml",
    ]
