"""The process of the judge: runs the tests, with what the solution defines at the other end of a socket pair.

It records every check as it is made, on a socket that the solution never had, and at the end that the end was reached.
A list of tests that was not run to its end, or in which nothing was checked, is no pass; whoever reads the record sees
which.
"""

from __future__ import annotations

import ast
import builtins
import json
import linecache
import os
import random
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from rlvr_sandboxes.inside import proxies, remote, solution, standins

DETAIL = 600


def main(mode: int, control: int, peer: int) -> int:
    """Runs the job that comes over `control`; returns the exit code of the process."""
    random.seed()  # not what the solution can foresee
    job = json.loads(solution.take(control))
    report = solution.reporter(control)
    client = proxies.Client(peer)
    record = Record(report, job["nonce"], client)
    try:
        client.ready()
        if job["kind"] == "pytest":
            run_pytest(job, client, record)
        else:
            run_asserts(job, client, record)
    except remote.Gone as error:
        record.stop(str(error))
    except BaseException as error:
        record.stop(f"the tests raised {solution.describe(error)}")
    solution.flush()
    report({"nonce": job["nonce"], "flags": sorted(client.flags), "end": True})
    return 0


class Record:
    """Tells the host of every check as it is made."""

    def __init__(self, report: Callable[[Any], None], nonce: str, client: proxies.Client) -> None:
        self.report, self.nonce, self.client = report, nonce, client
        self.made = 0

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        self.made += 1
        if passed and self.client.gone:
            passed, detail = False, self.client.gone
        if passed and self.client.swallowed:
            passed, detail = False, "the solution kept a failed assert to itself"
        if self.client.swallowed:
            self.client.flags.add("swallowed-assert")
            self.client.swallowed.clear()
        self.report({"nonce": self.nonce, "name": name[:DETAIL], "passed": passed, "detail": detail[:DETAIL]})

    def complete(self) -> None:
        self.report({"nonce": self.nonce, "complete": True})

    def stop(self, why: str) -> None:
        self.report({"nonce": self.nonce, "stopped": why[:DETAIL]})


# -------------------------------------------------------------------------------------------------- asserts


