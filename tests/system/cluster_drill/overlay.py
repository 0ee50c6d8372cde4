"""aws.yaml as the drill uses it: the file itself, but for what a namespace is not."""

from pathlib import Path
from typing import Any

import yaml

from tests.system.cluster_drill.hosts import GATEWAY

ENDPOINT = f"http://{GATEWAY}:5500"


def overlay(file: Path, home: Path) -> dict[str, Any]:
    """Return the cluster of `file` for hosts without GPU, public address, or more than two cores between them.

    All that only waits is shorter: what is set up for nobody goes sooner, and the autoscaler looks more often.
    """
    cluster: dict[str, Any] = yaml.safe_load(file.read_text())
    cluster["provider"]["use_internal_ips"] = True
    # ssh looks for ~ in the list of users, and this user's home is the drill's.
    cluster["auth"]["ssh_private_key"] = cluster["auth"]["ssh_private_key"].replace("~", str(home))
    for name, kind in cluster["available_node_types"].items():
        if name != cluster["head_node_type"]:
            kind["resources"] |= {"CPU": 1, "GPU": 0}
    environment = (
        f"AWS_ENDPOINT_URL={ENDPOINT} BRATS_PRESET=demo BRATS_WORKERS=2 BRATS_WORKER_ALONE_MINUTES=1 "
        "RAY_AUTOSCALER_RECONCILE_REQUEST_STATUS_TIMEOUT_S=15 RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S=15 "
        "AUTOSCALER_UPDATE_INTERVAL_S=3 AUTOSCALER_NODE_SSH_INTERVAL_S=1 "
        "RAY_gcs_rpc_server_reconnect_timeout_s=20 OMP_NUM_THREADS=1"
    )
    cluster["setup_commands"].insert(1, f"printf 'export %s\\n' {environment} >> ~/brats.env")
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        cluster[part] = [text.replace("memory=1000000000", "memory=120000000") for text in cluster[part]]
    return cluster
