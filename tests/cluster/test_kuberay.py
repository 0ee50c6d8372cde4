"""kuberay.yaml against the RayJob's fields, what it promises of security, and the Dockerfile against the tree."""

import json
import re
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tyro
import yaml

from ray_jobs.settings.presets import preset
from ray_jobs.spot_watcher import SpotWatcherConfig
from ray_jobs.training.planning import check_world_sizes

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load((Path(__file__).parent / "schemas" / "rayjob.yaml").read_text())


@pytest.fixture
def job() -> dict[str, Any]:
    *_, loaded = documents()
    return loaded


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "cluster" / "kuberay.yaml").read_text()))


def problems(job: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(job)]


def head_and_worker(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"], group


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_kuberay_knows_every_field(job: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert problems(job) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c["workerGroupSpecs"][0].update(minReplica=1),
        lambda c: c["autoscalerOptions"].update(version="v3"),
        lambda c: c["headGroupSpec"]["template"]["spec"]["containers"][0].update(imag="x"),
        lambda c: c["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda c: c["workerGroupSpecs"][0]["template"]["spec"]["volumes"][0].update(emptydir={}),
        lambda c: c["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda c: c["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["lifecycle"].update(prestop={}),
    ],
)
def test_a_slip_would_be_found(job: dict[str, Any], spoil: Callable[[dict[str, Any]], Any]) -> None:
    spoil(job["spec"]["rayClusterSpec"])
    assert problems(job)


def test_the_head_trains_nothing_and_drives_searches(job: dict[str, Any]) -> None:
    head, group = head_and_worker(job)
    start = head["rayStartParams"]
    assert start["num-cpus"] == "0"
    # KubeRay puts the text on a shell's command line, so it is JSON within one pair of double quotes.
    at_once = group["maxReplicas"] * int(container(group)["resources"]["limits"]["nvidia.com/gpu"])
    assert json.loads(json.loads(start["resources"])) == {"tune_driver": at_once}


def test_the_cluster_can_grow_to_what_the_run_wants(job: dict[str, Any]) -> None:
    head, group = head_and_worker(job)
    environment = {item["name"]: item["value"] for item in container(head)["env"] if "value" in item}
    assert container(group)["env"] == container(head)["env"]
    count = int(environment["BRATS_WORKERS"])
    config = preset(environment["BRATS_PRESET"])
    check_world_sizes(config, count, count)
    assert count <= group["maxReplicas"] * int(container(group)["resources"]["limits"]["nvidia.com/gpu"])
    assert group["minReplicas"] == group["replicas"] == 0
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    (cache,) = [item for item in group["template"]["spec"]["volumes"] if item["name"] == "scratch"]
    assert int(cache["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3 > config.cache_gb * 1e9


def test_a_lost_log_connection_or_node_does_not_end_it(job: dict[str, Any]) -> None:
    assert job["spec"]["submissionMode"] == "HTTPMode"
    assert job["spec"]["backoffLimit"] >= 10
    head, group = head_and_worker(job)
    for each in (head, group):
        annotations = each["template"]["metadata"]["annotations"]
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert head["template"]["spec"]["nodeSelector"] == {"eks.amazonaws.com/capacityType": "ON_DEMAND"}
    assert gibibytes(container(head)["resources"]["requests"]["memory"]) > 8 * 0.6 + 4  # trial drivers, and Ray's own


def gibibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi"))


def test_scratch_has_a_disk_that_was_asked_for(job: dict[str, Any]) -> None:
    group = head_and_worker(job)[1]
    (cache,) = [item for item in group["template"]["spec"]["volumes"] if item["name"] == "scratch"]
    asked = container(group)["resources"]["requests"]["ephemeral-storage"]
    assert gibibytes(asked) > gibibytes(cache["emptyDir"]["sizeLimit"])


def test_head_and_workers_have_accounts_of_their_own(job: dict[str, Any]) -> None:
    made = {each["metadata"]["name"] for each in documents() if each["kind"] == "ServiceAccount"}
    used = [each["template"]["spec"]["serviceAccountName"] for each in head_and_worker(job)]
    assert len(set(used)) == 2
    assert set(used) == made


def test_a_pod_that_must_go_drains_its_node_within_its_grace(job: dict[str, Any]) -> None:
    group = head_and_worker(job)[1]
    python, script, *arguments = container(group)["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, script) == ("python", "ray_jobs/spot_watcher.py")
    config = tyro.cli(SpotWatcherConfig, args=arguments)
    assert config.leave_in is not None
    assert 0 < config.leave_in < group["template"]["spec"]["terminationGracePeriodSeconds"]


def test_each_worker_watches_its_node_for_taints(job: dict[str, Any]) -> None:
    group = head_and_worker(job)[1]
    shell, _, line = container(group)["lifecycle"]["postStart"]["exec"]["command"]
    assert shell == "sh"
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container(group)["env"]
    words = shlex.split(line.partition("<")[0].replace("$NODE_NAME", "node-1"))
    assert words[:4] == ["setsid", "--fork", "python", "ray_jobs/spot_watcher.py"]  # or the pod would not start
    assert tyro.cli(SpotWatcherConfig, args=words[4:]).kubernetes_node == "node-1"


def test_it_is_closed(job: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert head_and_worker(job)[0]["serviceType"] == "ClusterIP"
    for group in head_and_worker(job):
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        assert container(group)["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_image_has_the_project_and_nothing_else() -> None:
    recipe = (ROOT / "cluster" / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY --chown=ray:ray (.+) \S+$", recipe, re.MULTILINE) for name in line.split()
    }
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= copied
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    lines = [line for line in ignored if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert "USER ray" in recipe
    assert "--constraint constraints.txt" in recipe
