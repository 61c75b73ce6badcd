"""The rules of the house, held by reading the source: layers, public names, light imports, banned calls."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rlvr

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "rlvr": ROOT / "rlvr",
    "rlvr_verifiers": ROOT / "verifiers" / "rlvr_verifiers",
    "rlvr_sandboxes": ROOT / "sandboxes" / "rlvr_sandboxes",
    "rlvr_tasks": ROOT / "tasks" / "rlvr_tasks",
}
PLUGINS = [name for name in PACKAGES if name != "rlvr"]

LAYERS = (  # from the bottom; a module imports from its own layer or from below
    "types errors",
    "hookspecs advantage seeds",
    "algorithms exchange config taskfile registry samples shaping composition accuracy rollout interrupt "
    "mixture curriculum examples guards modelserver",
    "scoring scoring_worker sampler learner runlog progress provenance",
    "api scaffold taskcheck kit preflight testing settings assembly",
    "transcripts",
    "flow",
    "evaluation ahead",
    "loop stages judge pipeline advice",
    "cli __main__",
)
LAYER = {part: height for height, parts in enumerate(LAYERS) for part in parts.split()}

ONLY_IN = {  # a library, and the only modules (and what is below them) that may import it
    "torch": ("rlvr.learner", "rlvr.sampler", "rlvr.assembly", "rlvr.stages", "rlvr_tasks.make_starter"),
    "transformers": ("rlvr.learner", "rlvr.sampler", "rlvr.stages", "rlvr_tasks.make_starter"),
    "accelerate": ("rlvr.learner", "rlvr.assembly", "rlvr.stages"),
    "trl": ("rlvr.stages",),
    "cyclopts": ("rlvr.cli",),
}

BANNED = {
    r"(builtins\.)?(eval|exec|compile|__import__)": "model text must never be run",
    r"(.*\.)?(sympify|parse_expr|lambdify)": "sympy's parsers call `eval`",
    r"(.*\.)?(pickle|cloudpickle|dill|marshal)\.(load|loads|Unpickler)": "unpickling runs what it reads",
    r"(.*\.)?(alarm|setitimer)": "an alarm cannot stop what runs in C; the scorer's clocks kill",
}


@cache
def modules() -> dict[str, Path]:
    """Every module that is shipped, by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imports(module: str, nodes: ast.AST | None = None) -> Iterator[str]:
    """Dotted names of what a module imports, anywhere in it; submodules where they are what is imported."""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(nodes or tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield whole if whole in modules() else origin


def imports_on_import(module: str) -> Iterator[str]:
    """What importing a module imports at once: nothing inside functions or under TYPE_CHECKING."""
    for node in tree(module).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(module, ast.Module([node], []))


def calls(module: str) -> Iterator[tuple[int, str, ast.Call]]:
    """Line and dotted name of every call."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def part(module: str) -> str:
    """The part of rlvr that a module belongs to: `learner` for `rlvr.learner.loss`."""
    return module.split(".")[1]


# -------------------------------------------------------------------------------------------------------- layers

OURS = [name for name in modules() if name.startswith("rlvr.")]


@pytest.mark.parametrize("module", OURS)
def test_imports_run_downward(module: str) -> None:
    assert part(module) in LAYER, "a new part needs a place in LAYERS"
    for name in imports(module):
        if name == "rlvr":
            assert part(module) in ("cli", "__main__"), f"{module} imports the whole namespace"
        elif name.startswith("rlvr."):
            assert LAYER[part(name)] <= LAYER[part(module)], f"{module} imports {name} from a layer above"


def test_sampler_learner_scorer_and_log_do_not_know_each_other() -> None:
    """They meet in the loop only."""
    layer = LAYER["learner"]
    for module in OURS:
        own = part(module).removesuffix("_worker")
        others = {part(n).removesuffix("_worker") for n in imports(module) if n.startswith("rlvr.")} - {own}
        assert LAYER[part(module)] != layer or layer not in {LAYER[other] for other in others}, module


def test_no_module_needs_itself_to_be_imported() -> None:
    TopologicalSorter({m: {n for n in imports_on_import(m) if n in modules() and n != m} for m in modules()}).prepare()


@pytest.mark.parametrize("module", ["rlvr.types", "rlvr.errors"])
def test_the_lowest_layer_is_standard_library_only(module: str) -> None:
    assert {name.split(".")[0] for name in imports(module)} <= sys.stdlib_module_names


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_in_their_rooms(library: str) -> None:
    for module in modules():
        if any(name.split(".")[0] == library for name in imports(module)):
            assert module.startswith(ONLY_IN[library]), f"{module} imports {library}"


@pytest.mark.parametrize("package", PLUGINS)
def test_built_in_plugins_use_public_names_only_and_not_each_other(package: str) -> None:
    for module in modules():
        if module.split(".")[0] != package:
            continue
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ImportFrom) and node.module == "rlvr" and not node.level:
                assert {alias.name for alias in node.names} <= set(rlvr.__all__), module
        for name in imports(module):
            root = name.split(".")[0]
            assert name == "rlvr" or root not in PACKAGES or root == package, f"{module} imports {name}"


# -------------------------------------------------------------------------------------------------- public names


def test_all_is_what_is_exported_and_what_type_checkers_see() -> None:
    guarded = next(
        node for node in tree("rlvr").body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    for_checkers = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert for_checkers == rlvr._MODULE_OF
    assert rlvr.__all__ == sorted([*rlvr._MODULE_OF, "__version__"])
    assert dir(rlvr) == rlvr.__all__


@pytest.mark.parametrize("name", rlvr.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(rlvr, name)
    if name in rlvr._MODULE_OF:
        assert value is getattr(importlib.import_module(rlvr._MODULE_OF[name]), name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rlvr' has no attribute 'verifyy'"):
        rlvr.verifyy  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("rlvr") == rlvr.__version__


@pytest.mark.parametrize(
    ("statement", "light"),
    [
        ("import rlvr", "torch transformers accelerate numpy sympy pluggy rich cyclopts jinja2 datasets asyncio"),
        ("from rlvr import Verdict, RlvrError", "torch transformers accelerate numpy sympy pluggy rich cyclopts"),
        ("from rlvr import verifier, hookimpl, Scorer, verify", "torch transformers accelerate numpy sympy rich"),
        ("from rlvr.settings import resolve_run; resolve_run({})", "torch transformers accelerate numpy sympy rich"),
    ],
)
def test_what_an_import_does_not_import(statement: str, light: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint(light.split())


# -------------------------------------------------------------------------------------------- what is not done here


@pytest.mark.parametrize("module", modules())
def test_banned_calls(module: str) -> None:
    if module.startswith("rlvr_sandboxes.inside."):  # it runs in a sandbox, where running code is what it is for
        return
    for line, name, _ in calls(module):
        for pattern, why in BANNED.items():
            assert not re.fullmatch(pattern, name), f"{modules()[module]}:{line} calls {name}: {why}"
    for name in imports(module):
        assert name.split(".")[0] not in ("pickle", "cloudpickle", "dill", "marshal"), f"{module} imports {name}"


def test_checkpoints_are_read_as_data_not_as_code() -> None:
    for module in modules():
        for line, name, call in calls(module):
            if name == "torch.load":
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert keywords.get("weights_only") == "True", f"{modules()[module]}:{line}"


def test_of_what_runs_inside_a_sandbox_the_host_imports_only_the_codec() -> None:
    for module in modules():
        if not module.startswith("rlvr_sandboxes.inside."):
            inside = {name for name in imports(module) if name.startswith("rlvr_sandboxes.inside")}
            assert inside <= {"rlvr_sandboxes.inside.codec"}, module


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_is_for(module: str) -> None:
    path = modules()[module]
    assert ast.get_docstring(tree(module)) or not path.read_text(encoding="utf-8").strip(), path


@pytest.mark.parametrize("folder", ["verifiers", "sandboxes", "tasks", "tests"])
def test_folders_of_packages_are_no_packages(folder: str) -> None:
    """One in `verifiers/` would shadow the package of that name on PyPI."""
    assert not (ROOT / folder / "__init__.py").exists()
