"""Stage 1 by tasks of a Ray cluster, each of which does what a process by itself does.

Claims in the store decide who does what, with Ray as without. Ray finds room, starts processes and says when one dies.
The command's own process watches: it passes on what the tasks say, frees what a dead one had claimed, and starts that
again. Ray's own retries are off: their next attempt would be the first to hear of a death, and may wait long for room.

This is the only module that knows Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RpcError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cskd_pipeline.errors import CskdError, RetryError, StoppedError, UsageError
from cskd_pipeline.runtime.process_name import this_process
from cskd_pipeline.runtime.processors import MAX_WORKERS
from cskd_pipeline.storage import Storage
from cskd_pipeline.store.claims import forget_process


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What a task is told of its place among the others.

    Attributes:
        rank, world: its number, and that of all.
        device: for the teacher.
        workers: processes that make crops.
    """

    rank: int
    world: int
    device: str
    workers: int


Report = Callable[[str], None]
Work = Callable[[Share, Report], object]
"""Returns when every block is committed, by whichever process; ends in order when interrupted as by Ctrl-C. It is sent
to other machines: a function of a module, or a `functools.partial` of one, with arguments that mean the same there."""

MAX_DEATHS = 5
"""Processes of one task that may die one after another while no task says anything new."""

# Ray's own types are of no help where resources are arguments.
_ray: Any = ray

_UNSEEN_CPUS = 4  # of a task for nodes that are yet to join the cluster, where nothing else is known
_LOOK_S = 0.5
_GRACE_S = 60.0  # for tasks to end by themselves: they finish the chunk in work and write the block that is made
_ANSWER_S = 30.0  # where Ray gives none it is dead: SIGTERM may have been for the whole process group
_NO_ROOM_S = 60.0
_CONNECT_S = 10.0
_OBJECT_STORE_BYTES = 100 << 20  # of a Ray of our own: nothing but a few words goes through it


def run_on_ray(
    work: Work,
    storage: Storage,
    *,
    tasks: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    address: str | None = None,
    report: Report,
) -> None:
    """Have tasks do `work` side by side until one of them returns; they begin as the cluster has room.

    Args:
        work: see `Work`.
        storage: of the store that it fills.
        tasks: how many; None: one for each GPU of the cluster.
        workers: processes that make crops, for each task; None: as many as its share of a node has room for.
        device: "cuda", "cpu" or None, for what the cluster has.
        address: of the cluster, as for `ray.init`; None: $RAY_ADDRESS, or else a Ray of this run's own on this machine.
        report: told what is going on.

    Raises:
        StoppedError: interrupted; committed blocks are kept.
        RetryError: the cluster cannot be reached, or processes die again and again.
        UsageError: the device is none that Ray gives.
        CskdError: whatever a task's work met; the others have stopped.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    with _connected(address):
        nodes = [node["Resources"] for node in _ray.nodes() if node["Alive"]]
        plan = plan_tasks(nodes, tasks=tasks, workers=workers, device=device)
        if plan.gpus and address is None and not any(node.get("GPU") for node in nodes):
            raise UsageError("--device cuda is given, but Ray finds no GPU here; give --device cpu or --ray-address")
        _Tasks(work, storage, plan, report).run()


class Plan(NamedTuple):
    """What to ask Ray for.

    Attributes:
        tasks: how many.
        gpus: of each, 0 or 1.
        cpus: of each.
        workers: processes that make crops, of each.
    """

    tasks: int
    gpus: int
    cpus: int
    workers: int


def plan_tasks(
    nodes: Sequence[Mapping[str, float]], *, tasks: int | None, workers: int | None, device: str | None
) -> Plan:
    """As many tasks as there are GPUs, or one where there are none, and an even share of processors for each.

    No task asks for more than a node has for it: it would wait for ever.

    Args:
        nodes: "CPU", "GPU" and other resources of each node.
        tasks: how many; None: see above.
        workers: of each task; None: its processors but one, at most 16, or 3 where no node has a GPU yet.
        device: "cpu" leaves GPUs alone, "cuda" asks for them though there are none yet; None takes those there are.

    Raises:
        UsageError: the device is one that Ray does not choose.
    """
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device} is given, but Ray chooses each task's GPU; give cuda or cpu")
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    on_gpu = device == "cuda" or (device is None and gpus > 0)
    count = tasks or (max(1, gpus) if on_gpu else 1)
    if on_gpu and gpus:
        share = min(int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1)
    elif on_gpu:
        share = _UNSEEN_CPUS if workers is None else workers + 1
    else:
        processors = [int(node.get("CPU", 0)) for node in nodes]
        share = min(max(processors, default=1), sum(processors) // count)
    if workers is None:
        workers = max(1, min(MAX_WORKERS, share - 1))
    return Plan(count, int(on_gpu), max(1, min(share, workers + 1)), workers)


class _Begun(NamedTuple):
    """A process has begun the work of a task."""

    rank: int
    process: str
    node: str
    place: str


class _Mail:
    """The actor that keeps what tasks say, (rank, line) or a `_Begun`, until it is fetched."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def put(self, said: Any) -> None:
        self._kept.append(said)

    def fetch(self) -> list[Any]:
        kept, self._kept = self._kept, []
        return kept


