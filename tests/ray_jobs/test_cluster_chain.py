"""The chain users type: a head on loopback, `ray job submit -- python ray_jobs/train.py`."""

import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage import CohortStore

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.mark.processes
def test_submitted_job_trains_on_the_store_of_the_environment(
    shared_head: Any, tmp_path: Path, phantom_store: CohortStore, small_arguments: Sequence[str]
) -> None:
    head = shared_head
    head.wait_for_jobs()
    variables = {"BRATS_STORE": phantom_store.uri, "BRATS_RUNS": str(tmp_path / "runs"), "BRATS_WORKERS": "2"}
    runtime = json.dumps({"env_vars": variables})
    submit = [*RAY, "job", "submit", "--address", head.address, "--runtime-env-json", runtime]
    done = subprocess.run(
        [*submit, "--", "python", "ray_jobs/train.py", "--name", "job", *small_arguments],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "runs" / "job" / "summary.json").read_text())
    assert summary["store"] == phantom_store.uri
    assert summary["throughput"]["world_size"] == 2
    refused = subprocess.run(
        [*submit, "--", "true"],
        env=head.environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode != 0
