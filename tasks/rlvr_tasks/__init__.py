"""The tasks that come with rlvr: `math`, made up as it goes, and `gsm8k`, from the hub or a local copy."""

from __future__ import annotations

from rlvr import Task, hookimpl


@hookimpl
def rlvr_tasks() -> list[Task | str]:
    # Imported here, as at the top it would put the task `math` in the place of the submodule.
    from rlvr_tasks.math import math

    return [math, "gsm8k.toml"]
