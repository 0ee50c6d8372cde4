"""A node's taints, asked of an API server on loopback with a certificate and a token of the test's own."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ray_jobs.on_ray import kubernetes_node
from ray_jobs.on_ray.kubernetes_node import ENDING, KubernetesNode
from ray_jobs.on_ray.metadata_service import MetadataError
from ray_jobs.spot_watcher import SpotWatcherConfig, watch


def write_certificate(folder: Path) -> None:
    """ca.crt and its key, of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = (
        made.not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(pem, *plain))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the server answers for each path, to who has the token."""
    write_certificate(tmp_path)
    (tmp_path / "token").write_text("the pod's own\n")
    nodes: dict[str, Any] = {"/api/v1/nodes/node-1": {"spec": {}}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == "Bearer the pod's own"
            body = json.dumps(nodes.get(self.path)).encode()
            self.send_response(200 if known and self.path in nodes else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT_HTTPS", str(server.server_port))
    monkeypatch.setattr(kubernetes_node, "ACCOUNT", tmp_path)
    yield nodes
    server.shutdown()
    thread.join()
    server.server_close()


def put_taints(api: dict[str, Any], *keys: str) -> None:
    taints = [{"key": key, "effect": "NoSchedule"} for key in keys]
    api["/api/v1/nodes/node-1"] = {"spec": {"taints": taints}}


@pytest.mark.parametrize("key", ENDING)
def test_a_node_that_is_about_to_go_says_so(api: dict[str, Any], tmp_path: Path, key: str) -> None:
    node = KubernetesNode("node-1", account=tmp_path)
    assert node.interruption() is None
    put_taints(api, "nvidia.com/gpu", "node.kubernetes.io/unschedulable")
    assert node.interruption() is None
    put_taints(api, "nvidia.com/gpu", key)
    notice = node.interruption()
    assert notice is not None
    assert notice.action == f"taint {key}"
    assert 118 < notice.seconds_left() <= 120
    assert node.interruption() == notice  # it goes no later for being asked again
    put_taints(api)
    assert node.interruption() is None


def test_the_watcher_drains_the_node_of_a_pod(api: dict[str, Any]) -> None:
    put_taints(api, "karpenter.sh/disrupted")
    drains: list[tuple[float, str]] = []
    watch(SpotWatcherConfig(kubernetes_node="node-1"), lambda left, why: drains.append((left, why)))
    ((left, why),) = drains
    assert 110 < left <= 120
    assert "karpenter.sh/disrupted" in why


def test_a_recommendation_is_no_end(api: dict[str, Any], tmp_path: Path) -> None:
    node = KubernetesNode("node-1", account=tmp_path)
    put_taints(api, "aws-node-termination-handler/rebalance-recommendation")
    assert node.interruption() is None
    assert node.rebalance_recommended()


def test_what_goes_wrong_is_said(api: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetadataError, match="403 Forbidden: allow the pod's service account to get nodes"):
        KubernetesNode("another", account=tmp_path).interruption()
    api["/api/v1/nodes/node-1"] = ["no node"]
    with pytest.raises(MetadataError, match="wanted a node as JSON"):
        KubernetesNode("node-1", account=tmp_path).interruption()
    with pytest.raises(MetadataError, match="could not be asked"):
        KubernetesNode("node-1", account=tmp_path / "none").interruption()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(MetadataError, match="this is no pod"):
        KubernetesNode("node-1", account=tmp_path).interruption()
