"""Joining the cluster this process was started for, or starting a private one on this machine."""

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import ray
from ray.exceptions import NodeDiedError, RayError, RaySystemError, TaskUnschedulableError, WorkerCrashedError

from ray_jobs.on_ray.address import on_a_cluster
from ray_jobs.on_ray.failed_setups import end_where_setups_fail
from ray_jobs.on_ray.hidden_paths import SHARE_IT, describe_hidden
from ray_jobs.on_ray.machines_asked_for import ask_for_nothing
from ray_jobs.on_ray.monitor_log import find_logs
from storage import InputError

DASHBOARD_HOST = "127.0.0.1"  # of a private cluster
SECONDS_TO_ANSWER = 10
SECONDS_TO_START = 180  # of a private cluster
GIVE_IT_ROOM = (
    "its logs are in /tmp/ray/session_latest/logs: give the machine less to do, or more memory, and try again"
)


@contextlib.contextmanager
def ray_running(*, tune_drivers: int = 0, dashboard: bool = True) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one that ends with this process; leave it on the way out.

    Without a `dashboard` the state API, which is its, does not answer either.
    """
    # The workers' own lines reach the user through the progress bar; Ray's notes on its workers do not interest them.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if on_a_cluster():
        _join(os.environ["RAY_ADDRESS"], quiet)
    else:
        make_token()
        resources = {"tune_driver": tune_drivers} if tune_drivers else None
        # Ray Train's own helpers must know the address. What frees the resources of a trial that was stopped asks for
        # "the" cluster on this machine, and gives up where two commands run: the next trial then waits for ever.
        # They inherit it from the node: for a runtime_env Ray would start others beside the workers it has ready.
        port = find_free_port()
        told = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}"}
        os.environ.update(told)  # for the head that starts here, and for no later one
        try:
            with starting_no_helpers():
                ray.init(
                    address="local",
                    resources=resources,
                    include_dashboard=None if dashboard else False,
                    dashboard_host=DASHBOARD_HOST,
                    **quiet,
                )
        except OSError as error:
            if "AF_UNIX" not in str(error):
                raise
            raise InputError(
                f"Ray's sockets want a temp folder with a shorter path: set RAY_TMPDIR=/tmp ({error})"
            ) from error
        except (RuntimeError, RayError) as error:
            raise InputError(f"Ray did not start ({_first_line(error)}); {GIVE_IT_ROOM}") from error
        finally:
            for name in told:
                del os.environ[name]
    hush_process_count()
    try:
        yield
    finally:
        ask_for_nothing()
        ray.shutdown()


def _join(address: str, quiet: Mapping[str, Any]) -> None:
    """Join the cluster at RAY_ADDRESS. Raises InputError, which names it, where there is none: Ray waits minutes."""
    said = f"RAY_ADDRESS is {address}, "
    remedy = (
        "give HOST:PORT of a running cluster's head (its port is 6379), or unset RAY_ADDRESS to run on this machine"
    )
    if "://" in address and not address.startswith("ray://"):
        raise InputError(f"{said}as `ray job submit` takes it; in this place it cannot be used: {remedy}")
    place = address.removeprefix("ray://")
    if ":" in place and os.environ.get("RAY_USE_TLS", "0") in ("0", "false") and not _answers(place):
        raise InputError(f"{said}where no Ray answered within {SECONDS_TO_ANSWER} s: {remedy}")
    try:
        ray.init(**quiet)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise InputError(f"{said}{_first_line(error)}: {remedy}") from error
    if (logs := find_logs()) is not None:
        end_where_setups_fail(logs)


def _first_line(error: Exception) -> str:
    """What an error of Ray's says, without what it prints below, and without its full stop."""
    return str(error).partition("\n")[0].rstrip(". ")


def _answers(place: str) -> bool:
    """Return whether something that speaks gRPC, as Ray's heads do, listens at HOST:PORT."""
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=SECONDS_TO_ANSWER)
        except grpc.FutureTimeoutError:
            return False
    return True


@contextlib.contextmanager
def starting_no_helpers() -> Iterator[None]:
    """Ray starts no process that has nothing to do here: an autoscaler's, and one that sends the driver all logs.

    Those that it starts have minutes to come up, not Ray's 30 seconds: other work may keep the machine from them.
    """
    from ray._private import services
    from ray._private.node import Node

    needless = {name: getattr(Node, name) for name in ("start_monitor", "start_log_monitor")}
    for name in needless:
        setattr(Node, name, lambda _: None)
    look = services.get_node
    services.get_node = wait_longer(look)
    try:
        yield
    finally:
        services.get_node = look
        for name, start in needless.items():
            setattr(Node, name, start)