def _task(work: Work, mail: Any, plan: Plan, rank: int, threads: int) -> None:
    """The work of one task, with so many threads of torch as the command would have by itself.

    Ray would have it use one, and the number of threads can change a teacher's last bits.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray cancels by it, but may have been started without

    def put(said: object) -> None:
        ray.get(mail.put.remote(said))

    share = Share(rank, plan.tasks, "cuda:0" if plan.gpus else "cpu", plan.workers)
    node = ray.get_runtime_context().get_node_id()
    put(_Begun(rank, this_process(), node, f"{socket.gethostname()}, process {os.getpid()}"))
    torch.set_num_threads(threads)
    work(share, lambda line: put((rank, line)))


class _Tasks:
    """All tasks of a run, from their start to their end, as the command's process sees them."""

    def __init__(self, work: Work, storage: Storage, plan: Plan, report: Report) -> None:
        self._work, self._storage, self._plan, self._report = work, storage, plan, report
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mail: Any = _ray.remote(num_cpus=0, scheduling_strategy=here)(_Mail).remote()
        # A process for each: what a task did to its process, or to its GPU, is over with it.
        self._task = _ray.remote(num_gpus=plan.gpus, num_cpus=plan.cpus, max_retries=0, max_calls=1)(_task)
        self._running: dict[Any, int] = {}
        self._begun: dict[int, _Begun] = {}
        self._said: set[str] = set()
        self._deaths: Counter[int] = Counter()
        self._no_room = time.monotonic() + _NO_ROOM_S

    def run(self) -> None:
        """See `run_on_ray`."""
        try:
            try:
                ray.get(self._mail.fetch.remote())  # from here on it answers at once
                for rank in range(self._plan.tasks):
                    self._start(rank)
                while not self._finished():
                    self._tell_of_room()
            finally:
                self._stop()
        except KeyboardInterrupt:
            raise StoppedError(
                f"stopped; what was committed to {self._storage.address} is kept; run the same command to continue"
            ) from None
        except (RayActorError, RpcError, GetTimeoutError) as error:
            raise RetryError(f"Ray gives no answer ({_first_line(error)}); run the same command to continue") from error

    def _start(self, rank: int) -> None:
        task = self._task.remote(self._work, self._mail, self._plan, rank, torch.get_num_threads())
        self._running[task] = rank

    def _finished(self) -> bool:
        """Look at everything once, for at most half a second; whether a task has returned: nothing is left to do."""
        for ended, rank in self._look():
            try:
                ray.get(ended)
                return True
            except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):
                self._start_again(rank)
            except RayError as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                if isinstance(cause, CskdError | OSError | MemoryError | torch.OutOfMemoryError):
                    raise cause from None  # the command line has words for these
                if not isinstance(cause, RayError) and "failed to import" not in str(cause):
                    raise  # a bug
                raise RetryError(
                    f"task {rank} cannot be run ({_first_line(cause)}); all nodes need the same cskd-pipeline"
                ) from error
        alive = {node["NodeID"] for node in _ray.nodes() if node["Alive"]}
        for task, rank in [*self._running.items()]:
            if rank in self._begun and self._begun[rank].node not in alive:  # of its task Ray says so minutes later
                del self._running[task]
                self._start_again(rank)
        return False

    def _look(self, *, answer_s: float = _ANSWER_S) -> list[tuple[Any, int]]:
        """The tasks that have ended, and their numbers, after what they said was passed on."""
        ended, _ = ray.wait([*self._running], num_returns=1, timeout=_LOOK_S)
        for said in ray.get(self._mail.fetch.remote(), timeout=answer_s):
            if isinstance(said, _Begun):
                self._begun[said.rank] = said
                self._report(f"task {said.rank} is at work on {said.place}")
            elif said[1] not in self._said:  # all tasks find the same data, teacher and store
                self._said.add(said[1])
                self._deaths.clear()
                self._report(f"{said[1]} (task {said[0]})")
        return [(task, self._running.pop(task)) for task in ended]

    def _start_again(self, rank: int) -> None:
        """Free what a dead process had claimed, and have another in its place."""
        self._deaths[rank] += 1
        if self._deaths[rank] == MAX_DEATHS:
            raise RetryError(
                f"{MAX_DEATHS} processes of task {rank} died one after another, most likely for want of memory; give "
                "fewer --workers, a smaller --chunk or fewer --tasks"
            )
        self._report(f"the process of task {rank} died; others make its blocks, and Ray starts it again")
        if rank in self._begun:
            with contextlib.suppress(CskdError):  # its claims are free after a while in any case
                forget_process(self._storage, self._begun.pop(rank).process)
        self._start(rank)

    def _tell_of_room(self) -> None:
        if time.monotonic() < self._no_room:
            return
        self._no_room = float("inf")
        waiting = self._plan.tasks - len(self._begun)
        if waiting:
            self._report(
                f"{waiting} of {self._plan.tasks} tasks have not begun; each needs {self._plan.gpus} GPU and "
                f"{self._plan.cpus} CPU, and begins when the cluster has room"
            )

    def _stop(self) -> None:
        """Let all that are at work stop in order; those that take too long end with this process."""
        with contextlib.suppress(RayError, KeyboardInterrupt):  # Ray is dead, or its user does not want to wait
            for task in self._running:
                ray.cancel(task, recursive=False)  # not what it says meanwhile
            deadline = time.monotonic() + _GRACE_S
            while self._running and time.monotonic() < deadline:
                self._look(answer_s=_ANSWER_S / 3)


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or to a Ray that lives as long as this; neither says anything by itself."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns that this will be the default
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks that were told to stop
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "address": address or "local"}
    if address is None:
        settings |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _require_reachable(address)
    # What Ray says of dead processes goes to stdout whatever its settings; the report has it already.
    with contextlib.redirect_stdout(io.StringIO()):
        with _signals_kept():
            try:
                ray.init(**settings)
            except ValueError as error:
                raise UsageError(f"--ray-address {address}: {_first_line(error)}") from error
            except (OSError, RuntimeError, RayError, SystemExit) as error:
                raise _unreachable(address, _first_line(error)) from error
        try:
            yield
        finally:
            with _signals_kept():
                ray.shutdown()


def _require_reachable(address: str) -> None:
    """Raise RetryError unless somebody listens there: Ray itself would try for minutes, and end this process then."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray-address {address} is a Ray client's; give the cluster's HOST:PORT on one of its machines, or run "
            "the command by `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto", or Ray will say what is wrong
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str | None, reason: str) -> RetryError:
    where = "no Ray could be started here" if address is None else f"no Ray cluster can be reached at {address}"
    return RetryError(
        f"{where} ({reason}); check --ray-address, and set RAY_AUTH_MODE=token where the cluster asks for one"
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """What SIGTERM does is the command line's business, though Ray puts a handler of its own in place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