def run_asserts(job: Any, client: proxies.Client, record: Record) -> None:
    """Runs test statements from top to bottom. A failed one does not keep the next from being tried."""
    source: str = job["tests"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    space = module.__dict__
    linecache.cache["tests.py"] = (len(source), None, source.splitlines(True), "tests.py")
    space["__rlvr_held__"] = tally = Tally()
    names = job["names"]
    client.classes_of_tests = classes_named(ast.parse(source))
    client.stops = "StopIteration" in source or "StopAsyncIteration" in source
    if "globals" in source:  # they look names up by computing them
        names = names + [name for name in public(client) if name not in names]
    proxies.look_there(client)
    volatile = bind(client, space, names)
    sys.argv = ["tests.py"]
    watch_unittest(record)
    exits: list[BaseException] = client.raised
    for statement in ast.parse(source).body:
        name = (ast.get_source_segment(source, statement) or "").strip()
        before, made = tally.held, record.made
        try:
            unit = ast.fix_missing_locations(Counted().visit(ast.Module([statement], [])))
            exec(compile(unit, "tests.py", "exec", dont_inherit=True), space)
        except remote.Gone:
            record.check(name, False, "the solution's process ended")
            raise
        except SystemExit as error:
            if any(error is raised for raised in exits):
                record.check(name, False, "the solution raised SystemExit")
            elif record.made > made or error.code:
                if error.code and record.made == made:
                    record.check(name, False, f"the tests ended with {error.code!r}")
                break  # `unittest.main` ends like this
            else:
                record.stop("the tests ended themselves")
                return
        except AssertionError as error:
            record.check(name, False, explain(name, error))
        except BaseException as error:
            record.check(name, False, why(error))
        else:
            if tally.held > before:
                record.check(name, True)
        if client.swallowed:
            record.check(name, True)  # which says no
        if client.gone:  # though a test may have kept that to itself
            raise remote.Gone(client.gone)
        if volatile:
            bind(client, space, volatile)
    record.complete()


def public(client: proxies.Client) -> list[str]:
    """The names that a solution offers to whoever imports all of it; it cannot hide what the language provides."""
    names = client.ask("public")
    if not isinstance(names, list):
        raise client.lost("the solution sent something that is no answer")
    return [n for n in names if isinstance(n, str) and n.isidentifier() and n[:1] != "_" and n not in vars(builtins)]


class Counted(ast.NodeTransformer):
    """Puts a call behind every assert, which shows that it was reached and held."""

    def visit_Assert(self, node: ast.Assert) -> Any:
        held = ast.Expr(ast.Call(ast.Name("__rlvr_held__", ast.Load()), [], []))
        return [node, ast.copy_location(held, node)]


class Tally:
    """Counts the asserts that held."""

    def __init__(self) -> None:
        self.held = 0

    def __call__(self) -> None:
        self.held += 1


def bind(client: proxies.Client, space: dict[str, Any], names: list[str]) -> list[str]:
    """Gives the tests what the solution defines; returns the names of plain values, which may change."""
    volatile = []
    for name, value in client.resolve(names):
        space[name] = value
        remote_kind = isinstance(type(value), standins.RemoteClass)
        if not remote_kind and not callable(value) and not isinstance(value, types.ModuleType):
            volatile.append(name)
    return volatile


def classes_named(tree: ast.Module) -> set[str]:
    """Names that tests use as those of classes, though they may be lower-case."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found += node.bases
        elif isinstance(node, ast.ExceptHandler):
            found.append(node.type)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            found += node.args[1:]
    return {part.id for each in found if each is not None for part in ast.walk(each) if isinstance(part, ast.Name)}


def free_names(tree: ast.Module) -> set[str]:
    """Names that tests use and do not bind themselves, builtins left out."""
    used: set[str] = set()
    bound = set(vars(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    return used - bound


def explain(name: str, error: AssertionError) -> str:
    """Why an assert did not hold: its message, and the line where it stands if that is deeper."""
    text = str(error)[:DETAIL]
    where = traceback.extract_tb(error.__traceback__)
    line = next((frame.line for frame in reversed(where) if frame.filename == "tests.py" and frame.line), "")
    parts = [part for part in (text, f"at `{line}`" if line and line != name else "") if part]
    return "; ".join(parts) or "it does not hold"


def why(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)
    line = next((frame.line for frame in reversed(where) if frame.filename == "tests.py" and frame.line), "")
    return "raised {}{}".format(solution.describe(error), f" at `{line}`" if line else "")


def watch_unittest(record: Record) -> None:
    """Has every test of `unittest` recorded as a check, once something imports it."""

    class Finder:
        """Waits for the import."""

        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name == "unittest":
                sys.meta_path.remove(Finder)
                import unittest

                hook_unittest(unittest, record)
            return None

    sys.modules.pop("unittest", None)
    sys.meta_path.insert(0, Finder)


def hook_unittest(unittest: Any, record: Record) -> None:
    result = unittest.TestResult

    def told(name: str, passed: bool) -> None:
        original = getattr(result, name)

        def method(self: Any, test: Any, *rest: Any) -> Any:
            error = rest[-1] if rest else None
            failed = not passed or (name == "addSubTest" and error is not None)
            detail = why(error[1]) if isinstance(error, tuple) and isinstance(error[1], BaseException) else ""
            if name != "addSubTest" or error is not None:
                record.check(str(test), not failed, detail)
            return original(self, test, *rest)

        setattr(result, name, method)

    for name in ("addSuccess", "addExpectedFailure", "addSubTest"):
        told(name, True)
    for name in ("addFailure", "addError", "addUnexpectedSuccess"):
        told(name, False)


# --------------------------------------------------------------------------------------------------- pytest


class SolutionModule(types.ModuleType):
    """What `import solution` gives to a test file."""

    def __init__(self, name: str, client: proxies.Client, wanted: set[str]) -> None:
        super().__init__(name)
        self.__dict__["__rlvr_client__"] = client
        self.__dict__["__rlvr_wanted__"] = wanted
        self.__dict__["__file__"] = "solution.py"

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            names = [name for name in public(self.__rlvr_client__) if name in self.__rlvr_wanted__]
            # Under the name of a module, only that module: nobody reads `math` as something else.
            return [n for n in names if n not in remote.PURE or isinstance(getattr(self, n), types.ModuleType)]
        if name.startswith("__"):
            raise AttributeError(name)
        for _, value in self.__rlvr_client__.resolve([name]):
            return value
        raise AttributeError(f"module 'solution' has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            self.__dict__[name] = value
        else:
            self.__rlvr_client__.ask("setglobal", name, value)


def run_pytest(job: Any, client: proxies.Client, record: Record) -> None:
    """Runs a test file by pytest; every test is a check."""
    tree = ast.parse(job["tests"])
    client.classes_of_tests = classes_named(tree)
    client.stops = "StopIteration" in job["tests"] or "StopAsyncIteration" in job["tests"]
    for name in job["names"] or ["solution"]:
        sys.modules[name] = SolutionModule(name, client, free_names(tree))
    try:
        import pytest
    except ImportError:
        record.stop("there is no pytest in this sandbox")
        return
    client.module_name = "test_solution"
    proxies.look_there(client)
    folder = os.path.join(os.path.dirname(os.getcwd()), "judge-" + os.urandom(8).hex())
    os.mkdir(folder, 0o700)  # the working folder is the solution's too
    path = os.path.join(folder, "test_solution.py")
    with open(path, "w", encoding="utf-8") as f:
        f.write(job["tests"])
    recorder = Recorder(record)
    # Nothing is read from where the solution may write: a `conftest.py` of its own would run in here.
    options = ["-q", "-p", "no:cacheprovider", "--noconftest", "--confcutdir", folder]
    options += ["--rootdir", folder, "-c", os.devnull, path]
    code = int(pytest.main(options, plugins=[recorder]))
    if client.gone:
        raise remote.Gone(client.gone)
    if code not in (0, 1):
        record.stop(f"pytest ended with exit code {code}" + (f"; {recorder.broken}" if recorder.broken else ""))
        return
    record.complete()


class Recorder:
    """A plugin of pytest that tells what became of each test."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.broken = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        crash = getattr(getattr(report, "longrepr", None), "reprcrash", None)
        detail = str(getattr(crash, "message", report.longrepr or ""))
        if report.when == "call" and report.outcome in ("passed", "failed"):
            expected = hasattr(report, "wasxfail")
            self.record.check(report.nodeid, report.passed or expected, "" if report.passed else detail)
        elif report.failed:
            self.record.check(f"{report.nodeid} ({report.when})", False, detail)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.broken = str(report.longrepr)[-DETAIL:]
            self.record.check(report.nodeid or "collection", False, self.broken)
