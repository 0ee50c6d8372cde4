import json
from pathlib import Path

import pytest

from benchmarks.inference import run
from benchmarks.settings import InferenceBenchmark


@pytest.mark.processes
def test_ours_and_monais_are_timed_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("monai")
    file = tmp_path / "figures.json"
    run(InferenceBenchmark(preset="tiny", volume=(16, 24, 16), window=(16, 16, 16), rounds=1, json=file))
    rows = {row["what"]: row for row in json.loads(file.read_text())["rows"]}
    assert set(rows) == {"ours", "MONAI", "counting 1,001 thresholds"}
    assert all(row["CPU s"] > 0 for row in rows.values())
    assert all(row["voxels/s"] == pytest.approx(16 * 24 * 16 / row["seconds"]) for row in rows.values())
    assert float(capsys.readouterr().out.split("from MONAI's: ")[1].split()[0]) < 1e-4
