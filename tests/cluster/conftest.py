"""The cluster files as Ray reads them, and EC2 as moto plays it."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.loaders import JSONFileLoader
from moto import mock_aws

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.fixture(scope="session", autouse=True)
def _models_read_once() -> Iterator[None]:
    """boto3 reads the megabytes that describe EC2 for each session anew, which took two thirds of these tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", staticmethod(functools.cache(JSONFileLoader().load_file)))
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # 1,300 images an account, which nobody asks for
        yield


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
