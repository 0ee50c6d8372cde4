"""A benchmark's table loses nothing, wherever it is printed."""

import pytest

from benchmarks.report import report

ROW = {f"column {number} of many": 1234.5 + number for number in range(8)}


@pytest.mark.parametrize("columns", [None, "80"])
def test_no_cell_is_cut(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    report("a title", [ROW], None)
    said = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in said
    assert max(map(len, said.splitlines())) <= int(columns or 160)
    if columns is None:
        assert all(name in said for name in ROW)
