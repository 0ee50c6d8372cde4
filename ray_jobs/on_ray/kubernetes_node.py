"""What a Kubernetes node's taints say about its end: what takes nodes away puts one on them before.

A pod reads its own node with its service account's token, which must be allowed to (docs/clusters.md).
"""

import json
import os
import ssl
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from ray_jobs.on_ray.metadata_service import NOTICE, Interruption, MetadataError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# AWS's termination handler, Karpenter (both names it has had), GKE, and the autoscaler of clusters.
ENDING = (
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "aws-node-termination-handler/scheduled-maintenance",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "cloud.google.com/impending-node-termination",
    "ToBeDeletedByClusterAutoscaler",
)
AT_RISK = "aws-node-termination-handler/rebalance-recommendation"


class KubernetesNode:
    """The node `name`, asked of the API server that every pod knows; `account` is the folder of the pod's own."""

    def __init__(self, name: str, *, account: Path | None = None, timeout: float = 5.0) -> None:
        self._name, self._account, self._timeout = name, account or ACCOUNT, timeout
        self._since: datetime | None = None

    def interruption(self) -> Interruption | None:
        """Return that the node goes two minutes after its taint was first seen, if it has one. Raises MetadataError."""
        ending = [key for key in self._taints() if key in ENDING]
        if not ending:
            self._since = None  # taken back
            return None
        self._since = self._since or datetime.now(UTC)
        return Interruption(action=f"taint {ending[0]}", time=self._since + NOTICE)

    def rebalance_recommended(self) -> bool:
        """Return whether AWS sees a raised risk of interruption. Raises MetadataError."""
        return AT_RISK in self._taints()

    def _taints(self) -> list[str]:
        url = f"{api_server()}/api/v1/nodes/{self._name}"
        try:
            token = (self._account / "token").read_text().strip()  # anew: Kubernetes renews it
            request = Request(url, headers={"Authorization": f"Bearer {token}"})
            with self._opener(url).open(request, timeout=self._timeout) as response:
                spec = json.loads(response.read())["spec"]
            return [str(taint["key"]) for taint in spec.get("taints") or ()]
        except HTTPError as error:
            remedy = ": allow the pod's service account to get nodes" if error.code in (401, 403) else ""
            raise MetadataError(f"{url} answered {error.code} {error.reason}{remedy}") from error
        except (OSError, HTTPException) as error:
            raise MetadataError(f"the node {self._name} could not be asked of {url} ({error})") from error
        except (ValueError, TypeError, KeyError) as error:
            raise MetadataError(f"wanted a node as JSON from {url}, got something else ({error!r})") from error

    def _opener(self, url: str) -> Any:
        handlers: list[Any] = [ProxyHandler({})]
        if url.startswith("https:"):
            handlers.append(HTTPSHandler(context=ssl.create_default_context(cafile=str(self._account / "ca.crt"))))
        return build_opener(*handlers)


def api_server() -> str:
    """The API server's address, as Kubernetes tells every container. Raises MetadataError outside of one."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS", "443")
    if not host:
        raise MetadataError("KUBERNETES_SERVICE_HOST is not set: this is no pod")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
