"""The cluster files as Ray reads them, and EC2 as moto plays it."""

import functools
import importlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from botocore.loaders import JSONFileLoader
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ssm.models import Parameter, ssm_backends

CLUSTER = Path(__file__).parents[2] / "cluster"
REGION = "us-west-2"
IMAGE = "ami-0123456789abcdef0"
Account = Callable[..., int]
ALARM = ("--alarm-to", "somebody@example.org")
CREATE = ("create", "--bucket", "somebodys-brats", "--ssh-from", "203.0.113.7/32", *ALARM)


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


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """account.py, which is a script: its folder is first on the path."""
    monkeypatch.syspath_prepend(CLUSTER)
    return importlib.import_module("account")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(CLUSTER / "aws.yaml", tmp_path))


def publish_image(region: str, image: str) -> None:
    name = importlib.import_module("machine_image").IMAGE_PARAMETER
    parameter = Parameter(
        account_id=DEFAULT_ACCOUNT_ID, name=name, value=image, parameter_type="String", description="",
        allowed_pattern=None, keyid=None, last_modified_date=time.time(), version=1, data_type="text",
    )  # fmt: skip
    ssm_backends[DEFAULT_ACCOUNT_ID][region]._parameters[name].append(parameter)  # moto lets nobody write below /aws


@pytest.fixture
def account(amazon: None, module: ModuleType, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Run `python cluster/account.py …` on a copy of aws.yaml, in an account where AWS publishes its image."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    publish_image(REGION, IMAGE)

    def run(*arguments: str, of: Path = file) -> int:
        status: int = module.main([*arguments, "--file", str(of)])
        return status

    return run