def wait_longer(look: Callable[..., Any]) -> Callable[..., Any]:
    """Return Ray's look-up of a node with SECONDS_TO_START for it.

    It raises RuntimeError where there is none yet, and RaySystemError where whoever keeps the list does not answer.
    """

    def look_again(*of: Any) -> Any:
        until = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                return look(*of)
            except (RuntimeError, RaySystemError) as error:
                if time.monotonic() > until:
                    raise InputError(f"Ray did not start within {SECONDS_TO_START} s; {GIVE_IT_ROOM}") from error
            time.sleep(0.1)

    return look_again


def has_dashboard() -> bool:
    """Whether the cluster that this process has joined shows itself."""
    node = ray._private.worker._global_node  # none in a client of `ray://`
    return node is None or bool(node.webui_url)


def find_dashboard() -> str | None:
    """Return the URL at which the cluster shows itself to its head, where that is known."""
    node = ray._private.worker._global_node
    return f"http://{node.webui_url}" if node is not None and node.webui_url else None


def find_free_port() -> int:
    """Find a port that nobody listens on.

    It lies between the ports of Ray's workers (10002 to 19999) and those that Linux deals out to whoever asks for any
    (from 32768): nobody is likely to get it before it is bound.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            return port


def hush_process_count() -> None:
    """Take out Ray's warning of many processes: a search's drivers and controllers wait, and nobody can do about it."""
    from ray._private import worker

    print_message = worker.print_to_stdstream

    def print_other(data: dict[str, Any], *, ignore_prefix: bool) -> None:
        if not any("worker processes have been started on node" in line for line in data["lines"]):
            print_message(data, ignore_prefix=ignore_prefix)

    worker.print_to_stdstream = print_other


def make_token() -> None:
    """See to it that this user has a token for private clusters, which only this user can read.

    Ray would write the file itself, but readable by everyone.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ["RAY_AUTH_MODE"] != "token" or os.environ.get("RAY_AUTH_TOKEN") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def choose_workers(asked: int | None, *, gpu: bool | None) -> tuple[int, bool]:
    """Return how many training processes to run and whether each has a GPU.

    On a private cluster more workers than CPUs or GPUs are refused; on a cluster that may grow they are waited for.
    """
    gpus, cpus = _count_devices()
    use_gpu = gpus > 0 if gpu is None else gpu
    if on_a_cluster():
        return asked or (gpus if use_gpu else 0) or 2, use_gpu
    kind, limit = ("GPUs", gpus) if use_gpu else ("CPUs", cpus)
    if use_gpu and not gpus:
        raise InputError("this run wants GPUs, this machine has none: give --gpu False, or the preset demo or laptop")
    if asked is None:
        return gpus if use_gpu else min(2, cpus), use_gpu
    if asked > limit:
        raise InputError(f"--workers {asked} wants {asked} {kind}, this machine has {limit}: give --workers {limit}")
    return asked, use_gpu


def most_workers(*, use_gpu: bool) -> int | None:
    """Return how many workers a private cluster has room for; None on a cluster, which may grow."""
    gpus, cpus = _count_devices()
    return None if on_a_cluster() else gpus if use_gpu else cpus


def _count_devices() -> tuple[int, int]:
    resources = ray.cluster_resources()
    return int(resources.get("GPU", 0)), int(resources.get("CPU", 0))


def refuse_hidden_folder(folder: str, what: str) -> None:
    """Raise InputError where some node does not see the local path `folder`, which need not exist yet.

    Of the nodes there are: a cluster that starts from zero has none but the head, and training looks again (fit.py).
    """
    if "://" in folder or len(_living_nodes()) < 2:
        return
    place = next(parent for parent in (Path(folder), *Path(folder).parents) if parent.is_dir())
    # Another node may have a folder of this name that is not this one, so the answer hangs on a file made just now.
    marker = place / f".seen-by-all-nodes-{secrets.token_hex(8)}"
    marker.touch()
    try:
        _refuse_unless_seen(marker, f"{what} {folder}", SHARE_IT)
    finally:
        marker.unlink()


def refuse_hidden_source(source: str) -> None:
    """Raise InputError where some node does not see the source. Writes nothing there: it may be read-only."""
    if "://" not in source and len(_living_nodes()) > 1:
        _refuse_unless_seen(
            Path(source), f"source {source}", "put it on storage that all nodes mount, or convert on one machine"
        )


def _living_nodes() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _refuse_unless_seen(path: Path, name: str, remedy: str) -> None:
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    sees = ray.remote(num_cpus=0)(Path.exists)
    nodes = [strategy(node, soft=False) for node in _living_nodes()]
    answers = [sees.options(scheduling_strategy=node).remote(path) for node in nodes]
    found = [seen for seen in map(_unless_its_node_went, answers) if seen is not None]
    if not all(found):
        raise InputError(describe_hidden(name, found, remedy=remedy))


def _unless_its_node_went(answer: "ray.ObjectRef[bool]") -> bool | None:
    """Its answer; None where the node has gone since it was found alive, as idle ones do at any moment."""
    try:
        return ray.get(answer)
    except (TaskUnschedulableError, NodeDiedError, WorkerCrashedError):
        return None
