"""What is kept of a job for the head that comes after the one it ran on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from ray_jobs import resubmit
from ray_jobs.on_ray.unfinished import PROJECT, find_unfinished, kept_for_another_head, unpack_code

RUNS = "s3://brats/runs"


@pytest.fixture
def objects(bucket: str) -> Any:
    """What asks for the bucket's objects. It is empty: moto keeps buckets for as long as a process lasts."""
    return boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as Ray starts what was submitted."""
    about = {"metadata": {"job_submission_id": "raysubmit_1"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(about))
    monkeypatch.setenv("BRATS_PRESET", "g4dn")
    monkeypatch.setenv("SOME_SECRET", "0123")
    monkeypatch.setattr(sys, "argv", [str(PROJECT / "ray_jobs" / "tune.py"), "--name", "it's mine"])


def left(objects: Any) -> list[str]:
    return [item["Key"] for item in objects.list_objects_v2(Bucket="brats").get("Contents", [])]


@pytest.mark.usefixtures("job")
def test_command_environment_and_code_are_kept_until_it_ends(objects: Any, tmp_path: Path) -> None:
    with kept_for_another_head(RUNS, more=["--resume"]):
        (found,) = find_unfinished(RUNS)
        assert found.id == "raysubmit_1"
        assert found.command == ["python", "ray_jobs/tune.py", "--name", "it's mine", "--resume"]
        assert found.environment["BRATS_PRESET"] == "g4dn"
        assert all(name.startswith("BRATS_") for name in found.environment)
        unpack_code(found, RUNS, tmp_path)
        assert b"0123" not in objects.get_object(Bucket="brats", Key=left(objects)[-1])["Body"].read()
    assert find_unfinished(RUNS) == []
    assert left(objects) == []
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert {path.name for path in tmp_path.iterdir()} == packages
    assert (tmp_path / "ray_jobs" / "train.py").read_text() == (PROJECT / "ray_jobs" / "train.py").read_text()


@pytest.mark.usefixtures("job")
def test_it_is_forgotten_when_it_fails_and_when_it_is_asked_to_stop(objects: Any) -> None:
    with pytest.raises(ValueError, match="odd"), kept_for_another_head(RUNS):
        raise ValueError("odd")
    with kept_for_another_head(RUNS) as forget:
        assert left(objects)
        forget()
        assert left(objects) == []


def test_what_was_not_submitted_is_not_kept(objects: Any) -> None:
    with kept_for_another_head(RUNS):
        assert left(objects) == []


@pytest.mark.usefixtures("job")
def test_runs_on_a_disk_are_not_kept(tmp_path: Path) -> None:
    with kept_for_another_head(str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("job")
def test_another_head_gets_it_under_its_id_with_its_code(
    objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = kept_for_another_head(RUNS)
    kept.__enter__()  # its head goes: nobody leaves
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(resubmit, "submit", lambda api, **job: given.append({"api": api, **job}))
    assert resubmit.main(["--runs", RUNS, "--code", str(tmp_path), "--api", "http://here"]) == 0
    (asked,) = given
    assert asked["api"] == "http://here"
    assert asked["submission_id"] == "raysubmit_1"
    assert asked["entrypoint"] == "python ray_jobs/tune.py --name 'it'\"'\"'s mine'"
    folder = asked["runtime_env"]["working_dir"]
    assert (Path(folder) / "ray_jobs" / "tune.py").exists()
    assert asked["runtime_env"]["env_vars"]["BRATS_PRESET"] == "g4dn"
    assert "submitted again: raysubmit_1" in capsys.readouterr().out


@pytest.mark.processes
def test_a_head_without_runs_in_a_bucket_has_nothing_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "ray_jobs/resubmit.py", "--runs", str(tmp_path)], cwd=PROJECT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
