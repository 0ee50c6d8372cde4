"""Which code a figure is said to come from."""

import subprocess
from pathlib import Path

import pytest

from ray_jobs.watching import provenance


@pytest.mark.processes
def test_code_that_differs_from_its_commit_is_said_and_records_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.git_commit() is None

    record = tmp_path / "benchmarks" / "records" / "score.json"
    record.parent.mkdir(parents=True)
    for file in (record, tmp_path / "code.py"):
        file.write_text("1\n")
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = provenance.git_commit()
    assert commit is not None and len(commit) == 40

    record.write_text("2\n")
    assert provenance.git_commit() == commit
    (tmp_path / "code.py").write_text("2\n")
    assert provenance.git_commit() == f"{commit}+"
