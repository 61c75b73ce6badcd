"""What can be said of the engine beside the learner where vLLM is not installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from rlvr.errors import MissingDependencyError
from rlvr.sampler.vllm_engine import ColocatedEngine, one_line, telling, unknown_option

SAID = """\
2026-01-01 10:00:00 EngineCore 7 WARNING ImportError: no tcmalloc, slower
2026-01-01 10:00:01 VllmWorker-0 8 ERROR WorkerProc hit an exception.
  File "worker.py", line 1
RuntimeError: CPU Generator does not use offset
2026-01-01 10:00:02 EngineCore 7 ERROR EngineCore encountered a fatal error.
RuntimeError: Worker failed with error 'CPU Generator does not use offset', please check the stack trace above
"""


@pytest.mark.parametrize(("device", "hint"), [("cpu", "docs/guide/vllm.md"), ("cuda:0", "pip install 'rlvr[vllm]'")])
def test_without_vllm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, device: str, hint: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs vLLM, which is not installed") as error:
        ColocatedEngine("starter", device=device, dtype="float32", context=64, at_once=8)
    assert hint in error.value.hint


def test_the_telling_line_of_a_log_is_the_first_cause() -> None:
    assert telling(SAID) == "CPU Generator does not use offset"
    assert telling("all is well\n") == ""
    assert "memory" in telling(SAID + "ValueError: No available memory for the cache blocks\n")


@pytest.mark.parametrize(("option", "hint"), [("max_modle_len", "did you mean `max_model_len`?"), ("zz", "lists them")])
def test_an_argument_that_vllm_does_not_have_is_named(option: str, hint: str) -> None:
    error: Any = unknown_option(option, ["max_model_len", "enforce_eager"])
    assert option in error.message
    assert hint in error.hint


def test_a_long_message_is_cut_to_a_line() -> None:
    assert one_line("a\n  b") == "a b"
    assert len(one_line("x" * 999)) == 300
    assert one_line(ValueError()) == "ValueError"
