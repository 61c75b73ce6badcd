"""rlvr: reinforcement learning from verifiable rewards.

    import rlvr
    rlvr.verify("math", r"so it is \\boxed{1/2}", answer="0.5").passed      # True
    run = rlvr.train(task="math", steps=100)
    print(run.accuracy, run.path)

Everything public is here, in one flat namespace; names are imported on first use, so that `import rlvr` costs
nothing and only training imports torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "rlvr.api": ("verify", "verify_batch"),
    "rlvr.composition": ("all_of", "any_of", "gate", "part", "penalty", "weighted"),
    "rlvr.errors": (
        "ConfigError",
        "DataError",
        "MissingDependencyError",
        "PluginError",
        "RlvrError",
        "RunStopped",
        "UnknownNameError",
        "UsageError",
    ),
    "rlvr.accuracy": ("Evaluation",),
    "rlvr.evaluation": ("evaluate",),
    "rlvr.hookspecs": ("hookimpl",),
    "rlvr.judge.pairs": ("make_pairs",),
    "rlvr.loop": ("train",),
    "rlvr.registry": ("Registry", "load_plugin", "sandbox", "shaper", "verifier"),
    "rlvr.runlog": ("Run",),
    "rlvr.scoring": ("Scorer",),
    "rlvr.stages.prefer": ("prefer",),
    "rlvr.stages.reward": ("train_reward_model",),
    "rlvr.stages.sft": ("sft",),
    "rlvr.taskfile": ("load_toml",),
    "rlvr.types": (
        "Call",
        "Calls",
        "Case",
        "Check",
        "CodeSandbox",
        "Completion",
        "Composition",
        "Execution",
        "Judgement",
        "Kit",
        "Law",
        "Message",
        "Opaque",
        "Part",
        "Returned",
        "Sample",
        "Sampler",
        "StreamingSampler",
        "SamplingParams",
        "Sandbox",
        "Shaper",
        "Split",
        "Status",
        "Task",
        "Turn",
        "Verdict",
        "Verifier",
    ),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__version__ = "0.1.0"

# How long a thread of torch's pool spins at the end of a parallel region before it sleeps. GNU OpenMP's default is
# about a millisecond, which makes everything many times slower as soon as another process wants a core. It is read
# when torch is imported, so it is set here; a value of the user's stands.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from rlvr.accuracy import Evaluation
    from rlvr.api import verify, verify_batch
    from rlvr.composition import all_of, any_of, gate, part, penalty, weighted
    from rlvr.errors import (
        ConfigError,
        DataError,
        MissingDependencyError,
        PluginError,
        RlvrError,
        RunStopped,
        UnknownNameError,
        UsageError,
    )
    from rlvr.evaluation import evaluate
    from rlvr.hookspecs import hookimpl
    from rlvr.judge.pairs import make_pairs
    from rlvr.loop import train
    from rlvr.registry import Registry, load_plugin, sandbox, shaper, verifier
    from rlvr.runlog import Run
    from rlvr.scoring import Scorer
    from rlvr.stages.prefer import prefer
    from rlvr.stages.reward import train_reward_model
    from rlvr.stages.sft import sft
    from rlvr.taskfile import load_toml
    from rlvr.types import (
        Call,
        Calls,
        Case,
        Check,
        CodeSandbox,
        Completion,
        Composition,
        Execution,
        Judgement,
        Kit,
        Law,
        Message,
        Opaque,
        Part,
        Returned,
        Sample,
        Sampler,
        SamplingParams,
        Sandbox,
        Shaper,
        Split,
        Status,
        StreamingSampler,
        Task,
        Turn,
        Verdict,
        Verifier,
    )

__all__ = [
    "Call",
    "Calls",
    "Case",
    "Check",
    "CodeSandbox",
    "Completion",
    "Composition",
    "ConfigError",
    "DataError",
    "Evaluation",
    "Execution",
    "Judgement",
    "Kit",
    "Law",
    "Message",
    "MissingDependencyError",
    "Opaque",
    "Part",
    "PluginError",
    "Registry",
    "Returned",
    "RlvrError",
    "Run",
    "RunStopped",
    "Sample",
    "Sampler",
    "SamplingParams",
    "Sandbox",
    "Scorer",
    "Shaper",
    "Split",
    "Status",
    "StreamingSampler",
    "Task",
    "Turn",
    "UnknownNameError",
    "UsageError",
    "Verdict",
    "Verifier",
    "__version__",
    "all_of",
    "any_of",
    "evaluate",
    "gate",
    "hookimpl",
    "load_plugin",
    "load_toml",
    "make_pairs",
    "part",
    "penalty",
    "prefer",
    "sandbox",
    "sft",
    "shaper",
    "train",
    "train_reward_model",
    "verifier",
    "verify",
    "verify_batch",
    "weighted",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rlvr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
