"""vLLM beside the learner, on the same device: an engine in processes of its own, which end with this one.

What those processes print goes into a log file, and an error quotes the line of it that tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import inspect
import itertools
import json
import logging
import logging.config
import multiprocessing.context
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from rlvr.errors import ConfigError, MissingDependencyError, RlvrError, RunStopped, UnknownNameError
from rlvr.sampler.engine import Request, Weights, Written
from rlvr.sampler.vllm_worker import BACKEND, PARENT
from rlvr.sampler.weights import file_update, handle_updates, updates, write_weights

T = TypeVar("T")

BESIDE = 0.4
"""Share of a GPU's memory for weights and cache beside a learner that may need the rest at the same time."""

ALTERNATING = 0.6
"""The same where the engine sleeps while the learner works: parameters, gradients and the optimizer's state stay."""

CACHE_FLOOR = 64 * 2**20
PAGE = 256  # tokens that the need for cache is rounded up to, no less than vLLM's blocks
ENDING = 15.0  # seconds that processes have to end in before they are killed

LESS = "lower `--sampler.context` or `--sampler.batch-size`, or give more with `--sampler.memory`"


class ColocatedEngine:
    """An `Engine` over vLLM's `AsyncLLM`.

    Its weights are random until the first `update`.

    Args:
        model: A folder or a hub name.
        device: Such as `cpu` or `cuda:0`.
        dtype: Type of weights and cache: `float32` or `bfloat16`.
        context: Tokens of prompt and completion together at most.
        at_once: Completions that are generated at the same time at most; others wait.
        seeded: Whether each completion follows from its own seed.
        memory: Share of the device's memory; 0 chooses.
        sync: `ipc` shares GPU memory, `files` writes to memory or disk, `http` sends through the connection; `auto` is
            the first that works.
        options: Arguments of vLLM's engine, before all that is chosen here.
        seed: Of whatever has no seed of its own.
        raw_logprobs: Report log-probabilities at temperature 1; else of what was sampled from, which takes top_p 1.
        rests: Whether `rest` gives memory back, on a GPU.
        reserve: Bytes of a GPU that the learner will take beyond what it has, such as the optimizer's state.
        log: File for what vLLM prints, appended to; none is a temporary one.

    Raises:
        MissingDependencyError: vLLM is not installed.
    """

    name = "vLLM"

    def __init__(
        self,
        model: str,
        *,
        device: str,
        dtype: str,
        context: int,
        at_once: int,
        seeded: bool = True,
        memory: float = 0.0,
        sync: str = "auto",
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        raw_logprobs: bool = True,
        rests: bool = False,
        reserve: int = 0,
        log: Path | None = None,
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        if importlib.util.find_spec("vllm") is None:
            raise MissingDependencyError(
                "sampling with vLLM needs vLLM, which is not installed",
                "pip install 'rlvr[vllm]'"
                if self.device.type == "cuda"
                else "docs/guide/vllm.md says how to install it for CPUs; `--sampler transformers` needs nothing more",
            )
        self.dtype = dtype
        self.context = context
        self.at_once = at_once
        self.seeded = seeded
        self.memory = memory
        self.options = dict(options or {})
        self.seed = seed
        self.raw_logprobs = raw_logprobs
        self.rests = rests and self.device.type == "cuda"
        self.reserve = reserve
        self.log = log
        self.ways = [sync] if sync != "auto" else ["ipc", "files"] if self.device.type == "cuda" else ["files"]
        self._engine: Any = None
        self._numbers = itertools.count()
        self._processes: list[Any] = []  # that were started from here
        self._family: list[Any] = []  # and what these have started
        self._dead: asyncio.Future[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._closed = False
        self._borrowed = log is None
        self._offset = 0  # in the log, where this engine's lines begin
        self._epitaph = ""
        self._logging: tuple[list[logging.Handler], bool] | None = None

    async def start(self) -> None:
        """See `Engine.start`.

        Raises:
            MissingDependencyError: vLLM cannot be imported.
            ConfigError: The memory does not suffice, or vLLM does not know an option or the model's architecture.
            RunStopped: It does not start for another reason.
        """
        if self.log is None:
            handle, path = tempfile.mkstemp(prefix="rlvr-vllm-", suffix=".log")
            os.close(handle)
            self.log = Path(path)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self._offset = self.log.stat().st_size
        self._starting = asyncio.ensure_future(asyncio.to_thread(self._launch, self.log))
        while not self._starting.done():  # `close` ends it
            await asyncio.wait([self._starting], timeout=0.5)
            if FAILED in self._said():
                await asyncio.sleep(1)  # for the rest of the message
                with contextlib.suppress(Exception):  # some have ended
                    for process in reversed(self._descendants()):  # which may wait for each other for long
                        process.kill()
                break
        await asyncio.shield(self._starting)
        if self._closed:
            raise RunStopped("vLLM was closed while it started")
        loop = asyncio.get_running_loop()
        self._dead = loop.create_future()
        for process in self._processes:
            loop.add_reader(process.sentinel, self._died, process.sentinel)

    def _launch(self, log: Path) -> None:
        """Imports vLLM and starts its processes. Takes half a minute, and runs in a thread."""
        try:
            with quiet(log, self._environment()), spawning(log, self._processes):
                self._take_logging(log)
                try:
                    from vllm.engine.arg_utils import AsyncEngineArgs
                    from vllm.v1.engine.async_llm import AsyncLLM
                except Exception as error:  # an import of compiled parts that do not fit can raise anything
                    raise MissingDependencyError(
                        f"vLLM is installed, but cannot be imported: {one_line(error)}",
                        "install a vLLM that fits this torch, or use `--sampler transformers`",
                    ) from error
                known = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
                for option in self.options:
                    if option not in known:
                        raise unknown_option(option, known)
                self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments()))
            self.context = self._engine.model_config.max_model_len
            self._family = self._descendants()
        except RlvrError:
            raise
        except Exception as error:
            close_contexts(error)
            raise self._explain(error) from error

    def _environment(self) -> dict[str, str]:
        """What vLLM's processes find in their environment, beside what the caller has set."""
        wanted = {
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a copy of this process would hold its locks and its GPU
            PARENT: str(os.getpid()),
        }
        if self.device.type == "cpu" and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
            wanted["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # the learner computes on the same cores
        if self.device.type == "cuda" and self.device.index:
            visible = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if number]
            index = self.device.index
            wanted["CUDA_VISIBLE_DEVICES"] = visible[index] if index < len(visible) else str(index)
        return wanted

    def _arguments(self) -> dict[str, Any]:
        """Arguments of vLLM's engine."""
        from vllm.config import WeightTransferConfig

        chosen = {
            "model": self.model,
            "dtype": self.dtype,
            "seed": self.seed,
            "max_model_len": self.context,
            "max_num_seqs": self.at_once,
            "load_format": "dummy",  # the learner's come before the first request
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # the model's own would change how it samples
            "logprobs_mode": "raw_logprobs" if self.raw_logprobs else "processed_logprobs",
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "weight_transfer_config": WeightTransferConfig(backend=BACKEND),
        }
        if self.device.type == "cuda":
            chosen["gpu_memory_utilization"] = self.memory or self._share()
            chosen["enable_sleep_mode"] = self.rests
        else:
            # A seeded completion whose prompt is read in two parts ends vLLM's worker on a CPU: it turns the generator
            # back by an offset, which those of a CPU have not.
            chosen["enable_chunked_prefill"] = False
            chosen["max_num_batched_tokens"] = max(2048, self.context)
            chosen["enforce_eager"] = True  # compiling is no faster here, takes longer, and needs a C++ compiler
            if self.memory:
                chosen["gpu_memory_utilization"] = self.memory
            elif "gpu_memory_utilization" not in self.options:
                chosen["kv_cache_memory_bytes"] = self._cache()
        return chosen | self.options

    def _share(self) -> float:
        """The share of the GPU to ask for; vLLM refuses to start with more than is free."""
        free, total = torch.cuda.mem_get_info(self.device)
        return round(max(0.05, min(ALTERNATING if self.rests else BESIDE, 0.9 * (free - self.reserve) / total)), 3)

    def _cache(self) -> int:
        """Bytes of main memory for keys and values: what all completions need together, but never most of what is free.

        vLLM would take a share of the machine's memory, however small the model.
        """
        import psutil
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.model).get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        of_token = 2 * config.num_hidden_layers * heads * width * getattr(torch, self.dtype).itemsize
        needed = of_token * -(-self.context // PAGE) * PAGE * (self.at_once + 1)
        return int(max(CACHE_FLOOR, min(needed, psutil.virtual_memory().available // 4)))

    async def generate(self, request: Request) -> Written:
        """See `Engine.generate`."""
        from vllm import SamplingParams

        output = await self._run(
            request.prompt,
            SamplingParams(
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed if self.seeded else None,
                stop_token_ids=list(request.stop),
                ignore_eos=True,  # what ends it is among the ids to stop at, or does not end it
                logprobs=0,  # of the token chosen, and of no other
                detokenize=False,
                output_kind=_final(),
            ),
        )
        [written] = output.outputs
        if written.finish_reason not in ("stop", "length"):
            raise RunStopped(f"vLLM ended a completion because of `{written.finish_reason}`", self._see_log())
        ids = tuple(written.token_ids)
        chosen = tuple(found[token].logprob for token, found in zip(ids, written.logprobs, strict=True))
        return Written(ids, chosen, written.finish_reason)

    async def logprobs(self, ids: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """See `Engine.logprobs`. `ids` have to leave a token of the context free.

        Raises:
            ConfigError: They do not.
        """
        from vllm import SamplingParams

        if len(ids) >= self.context:
            raise ConfigError(
                f"{len(ids)} tokens to look at leave no room in a context of {self.context}",
                "raise `--sampler.context`",
            )
        output = await self._run(
            ids,
            SamplingParams(
                max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, ignore_eos=True, output_kind=_final()
            ),
        )
        pairs = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
        return {self.name: [found[token].logprob for token, found in pairs]}

    async def _run(self, ids: Sequence[int], params: Any) -> Any:
        """The last output of a request."""
        from vllm.inputs import tokens_input

        async def whole() -> Any:
            stream = self._engine.generate(tokens_input(list(ids)), params, f"rlvr-{next(self._numbers)}")
            async with contextlib.aclosing(stream):
                return [output async for output in stream][-1]

        return await self._alive(whole())

    async def update(self, weights: Weights, version: int) -> None:
        """See `Engine.update`.

        Raises:
            RunStopped: vLLM refuses the weights, or has died.
        """
        while True:
            way = self.ways[0]
            try:
                with contextlib.ExitStack() as stack:
                    await self._receive(await asyncio.to_thread(self._parts, way, weights, stack))
                return
            except RlvrError:
                raise
            except Exception as error:
                if len(self.ways) == 1:
                    raise RunStopped(
                        f"vLLM does not take the learner's weights: {cause(error)}", self._see_log()
                    ) from error
                logging.getLogger("vllm").warning("rlvr cannot sync over %s: %s", way, one_line(error))
                self.ways.pop(0)

    def _parts(self, way: str, weights: Weights, stack: contextlib.ExitStack) -> Iterator[dict[str, Any]]:
        """What `update_weights` is to be called with; `stack` holds it until then."""
        dtype = getattr(torch, self.dtype)
        if way == "http":
            return updates(weights(), dtype=dtype)
        if way == "ipc":
            part, held = handle_updates(weights())
            torch.cuda.synchronize(self.device)
            stack.callback(lambda: held)  # it lives as long as the stack
            return iter([part])
        folders = [folder for folder in ("/dev/shm", tempfile.gettempdir()) if os.access(folder, os.W_OK)]
        for last, place in zip([*[False] * (len(folders) - 1), True], folders, strict=True):
            folder = Path(tempfile.mkdtemp(prefix="rlvr-weights-", dir=place))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                write_weights(weights(), folder / "weights.safetensors", dtype)
            except Exception:  # most likely it is full, which safetensors has errors of its own for
                shutil.rmtree(folder, ignore_errors=True)
                if last:
                    raise
                continue
            return iter([file_update(folder / "weights.safetensors")])
        raise AssertionError("no folder")

    async def _receive(self, parts: Iterator[dict[str, Any]]) -> None:
        """Loads weights between two tokens of what is being generated."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        engine = self._engine
        takes = inspect.signature(engine.start_weight_update).parameters
        raw = {"is_checkpoint_format": False} if "is_checkpoint_format" in takes else {}
        await self._alive(engine.pause_generation(mode="keep", clear_cache=False))
        try:
            await self._alive(engine.start_weight_update(**raw))
            try:
                for part in parts:
                    await self._alive(engine.update_weights(WeightTransferUpdateRequest(update_info=part)))
            except BaseException:
                with contextlib.suppress(Exception):  # ends what the failure has not ended
                    await self._alive(engine.finish_weight_update())
                raise
            await self._alive(engine.finish_weight_update())
            # What is being generated is read again with the new weights before it goes on.
            await self._alive(engine.reset_prefix_cache(reset_running_requests=True))
        finally:
            with contextlib.suppress(RunStopped):  # dead: whoever waits is told
                await self._alive(engine.resume_generation())

    async def rest(self) -> None:
        """See `Engine.rest`. The weights move to main memory, the cache is dropped."""
        if self.rests:
            await self._memory(self._engine.sleep(1))

    async def wake(self) -> None:
        """See `Engine.wake`."""
        if self.rests:
            await asyncio.to_thread(torch.cuda.empty_cache)  # what learning took and keeps, another process needs now
            await self._memory(self._engine.wake_up())

    async def _memory(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what frees memory, or takes it.

        Raises:
            RunStopped: It failed, or vLLM has died.
        """
        try:
            return await self._alive(work)
        except RlvrError:
            raise
        except Exception as error:
            raise RunStopped(
                f"vLLM cannot free its memory or get it back: {cause(error)}",
                f"lower `--sampler.memory`, then go on with `--resume`; {self._see_log()}",
            ) from error

    async def _alive(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, or an error as soon as vLLM's engine has ended, for which vLLM itself may wait on."""
        if self._dead is None or self._dead.done():
            work.close()
            raise self._death()
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whether or not anybody asks
        try:
            await asyncio.wait([task, self._dead], return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
            if task.done():
                if type(task.exception()).__name__ != "EngineDeadError":
                    return task.result()
                await asyncio.wait([self._dead], timeout=ENDING)  # vLLM is told before its process has ended
            raise self._death()
        finally:
            task.cancel()

    def _died(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        if self._dead is not None and not self._dead.done():
            self._dead.set_result(None)

    def _death(self) -> RunStopped:
        """The error for an engine that has ended."""
        if not self._epitaph:
            for process in self._processes:
                process.join(1)
            code = next((process.exitcode for process in self._processes if process.exitcode), 0)
            line = telling(self._said())
            if code == -signal.SIGKILL:
                self._epitaph = "was killed (SIGKILL), as is done where memory runs out"
            else:
                self._epitaph = f"has ended: {line}" if line else "has ended"
        hint = self._see_log()
        if "memory" in self._epitaph.lower():
            hint = f"{LESS}; then go on with `--resume`; {hint}"
        return RunStopped(f"vLLM's engine {self._epitaph}", hint)

    def _explain(self, error: Exception) -> RlvrError:
        """The error for an engine that did not start."""
        if unknown := re.search(
            r"Model architectures? .*?(?=\. |$)|.*does not recognize this architecture", str(error)
        ):
            return ConfigError(
                f"vLLM cannot run `{self.model}`: {one_line(unknown[0])}", "`--sampler transformers` can"
            )
        line = telling(self._said())
        if not line and any(process.exitcode == -signal.SIGKILL for process in self._processes):
            line = "it was killed while it started, as is done where memory runs out"
        line = line or one_line(error)
        if re.search(r"memory", line, re.I):
            return ConfigError(f"vLLM does not get the memory that it needs: {line}", f"{LESS}; log: `{self.log}`")
        return RunStopped(f"vLLM does not start: {line}", self._see_log())

    def _said(self) -> str:
        """What vLLM has printed since the start."""
        if self.log is None:
            return ""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode("utf-8", "replace")
        return ""

    def _see_log(self) -> str:
        self._borrowed = False  # somebody will want to read it
        return f"what vLLM printed is in `{self.log}`"

    async def close(self) -> None:
        """See `Engine.close`. May be called again."""
        if self._closed:
            return
        self._closed = True
        while self._starting is not None and not self._starting.done():
            for process in self._processes:
                with contextlib.suppress(Exception):  # just about to be started
                    process.kill()
            await asyncio.wait([self._starting], timeout=0.2)
        loop = asyncio.get_running_loop()
        for process in self._processes:
            with contextlib.suppress(Exception):
                loop.remove_reader(process.sentinel)
        await asyncio.to_thread(self._end)
        if self._engine is not None:
            with contextlib.suppress(Exception):
                self._engine.engine_core.resources.ctx.destroy(linger=0)  # vLLM leaves its sockets' context open
            self._engine = None
        self._return_logging()
        if self._borrowed and self.log is not None:
            self.log.unlink(missing_ok=True)

    def _descendants(self) -> list[Any]:
        """vLLM's processes that are there now, and theirs."""
        import psutil

        found = []
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                own = psutil.Process(process.pid)
                found += [own, *own.children(recursive=True)]
        return found

    def _end(self) -> None:
        """Ends vLLM's processes: lets them end, then kills what is left."""
        if not self._processes:
            return
        import psutil

        family = {*self._family, *self._descendants()}
        if self._engine is not None:
            with contextlib.suppress(Exception):
                self._engine.shutdown()
        _, left = psutil.wait_procs(family, timeout=ENDING)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in self._processes:
            with contextlib.suppress(AssertionError):  # it was never started
                process.join(ENDING)

    def _take_logging(self, log: Path) -> None:
        """Sends vLLM's messages in this process to the log."""
        logger = logging.getLogger("vllm")
        self._logging = (list(logger.handlers), logger.propagate)
        logging.config.dictConfig(logging_to(log))

    def _return_logging(self) -> None:
        if self._logging is not None:
            logger = logging.getLogger("vllm")
            for handler in logger.handlers:
                handler.close()
            handlers, logger.propagate = self._logging
            logger.handlers[:] = handlers or [logging.NullHandler()]


def _final() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY


def unknown_option(option: str, known: Sequence[str]) -> UnknownNameError:
    """The error for an option that vLLM's engine does not have; the hint does not list its hundreds."""
    error = UnknownNameError("engine argument of vLLM", option, known)
    near = re.match(r"did you mean `\w+`\?", error.hint)
    error.hint = near[0] if near else "`vllm serve --help=all` lists them; write `-` as `_`"
    return error


def close_contexts(error: BaseException) -> None:
    """Closes what a client of vLLM's that could not start leaves open: the context of its sockets."""
    trace = error.__traceback__
    while trace is not None:
        resources: Any = getattr(trace.tb_frame.f_locals.get("self"), "resources", None)
        if hasattr(resources, "ctx"):
            resources.ctx.destroy(linger=0)
        trace = trace.tb_next


def logging_to(log: Path) -> dict[str, Any]:
    """A logging configuration, as `dictConfig` takes it, that sends vLLM's messages to a file."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(processName)s %(process)d %(levelname)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log), "formatter": "line"}},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }


@contextlib.contextmanager
def quiet(log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Sets the environment that vLLM's processes inherit, and makes all of them log to a file.

    vLLM sets variables of its own; afterwards everything is as it was.
    """
    before = dict(os.environ)
    handle, path = tempfile.mkstemp(prefix="rlvr-vllm-", suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(logging_to(log.absolute()), file)
        os.environ.update(environment, VLLM_CONFIGURE_LOGGING="1", VLLM_LOGGING_CONFIG_PATH=path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.unlink(path)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def spawning(log: Path, started: list[Any]) -> Iterator[None]:
    """Makes processes that this thread starts print into a file, and not run the caller's program again.

    A spawned process runs the main module once more, for the sake of what is defined there, which starts another run
    where a script has no `if __name__ == "__main__"`. vLLM's need nothing from it.

    Args:
        log: The file.
        started: Takes the processes.
    """
    thread = threading.get_ident()
    context: Any = multiprocessing.context.SpawnProcess
    usual = context._Popen

    def popen(process: Any) -> Any:
        if threading.get_ident() != thread:
            return usual(process)
        started.append(process)
        with without_main(), output_to(log):
            return usual(process)

    context._Popen = staticmethod(popen)
    try:
        yield
    finally:
        context._Popen = staticmethod(usual)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hides from what file or module the main module came."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(hidden)


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Points the standard output and error of this process, as a child inherits them, to a file for a moment."""
    saved = [os.dup(number) for number in (1, 2)]
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        for number in (1, 2):
            os.dup2(file, number)
        yield
    finally:
        for number, own in zip((1, 2), saved, strict=True):
            os.dup2(own, number)
            os.close(own)
        os.close(file)


ERROR = re.compile(r"(?:^|[\s'\"(])((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): (\S.*)")
INDIRECT = (
    "Engine core initialization failed",
    "Worker failed with error",
    "WorkerProc initialization failed",
    "EngineCore encountered an issue",
    "RuntimeError: cancelled",
)
FAILED = "EngineCore failed to start"
DIED = "died unexpectedly"  # what vLLM says of its workers


def telling(said: str) -> str:
    """The first error in what vLLM printed that is not about another one; empty where there is none."""
    found = ""
    for line in said.splitlines():
        if DIED in line:
            return found or "one of its workers was killed, or crashed"
        match = ERROR.search(line)
        if match is None or " WARNING " in line or any(text in line for text in INDIRECT):
            continue
        found = found or one_line(match[2])
        if "memory" in match[2].lower():
            return one_line(match[2])
    return found


def one_line(error: object) -> str:
    """A message cut to what fits a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def cause(error: Exception) -> str:
    """What a process of vLLM's said, out of the error that it arrives as."""
    match = re.search(r"Worker failed with error ['\"](.*)['\"], please check", str(error), re.S)
    return one_line(match[1] if match else error)
