"""The cluster files as Ray reads them, and EC2 as moto plays it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.fixture
def aws() -> dict[str, Any]:
    """cluster/aws.yaml, the test's own copy."""
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    return loaded


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS account in this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        yield
