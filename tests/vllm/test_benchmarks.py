"""The benchmarks that need an engine, at their smallest: that they run and say what they measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def bench(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def table(text: str) -> list[dict[str, str]]:
    """The rows of the first table, by column."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip([name.strip("* ") for name in lines[0]], line, strict=True)) for line in lines[1:]]


def test_overlap(tmp_path: Path) -> None:
    out = tmp_path / "overlap.md"
    text = bench(
        "overlap.py",
        *("--sampler", "vllm", "--workers", "2", "--prompts", "8", "--rounds", "1", "--note", "A small one."),
        *("--out", str(out)),
    )
    assert out.read_text() + "\n" == text
    assert "A small one." in text
    [row] = table(text)
    assert row["sampler"] == "vllm"
    assert row["verifications at once"] == "2"
    generate, verify, step, barrier = (float(row[f"{name} s"]) for name in ("generate", "verify", "step", "barrier"))
    assert min(generate, verify, step, barrier) > 0
    ratio = float(row["step / longer of the two"].strip("*"))
    assert abs(ratio - step / max(generate, verify)) <= 0.02 * ratio + 0.02 / max(generate, verify)
    assert 0 <= int(row["hidden"].rstrip("%")) <= 100
    assert 1 <= float(row["tokens each"]) <= 96


def test_gpu_on_a_cpu_with_a_tiny_model() -> None:
    text = bench("gpu.py", "--tiny")
    rows = {row["contender"]: row for row in table(text)}
    assert {"rlvr with vLLM", "rlvr with transformers"} <= set(rows), text
    for row in rows.values():
        assert float(row["step s"]) > 0
        assert float(row["tokens/s sampled"].replace(",", "")) > 0
        assert float(row["memory GiB"]) > 0
        assert 1 <= float(row["tokens each"]) <= 24
    assert "- greedy: 8 of 8 completions are those of transformers" in text
    assert "- poisoned sync: noticed" in text
    assert "- sleep: nothing to give back on a CPU" in text
    assert "TRL" in rows or "TRL: not measured, TRL is not installed." in text
