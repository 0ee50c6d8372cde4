"""A bucket that is there for a test."""

import http.client
from collections.abc import Iterator

import pytest

BUCKET = "brats"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A real S3 endpoint over HTTP on loopback."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is a development dependency")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket's URL, with the environment that a user would set."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    request(endpoint, "POST", "/moto-api/reset")
    request(endpoint, "PUT", f"/{BUCKET}")
    return f"s3://{BUCKET}/cohort"


def request(endpoint: str, method: str, path: str) -> None:
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    connection.request(method, path, headers={"Content-Length": "0"})
    assert connection.getresponse().status in (200, 204)
    connection.close()
