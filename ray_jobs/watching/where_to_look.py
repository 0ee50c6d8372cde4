"""Where a running job can be looked at, with the tunnels that lead there from where its user sits."""

import getpass
import json
import os
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from ray_jobs.on_ray.address import cluster_file, on_a_cluster

DASHBOARD, TENSORBOARD, GRAFANA = 8265, 6006, 3000  # the ports at which each is found unless told otherwise
TOKEN = "token: cat ~/.ray/auth_token"  # the dashboard asks for it


def where_to_look(runs: str, dashboard: str | None) -> list[str]:
    """Say it in lines, for the runs in a folder and Ray's dashboard at a URL of this machine (None: there is none)."""
    if on_a_cluster() and (cluster := os.environ.get("RAY_CLUSTER_NAME")):  # KubeRay sets it in each pod
        return _in_kubernetes(runs, cluster, dashboard)
    if on_a_cluster() and cluster_file().exists():
        return _on_a_head(runs, dashboard)
    return _on_this_machine(runs, dashboard)


def _on_this_machine(runs: str, dashboard: str | None) -> list[str]:
    ports = [str(urlsplit(dashboard).port or DASHBOARD)] if dashboard else []
    lines = []
    if from_elsewhere := os.environ.get("SSH_CONNECTION"):  # client, its port, this machine, its port
        tunnels = " ".join(f"-L {port}:127.0.0.1:{port}" for port in [*ports, str(TENSORBOARD)])
        here = from_elsewhere.split()[2]
        lines.append(f"to look from where you sit: ssh -N {tunnels} {getpass.getuser()}@{here}")
    if dashboard:
        lines.append(f"Ray's dashboard: {dashboard} ({TOKEN})")
    return [*lines, f"TensorBoard: tensorboard --logdir {runs}, then {_local(TENSORBOARD)}"]


def _on_a_head(runs: str, dashboard: str | None) -> list[str]:
    """For who typed `ray up` on a machine of their own. The head's file does not say what it was called there."""
    cluster = json.loads(cluster_file().read_text(encoding="utf-8"))
    file = "cluster/local.yaml" if cluster["provider"]["type"] == "local" else "cluster/aws.yaml"
    lines = [f"to look from where you typed `ray up` ({file} or your copy of it, cluster {cluster['cluster_name']}):"]
    if dashboard:
        lines.append(f"Ray's dashboard: ray dashboard {file}, then {_local(DASHBOARD)} ({TOKEN})")
    board = f"tensorboard --logdir {runs} --port {TENSORBOARD}"
    lines.append(f"TensorBoard: ray exec {file} --port-forward {TENSORBOARD} '{board}', then {_local(TENSORBOARD)}")
    if _answers(GRAFANA):
        tunnel = f"ray dashboard {file} --port {GRAFANA} --remote-port {GRAFANA}"
        lines.append(f"Grafana: {tunnel}, then {_local(GRAFANA)}")
    return lines


def _in_kubernetes(runs: str, cluster: str, dashboard: str | None) -> list[str]:
    lines = []
    if dashboard:
        forward = f"kubectl port-forward service/{cluster}-head-svc {DASHBOARD}"
        token = f"token: kubectl get secret {cluster} --output jsonpath={{.data.auth_token}} | base64 --decode"
        lines.append(f"Ray's dashboard: {forward}, then {_local(DASHBOARD)} ({token})")
    return [*lines, f"TensorBoard: tensorboard --logdir {runs}, then {_local(TENSORBOARD)}"]


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _answers(port: int) -> bool:
    """Whether somebody listens at this port of this machine: a head that could not get Grafana does without."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False
