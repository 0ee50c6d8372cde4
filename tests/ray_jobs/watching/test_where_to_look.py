"""Where to look, in words that work where the user sits."""

import json
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from ray.scripts.scripts import cli

from ray_jobs.watching import where_to_look as module
from ray_jobs.watching.where_to_look import where_to_look

ROOT = Path(__file__).parents[3]
HERE = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def a_plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ann")
    for name in ("RAY_ADDRESS", "RAY_CLUSTER_NAME", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(module, "GRAFANA", listener.getsockname()[1])
        yield


def make_head(file: str) -> None:
    """This machine is a head that `ray up` made of one of our cluster files."""
    cluster = yaml.safe_load((ROOT / file).read_text())
    (Path.home() / "ray_bootstrap_config.yaml").write_text(json.dumps(cluster))


def test_on_a_machine_of_ones_own() -> None:
    assert where_to_look("/home/ann/runs", HERE) == [
        "Ray's dashboard: http://127.0.0.1:8265 (token: cat ~/.ray/auth_token)",
        "TensorBoard: tensorboard --logdir /home/ann/runs, then http://127.0.0.1:6006",
    ]
    assert where_to_look("/home/ann/runs", None) == [
        "TensorBoard: tensorboard --logdir /home/ann/runs, then http://127.0.0.1:6006"
    ]


def test_over_ssh_a_tunnel_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.7 50122 10.0.0.5 22")
    first, *_ = where_to_look("runs", "http://127.0.0.1:8266")
    tunnel = "ssh -N -L 8266:127.0.0.1:8266 -L 6006:127.0.0.1:6006 ann@10.0.0.5"
    assert first == f"to look from where you sit: {tunnel}"
    first, *_ = where_to_look("runs", None)
    assert first.endswith("ssh -N -L 6006:127.0.0.1:6006 ann@10.0.0.5")


@pytest.mark.parametrize(("file", "name"), [("cluster/aws.yaml", "brats"), ("cluster/local.yaml", "brats-local")])
def test_a_job_on_a_head_names_tunnels_for_who_typed_ray_up(
    file: str, name: str, monkeypatch: pytest.MonkeyPatch, grafana: None
) -> None:
    make_head(file)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.7 50122 10.0.0.5 22")  # `ray up` started Ray by SSH
    first, *lines = where_to_look("s3://bucket/runs", "http://10.0.0.5:8265")
    assert file in first and name in first
    assert [line.partition(":")[0] for line in lines] == ["Ray's dashboard", "TensorBoard", "Grafana"]
    assert "'tensorboard --logdir s3://bucket/runs --port 6006', then http://127.0.0.1:6006" in lines[1]
    for line in lines:
        words = shlex.split(line.partition(": ")[2].partition(", then ")[0])
        assert words[0] == "ray" and words[2] == file
        command = cli.commands[words[1]]
        command.make_parser(click.Context(command)).parse_args(words[2:])  # raises where Ray has no such option


def test_a_head_that_has_no_grafana_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    make_head("cluster/aws.yaml")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(module, "GRAFANA", listener.getsockname()[1])
    assert not any("Grafana" in line for line in where_to_look("s3://bucket/runs", HERE))


def test_what_ray_up_left_behind_says_nothing_of_a_run_without_its_cluster() -> None:
    make_head("cluster/aws.yaml")
    assert where_to_look("runs", HERE)[0].startswith("Ray's dashboard: http://127.0.0.1:8265")


def test_in_kubernetes_the_service_is_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setenv("RAY_CLUSTER_NAME", "brats-train-x7k2p")
    assert where_to_look("s3://bucket/runs", "http://10.4.1.2:8265") == [
        "Ray's dashboard: kubectl port-forward service/brats-train-x7k2p-head-svc 8265, then http://127.0.0.1:8265 "
        "(token: kubectl get secret brats-train-x7k2p --output jsonpath={.data.auth_token} | base64 --decode)",
        "TensorBoard: tensorboard --logdir s3://bucket/runs, then http://127.0.0.1:6006",
    ]
