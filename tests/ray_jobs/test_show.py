"""show.py finds out what a folder is, makes its page, and opens it."""

import re
import threading
import urllib.request
from pathlib import Path

import pytest

from ray_jobs import show
from storage import InputError
from tests.ray_jobs.recorded import write_folds, write_run, write_search


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a browser was asked to open."""
    asked: list[str] = []
    monkeypatch.setattr(show.webbrowser, "open", lambda address: bool(asked.append(address)) or True)
    return asked


def test_each_kind_of_folder_has_its_page(tmp_path: Path, opened: list[str]) -> None:
    folders = [write_run(tmp_path), write_folds(tmp_path), write_search(tmp_path), tmp_path / "cv" / "fold-0"]
    for folder in folders:
        assert show.main([str(folder)]) == 0
    assert opened == [(folder / "report.html").as_uri() for folder in folders]
    titles = [re.findall("<title>(.*)</title>", (folder / "report.html").read_text())[0] for folder in folders]
    assert titles == ["Run first", "Cross-validation cv", "Search search", "Run fold-0"]


def test_a_run_is_found_by_its_name(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert show.main(["first"]) == 0
    monkeypatch.chdir("/")
    monkeypatch.setenv("BRATS_RUNS", str(tmp_path / "runs"))
    assert show.main(["first"]) == 0
    assert opened == [(tmp_path / "runs" / "first" / "report.html").as_uri()] * 2


def test_predictions_have_the_page_that_was_made_of_their_scans(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match=r"the command that wrote metrics\.json makes it"):
        show.main([str(tmp_path)])
    (tmp_path / "report.html").write_text("theirs")
    assert show.main([str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text() == "theirs" and len(opened) == 1


def test_where_nothing_can_be_written_the_page_lies_elsewhere(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path)
    (folder / "report.html").mkdir()  # which root may not write either
    assert show.main([str(folder)]) == 0
    assert not opened[0].startswith(tmp_path.as_uri()) and "Run first" in Path(opened[0][7:]).read_text()


def test_without_a_browser_it_says_where_the_page_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path)
    monkeypatch.setattr(show.webbrowser, "open", lambda address: False)
    assert show.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"report {folder}/report.html" in said and "--serve" in said


@pytest.mark.parametrize("run", ["nowhere", "no/where"])
def test_a_folder_that_is_not_there(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"found none at {run}"):
        show.main([run])


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted the folder of a run, a search, a cross-validation"):
        show.main([str(tmp_path)])


def test_it_is_served_anew_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, finished=False)
    servers, there = [], threading.Event()

    def keep_server(*arguments: object) -> object:
        servers.append(make(*arguments))
        there.set()
        return servers[0]

    make = show.make_server
    monkeypatch.setattr(show, "make_server", keep_server)
    thread = threading.Thread(target=show.main, args=([str(folder), "--serve", "--port", "0"],))
    thread.start()
    assert there.wait(60)
    address = f"http://127.0.0.1:{servers[0].server_port}/"
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert b"Not finished" in answer.read()
    write_run(tmp_path)
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert b"Finished at" in answer.read()
    with pytest.raises(InputError, match=f"--port {servers[0].server_port} cannot be listened on"):
        show.main([str(folder), "--serve", "--port", str(servers[0].server_port)])
    servers[0].shutdown()
    thread.join()
    assert address in capsys.readouterr().out
    assert not (folder / "report.html").exists()
