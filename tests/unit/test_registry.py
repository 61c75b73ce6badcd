"""The registry: decorators that check, plugins that are found, isolated or refused, and looking up names."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr import (
    Completion,
    ConfigError,
    PluginError,
    Registry,
    Sample,
    Sandbox,
    UnknownNameError,
    Verdict,
    sandbox,
    shaper,
    verifier,
)
from rlvr.errors import RlvrError

WORDS = '''
from rlvr import Verdict, hookimpl, verifier

@verifier("word-limit")
def word_limit(completion, sample):
    """Passes when the reply keeps to `max_words` words."""
    words, limit = len(completion.text.split()), sample.meta["max_words"]
    return Verdict.of(words <= limit, f"{words} words, limit {limit}")

@hookimpl
def rlvr_verifiers():
    return [word_limit]
'''

Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plugins of this machine, no registry of this process, and no module left behind."""
    for variable in ("RLVR_DISABLE_PLUGINS", "RLVR_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(importlib.import_module("rlvr.registry"), "_current", None)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("plugin_", "rlvr_plugin_")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lays out a distribution as pip would: a module, metadata, and an entry point that names the module."""

    def install(distribution: str, code: str, *, entry: str = "", version: str = "1.2") -> Path:
        module = f"plugin_{distribution.replace('-', '_')}"
        site = tmp_path / distribution
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[rlvr]\n{entry or distribution} = {module}\n")
        (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        return site

    return install


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, code: str) -> Path:
        path = tmp_path / name
        path.write_text(code)
        return path

    return write


# Decorators


def test_a_verifier_is_described_by_its_function_and_still_a_function() -> None:
    @verifier("near", timeout=3, reference=["answer"])
    def near(completion: Completion, sample: Sample, *, tolerance: float = 0.1) -> Verdict:
        """Passes when the number is near.

        More words.
        """
        return Verdict.of(abs(float(completion.text) - sample.answer) <= tolerance, "compared")

    assert (near.name, near.timeout, near.reference, near.wants_sandbox) == ("near", 3, ("answer",), False)
    assert near.options == {"tolerance": 0.1}
    assert near.summary == "Passes when the number is near."
    assert near.doc.endswith("More words.")
    sample = Sample("1", answer=2.0)
    assert not near(Completion("2.5"), sample).passed  # type: ignore[union-attr]
    assert near(Completion("2.5"), sample, tolerance=0.6).passed  # type: ignore[union-attr]


def test_a_third_parameter_asks_for_a_sandbox() -> None:
    spec = verifier("runs")(lambda completion, sample, sandbox: True)
    assert spec.wants_sandbox


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: verifier(lambda c, s: True), "`@verifier` needs a name"),  # type: ignore[arg-type]
        (lambda: shaper(lambda v, c: 1.0), "`@shaper` needs a name"),  # type: ignore[arg-type]
        (lambda: sandbox(lambda: None), "`@sandbox` needs a name"),  # type: ignore[arg-type]
        (lambda: verifier("Word_Limit"), "`Word_Limit` cannot name a verifier"),
        (lambda: verifier("a--b"), "`a--b` cannot name a verifier"),
        (lambda: verifier(""), "`` cannot name a verifier"),
        (lambda: verifier("x")(lambda c: True), "it takes (c)"),
        (lambda: verifier("x")(lambda c, s, box: True), "it takes (c, s, box)"),
        (lambda: verifier("x")(lambda c, s, sandbox, more: True), "it takes (c, s, sandbox, more)"),
        (lambda: verifier("x")(lambda *args: True), "it takes `*args`"),
        (lambda: verifier("x")(lambda c, s, **options: True), "it takes `**options`"),
        (lambda: verifier("x")(lambda c, s, *, limit: True), "the option `limit` has no default"),
        (lambda: verifier("x")(lambda c, s, *, answer=1: True), "`answer` has the name of a reference"),
        (lambda: verifier("x", kit=3), "`kit` is `3`"),  # type: ignore[arg-type]
        (lambda: verifier("x", reply="hello"), "`reply` is `'hello'`"),  # type: ignore[arg-type]
        (lambda: verifier("x", reply=lambda c: None)(lambda c, s: True), "`reply` has other parameters"),
        (lambda: verifier("x", reply=lambda c, s: None)(lambda c, s, *, k=1: True), "`reply` has other parameters"),
        (lambda: verifier("x", needs_sandbox=lambda s: True)(lambda c, s: True), "`needs_sandbox` without a sandbox"),
        (lambda: verifier("x", reference=["json"]), "the reference `json` is a flag of `rlvr verify`"),
        (lambda: verifier("x")(lambda c, s, *, json=1: True), "the option `json` is a flag of `rlvr verify`"),
        (lambda: verifier("x", reference="answer"), "`reference` must be a list of names"),
        (lambda: verifier("x", timeout=0), "`timeout` is `0`"),
        (lambda: verifier("x", timeout=float("nan")), "`timeout` is `nan`"),
        (lambda: verifier("x")(7), "a `int` cannot be called"),  # type: ignore[arg-type]
        (lambda: shaper("x")(lambda verdict: 1.0), "its parameters do not fit"),  # type: ignore[arg-type,misc]
        (lambda: sandbox("x")(lambda image: None), "its factory takes (image)"),  # type: ignore[arg-type,misc]
        (lambda: sandbox("x")(lambda *, image: None), "the option `image` has no default"),  # type: ignore[arg-type,misc]
    ],
)
def test_decorators_refuse_what_cannot_work(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        make()
    assert message in caught.value.message
    assert caught.value.hint


def test_an_async_verifier_is_refused() -> None:
    async def check(completion: Completion, sample: Sample) -> bool:
        return True

    with pytest.raises(PluginError, match="async"):
        verifier("x")(check)  # type: ignore[arg-type]


def test_a_better_name_is_suggested() -> None:
    with pytest.raises(PluginError) as caught:
        verifier("Word_Limit")
    assert "`word-limit`" in caught.value.hint


def test_a_factory_must_make_a_sandbox() -> None:
    spec = sandbox("hollow")(lambda: "not a sandbox")  # type: ignore[arg-type,return-value]
    with pytest.raises(PluginError, match="made a `str`, not a sandbox"):
        spec()


def test_a_class_can_be_a_sandbox_factory() -> None:
    @sandbox("tiny", safe=False)
    class Tiny:
        """Runs nothing."""

        name = "tiny"

        def run(self, code: str, *, stdin: str = "", timeout: float = 10, memory_mb: int = 256) -> Any:
            raise RlvrError("it runs nothing")

        def close(self) -> None:
            pass

    assert (Tiny.safe, Tiny.summary) == (False, "Runs nothing.")
    assert isinstance(Tiny(), Sandbox)


# Built-ins


def test_built_ins_come_through_the_hooks() -> None:
    found = Registry.load()
    assert found.verifier("math").origin == "built-in"
    assert found.verifier("math").reference == ("answer",)
    assert {"math", "gsm8k"} <= set(found.tasks)
    assert {"binary", "partial"} <= set(found.shapers)
    assert found.task("gsm8k").source == "built-in"
    assert list(found.sandboxes) == ["docker", "bubblewrap", "unsafe-subprocess"]
    assert [name for name, spec in found.sandboxes.items() if not spec.safe] == ["unsafe-subprocess"]
    assert found.broken == ()


def test_every_built_in_task_names_a_verifier_that_exists_and_options_that_it_has() -> None:
    found = Registry.load()
    for task in found.tasks.values():
        assert set(task.verifier_options) <= set(found.verifier(task.verifier).options)
        assert task.description


def test_loading_imports_nothing_heavy() -> None:
    code = """
import sys
from rlvr import Registry
Registry.load()
print(*{"torch", "transformers", "sympy", "numpy", "datasets", "pyarrow", "rich"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


# Installed plugins


def test_an_installed_plugin_is_found_and_says_where_it_is_from(install: Install) -> None:
    install("rlvr-words", WORDS, entry="words")
    spec = Registry.load().verifier("word-limit")
    assert spec.origin == "plugin rlvr-words 1.2 (entry point words)"
    assert spec.summary == "Passes when the reply keeps to `max_words` words."


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("1", []),
        ("all", []),
        ("words", ["b"]),
        ("RLVR_Words", ["b"]),
        ("words, rlvr-b", []),
        ("0", ["a", "b"]),
    ],
)
def test_plugins_can_be_left_out(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str, left: list[str]
) -> None:
    install("rlvr-words", WORDS.replace("word-limit", "a"), entry="words")
    install("rlvr-b", WORDS.replace("word-limit", "b"))
    monkeypatch.setenv("RLVR_DISABLE_PLUGINS", value)
    found = Registry.load()
    assert sorted({"a", "b"} & set(found.verifiers)) == left
    assert "math" in found.verifiers


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import missing_module_xyz", "ModuleNotFoundError: No module named 'missing_module_xyz'"),
        ("x = 1\nraise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("from rlvr import verifier\n@verifier('Bad Name')\ndef f(c, s): ...", "`Bad Name` cannot name"),
        (WORDS.replace("return [word_limit]", "raise ValueError('no list')"), "ValueError: no list"),
        (WORDS.replace("return [word_limit]", "import sys; sys.exit()"), "SystemExit"),
        (WORDS.replace("[word_limit]", "None"), "`rlvr_verifiers` returned `None`"),
        (WORDS.replace("[word_limit]", "[print]"), "`rlvr_verifiers` lists `<built-in function print>`"),
        (WORDS.replace("rlvr_verifiers", "rlvr_tasks"), "`rlvr_tasks` lists `VerifierSpec("),
        (
            WORDS.replace("rlvr_verifiers", "rlvr_tasks").replace("[word_limit]", "['none.toml']"),
            "there is no task file",
        ),
    ],
)
def test_a_plugin_that_fails_is_isolated_until_its_name_is_used(install: Install, code: str, cause: str) -> None:
    install("rlvr-bad", code, entry="bad")
    install("rlvr-words", WORDS)
    found = Registry.load()
    assert "word-limit" in found.verifiers
    [broken] = found.broken
    assert (broken.name, broken.distribution) == ("bad", "rlvr-bad 1.2")
    assert cause in broken.cause
    assert "\n" not in broken.cause
    assert "Traceback" in broken.traceback
    for name in ("bad", "rlvr-bad"):
        with pytest.raises(PluginError) as used:
            found.verifier(name)
        assert "rlvr-bad 1.2" in used.value.message
        assert cause in used.value.message
        assert used.value.__notes__ == [broken.traceback]
    with pytest.raises(UnknownNameError) as unknown:
        found.verifier("word-limt")
    assert "did you mean `word-limit`?" in unknown.value.hint
    assert "rlvr-bad 1.2 is broken" in unknown.value.hint


def test_nothing_of_a_plugin_that_fails_halfway_is_registered(install: Install) -> None:
    install("rlvr-half", WORDS + "\n@hookimpl\ndef rlvr_tasks():\n    raise ValueError('late')\n")
    found = Registry.load()
    assert "word-limit" not in found.verifiers
    assert "late" in found.broken[0].cause


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (
            WORDS.replace("def rlvr_verifiers", "def rlvr_verifier"),
            "hook `rlvr_verifier`",
            "`rlvr_verifiers`",
        ),
        (WORDS.replace("def rlvr_verifiers", "def verifiers"), "hook `verifiers`", "`rlvr_verifiers`"),
        (WORDS.replace("def rlvr_verifiers()", "def rlvr_verifiers(config)"), "config", "rlvr.hookspecs"),
        (WORDS.replace("@hookimpl", ""), "`rlvr_verifiers` that is no hook", "@hookimpl"),
    ],
)
def test_a_hook_that_cannot_be_called_is_an_error_that_says_who(
    install: Install, code: str, message: str, hint: str
) -> None:
    install("rlvr-typo", code, entry="typo")
    with pytest.raises(PluginError) as caught:
        Registry.load()
    assert "plugin rlvr-typo 1.2 (entry point typo)" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_an_optional_hook_of_another_version_is_no_mistake(install: Install) -> None:
    later = "\n@hookimpl(optionalhook=True)\ndef rlvr_of_the_future():\n    return []\n"
    install("rlvr-words", WORDS + later)
    assert "word-limit" in Registry.load().verifiers


def test_a_name_that_is_taken_is_an_error_that_names_both(install: Install) -> None:
    install("rlvr-a", WORDS)
    install("rlvr-b", WORDS)
    with pytest.raises(PluginError) as caught:
        Registry.load()
    assert caught.value.message == (
        "the verifier `word-limit` is registered twice: plugin rlvr-a 1.2 (entry point rlvr-a), "
        "plugin rlvr-b 1.2 (entry point rlvr-b)"
    )
    assert "`RLVR_DISABLE_PLUGINS=rlvr-b`" in caught.value.hint


def test_a_module_with_two_entry_points_is_an_error(install: Install) -> None:
    site = install("rlvr-twice", WORDS, entry="one")
    [entry_points] = site.glob("*.dist-info/entry_points.txt")
    entry_points.write_text("[rlvr]\none = plugin_rlvr_twice\ntwo = plugin_rlvr_twice\n")
    with pytest.raises(PluginError, match=r"entry point two\) is the same module as .*entry point one"):
        Registry.load()


# Plugin files


def test_a_plugin_file_is_loaded_and_says_where_it_is_from(
    write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("words.py", WORDS)
    monkeypatch.chdir(path.parent)
    found = Registry.load(["words.py", "./words.py", path])
    assert found.plugin_files == (str(path),)
    assert found.verifier("word-limit").origin == "file words.py"


def test_a_task_file_lies_beside_the_plugin_that_names_it(write: Callable[[str, str], Path]) -> None:
    write("short.toml", 'name = "short"\nverifier = "word-limit"\nprompt = "{{q}}"\ndata.path = "q.jsonl"\n')
    write("q.jsonl", '{"q": "Why?"}\n{"q": "How?"}\n')
    path = write("words.py", WORDS + "\n@hookimpl\ndef rlvr_tasks():\n    return ['short.toml']\n")
    task = Registry.load([path]).task("short")
    assert {sample.prompt for split in ("train", "test") for sample in task.load(split)} == {"Why?", "How?"}  # type: ignore[arg-type]
    assert task.source.startswith("file ")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ny = x + nothing\n", "NameError: name 'nothing' is not defined ({path}:2)"),
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax ({path}:2)"),
        ("import json\njson.loads('{')\n", "({path}:2)"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye ({path}:2)"),
        ("from rlvr import verifier\n\n@verifier\ndef f(c, s): ...\n", "`@verifier` needs a name ({path}:3)"),
        (WORDS.replace("[word_limit]", "7"), "`rlvr_verifiers` returned `7`"),
        (
            WORDS.replace("rlvr_verifiers", "rlvr_verifiers_"),
            "the hook `rlvr_verifiers_`, which does not exist",
        ),
        (WORDS.replace("word-limit", "math"), "the verifier `math` is registered twice: built-in, file "),
        (WORDS.replace("[word_limit]", "[word_limit] * 2"), "`word-limit` is registered twice: file "),
    ],
)
def test_whatever_is_wrong_with_a_plugin_file_is_an_error_at_once(
    write: Callable[[str, str], Path], code: str, message: str
) -> None:
    path = write("words.py", code)
    with pytest.raises(PluginError) as caught:
        Registry.load([path])
    assert message.format(path=path) in caught.value.message
    assert "words.py" in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("name", "message"), [("none.py", "No such file"), ("words.txt", "not a Python file")])
def test_a_path_that_is_no_plugin_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        Registry.load([tmp_path / name])
    assert name in caught.value.message


# Looking up


def test_an_unknown_name_suggests_the_nearest() -> None:
    found = Registry.load()
    with pytest.raises(UnknownNameError) as caught:
        found.task("gsm8")
    assert caught.value.message == "there is no task named `gsm8`"
    assert "did you mean `gsm8k`?" in caught.value.hint
    for lookup in (found.verifier, found.shaper, found.sandbox):
        with pytest.raises(UnknownNameError):
            lookup("nothing-like-it")


def test_a_task_can_be_a_toml_file(write: Callable[[str, str], Path]) -> None:
    path = write("mine.toml", 'name = "mine"\nverifier = "math"\nprompt = "{{q}}"\ndata.path = "q.jsonl"\n')
    task = Registry.load().task(path)
    assert (task.name, task.source) == ("mine", str(path))


def test_a_toml_file_that_does_not_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        Registry.load().task("./none.toml")
    assert caught.value.message == "there is no task file `./none.toml`"
    assert caught.value.hint


# The registry of the process


def process_registry() -> Any:
    """The module, as `rlvr.registry` may be the function."""
    return importlib.import_module("rlvr.registry")


def test_the_registry_is_loaded_once_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    module = process_registry()
    loads = []
    load = Registry.load
    monkeypatch.setattr(module.Registry, "load", lambda *files: loads.append(1) or load(*files))
    seen: list[Registry] = []
    threads = [threading.Thread(target=lambda: seen.append(module.registry())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({id(found) for found in seen}) == 1


def test_a_plugin_file_is_added_once(write: Callable[[str, str], Path]) -> None:
    module = process_registry()
    path = write("words.py", WORDS)
    module.load_plugin(path)
    after = module.registry()
    module.load_plugin(str(path))
    assert module.registry() is after
    assert after.plugin_files == (str(path),)
    assert "word-limit" in after.verifiers


def test_a_second_file_does_not_run_the_first_again(write: Callable[[str, str], Path]) -> None:
    module = process_registry()
    count = "from pathlib import Path\nwith Path(__file__).with_suffix('.log').open('a') as f: f.write('x')\n"
    first = write("first.py", count + WORDS)
    module.load_plugin(first)
    module.load_plugin(write("second.py", WORDS.replace("word-limit", "other")))
    assert first.with_suffix(".log").read_text() == "x"
    assert {"word-limit", "other"} <= set(module.registry().verifiers)


def test_a_file_that_fails_leaves_the_registry_as_it_was_and_can_be_mended(
    write: Callable[[str, str], Path],
) -> None:
    module = process_registry()
    before = module.registry()
    path = write("words.py", "nonsense\n")
    with pytest.raises(PluginError):
        module.load_plugin(path)
    assert module.registry() is before
    write("words.py", WORDS)
    module.load_plugin(path)
    assert "word-limit" in module.registry().verifiers
