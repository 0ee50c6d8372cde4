"""Training from a store on S3 into a run folder on S3, then predictions there, against a real endpoint on loopback."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from ray_jobs.on_ray.conversion import convert_cohort

BUCKET = "brats"


@pytest.fixture
def environment(bucket: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An endpoint with one empty bucket, as environment variables that this process has too."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def client() -> Any:
    return boto3.client("s3")


@pytest.mark.system  # started again for minutes
def test_store_run_and_resume_on_s3(
    environment: dict[str, str],
    phantom_source: Path,
    tmp_path: Path,
    start_head: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    run_here,
    small_arguments: Sequence[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", start_head(environment).ray)  # the shared head's workers know no endpoint
    convert_cohort(phantom_source, f"s3://{BUCKET}/phantom.zarr")
    arguments = ["--store", f"s3://{BUCKET}/phantom.zarr", "--runs", f"s3://{BUCKET}/runs", "--name", "far"]
    done = run_here("train.py", *arguments, *small_arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    listed = client().list_objects_v2(Bucket=BUCKET, Prefix="runs/far/")["Contents"]
    names = {item["Key"].removeprefix("runs/far/") for item in listed}
    assert {"config.json", "summary.json", "report.html"} <= names and "is not up to date" not in done.stdout
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert any(name.startswith("cross_section_") for name in names)
    summary = json.loads(client().get_object(Bucket=BUCKET, Key="runs/far/summary.json")["Body"].read())
    checkpoint = summary["checkpoint"].removeprefix(f"s3://{BUCKET}/runs/far/")
    assert f"{checkpoint}/model.safetensors" in names
    assert not (tmp_path / "runs").exists()

    again = run_here("train.py", *arguments, *small_arguments)
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stdout

    places = ["--input", f"s3://{BUCKET}/phantom.zarr", "--output", f"s3://{BUCKET}/predictions/far"]
    arguments = ["--checkpoint", f"s3://{BUCKET}/runs/far", *places, "--no-figures"]
    done = run_here("predict.py", *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    listed = client().list_objects_v2(Bucket=BUCKET, Prefix="predictions/far/")["Contents"]
    names = [item["Key"].removeprefix("predictions/far/") for item in listed]
    assert {"config.json", "metrics.csv", "metrics.json", "report.html"} < set(names)
    assert sum(name.endswith("_seg.nii.gz") for name in names) == 6
    again = run_here("predict.py", *arguments)
    assert again.returncode == 0 and "0 of 6 cases to do" in again.stdout


@pytest.mark.usefixtures("environment")
def test_a_bucket_that_is_not_there_is_one_line(run_here) -> None:
    done = run_here("train.py", "--store", "s3://nowhere/phantom.zarr")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nowhere" in done.stderr
