"""Starts the process that serves a reward model to the scorer's workers, keeps it running, and ends it.

A model is loaded once for a scorer, not in each worker: `ModelServer` starts `rlvr.stages.serve` in a process of its
own, and workers ask it over a unix socket. When it dies it is started again, a bounded number of times; what was being
scored meanwhile has no verdict. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from rlvr.errors import ConfigError, MissingDependencyError, RlvrError, debugging

SCHEME = "unix:"
"""What an address begins with."""

FACTS = "reward_model.json"
"""What is known of a reward model, beside its weights."""

LOAD_SECONDS = 600.0
"""How long a model may take to load."""

RESTARTS = 3
"""How many times a server that died is started again."""

LONGEST = 70
"""Characters of a directory's name in which a socket may lie: its whole path has 107 at most."""

GONE = "gone"
"""The file beside the socket that says why there will be no server any more."""

BOOT = (
    "import sys; path, folder, device, parent, lifeline, *sys.path[:] = sys.argv[1:]; sys.argv[1:] = []; "
    "from rlvr.stages.serve import main; main(path, folder, device, int(parent), int(lifeline))"
)


class ModelServer:
    """One model, served until `close`.

    Args:
        folder: Where `rlvr reward` wrote it.
        device: Where it runs; empty takes the best there is.

    Attributes:
        address: What workers are told in place of the folder.

    Raises:
        ConfigError: The folder has no reward model, or it cannot be loaded.
        MissingDependencyError: torch is not installed.
    """

    def __init__(self, folder: str, device: str = "") -> None:
        check_folder(folder)
        self.folder, self.device = os.path.abspath(os.path.expanduser(folder)), device
        short = None if len(tempfile.gettempdir()) < LONGEST else "/tmp"
        self.home = Path(tempfile.mkdtemp(prefix="rlvr-model-", dir=short))  # which only we may enter
        self.address = f"{SCHEME}{self.home / 'socket'}"
        self.starts = 0
        self._closing = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._known = threading.Event()
        self._wrong: RlvrError | None = None
        # One thread starts the process and outlives it: on Linux a process is killed when the thread ends that made it.
        self._keeper = threading.Thread(target=self._keep, name="rlvr-model-server", daemon=True)
        try:
            self._keeper.start()
            if not self._known.wait(LOAD_SECONDS):
                late = f"the reward model `{folder}` was not loaded after {LOAD_SECONDS:g} s"
                raise ConfigError(late, "try a smaller one")
            if self._wrong is not None:
                raise self._wrong
        except BaseException:  # Ctrl-C as well
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process that serves; 0 while there is none."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    def close(self) -> None:
        """Ends the process. May be called again."""
        self._closing = True
        self._hang_up()
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
        if threading.current_thread() is not self._keeper and self._keeper.is_alive():
            self._keeper.join()
        shutil.rmtree(self.home, ignore_errors=True)

    def forget(self) -> None:
        """Lets go of the pipe in a forked child, which would keep the process alive."""
        self._closing, self._lock = True, threading.Lock()
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            if self._lifeline >= 0:
                os.close(self._lifeline)
            self._lifeline = -1

    # ------------------------------------------------------------------------------------ in our own thread

    def _keep(self) -> None:
        while not self._closing and self.starts <= RESTARTS:
            self.starts += 1
            try:
                self._start()
            except OSError as error:
                self._wrong = ConfigError(f"the reward model's server cannot be started: {error}", "")
                break
            assert self._process is not None
            assert self._process.stdout is not None
            with self._process.stdout as output:
                self._wrong = said(self.folder, output.readline(1 << 16))
                first = not self._known.is_set()
                self._known.set()
                self._process.wait()
            self._hang_up()
            if self._wrong is not None and first:  # it will not be any better the second time
                break
        with contextlib.suppress(OSError):
            why = self._wrong.message if self._wrong else f"it died {self.starts} times"
            (self.home / GONE).write_text(why, encoding="utf-8")
        self._known.set()

    def _start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.home / "socket").unlink()
        theirs, self._lifeline = os.pipe()
        arguments = [str(self.home / "socket"), self.folder, self.device, str(os.getpid()), str(theirs)]
        path = [os.path.abspath(entry) if entry in ("", ".") else entry for entry in sys.path]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, *arguments, *path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if debugging() else subprocess.DEVNULL,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        if self._closing:  # meanwhile
            self._process.kill()


def said(folder: str, line: bytes) -> RlvrError | None:
    """What is wrong, by the first line of a server; None where it is ready."""
    try:
        message = json.loads(line)
        if "ready" in message:
            return None
        what, hint = message["failed"]
    except (ValueError, TypeError, KeyError):
        what, hint = "its process ended", "`RLVR_DEBUG=1` shows what it says"
    return ConfigError(f"the reward model `{folder}` cannot be served: {what}", hint or "`RLVR_DEBUG=1` shows more")


def read_facts(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `reward_model.json` says.

    Raises:
        ConfigError: The folder has none that can be read.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = dict(json.loads((Path(folder) / FACTS).read_text(encoding="utf-8")))
        if math.isfinite(facts["mean"]) and 0 < facts["deviation"] < math.inf and facts["max_length"] > 0:
            return facts
    raise ConfigError(
        f"`{folder}` is no reward model: it has no `{FACTS}` that can be read",
        "`rlvr reward` makes one, in the `final/` of its run",
    )


def check_folder(folder: str) -> None:
    """Finds what is wrong with a reward model's folder without loading it.

    Raises:
        ConfigError: No folder is given, or it holds no reward model.
        MissingDependencyError: torch is not installed.
    """
    if not folder:
        raise ConfigError(
            "the verifier `reward-model` needs a model", "give `model` the `final/` of a run of `rlvr reward`"
        )
    if folder.startswith(SCHEME):
        return
    path = Path(folder).expanduser()
    inside = path / "final"
    if not (path / FACTS).is_file() and (inside / FACTS).is_file():
        raise ConfigError(f"`{folder}` is no reward model: it has no `{FACTS}`", f"did you mean `{inside}`?")
    read_facts(path)
    if not importlib.util.find_spec("torch"):
        raise MissingDependencyError.extra("the verifier `reward-model`", "train")
