"""Show the report of a run, a search, a cross-validation or predictions: `python ray_jobs/show.py runs/first`."""

import sys
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from ray_jobs.checkpoints.folds import folds_of
from ray_jobs.checkpoints.run_folder import CONFIG, RunFolder
from ray_jobs.pages.serving import LOOPBACK, make_server
from ray_jobs.settings.config import environment_default
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from ray_jobs.settings.folders import home_folder
from ray_jobs.settings.show_config import ShowConfig
from storage import InputError
from storage.store.objects import Objects

REPORT, PREDICTIONS, RESULTS = "report.html", "metrics.json", "results.json"


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = read_flags(ShowConfig, arguments, description=__doc__)
    folder = find_folder(config.run)
    make = maker_of(folder)
    if config.serve:
        return serve(make, folder, config.port)
    place = keep(make(), folder)
    print(f"report {place}")
    if not webbrowser.open(place.as_uri()):
        print("no browser was found here: open that file in one, or give --serve")
    return 0


def find_folder(run: str) -> Objects:
    """Return the folder of what is called so. Raises InputError where there is none."""
    if "://" in run or Path(run).expanduser().is_dir():
        return Objects(run)
    runs = environment_default("RUNS") or str(home_folder() / "runs")
    if "/" not in run and ("://" in runs or (Path(runs) / run).is_dir()):
        return Objects(f"{runs}/{run}")
    raise InputError(f"wanted the folder of a run, a search or predictions, found none at {run}, nor {run} in {runs}")


def maker_of(folder: Objects) -> Callable[[], bytes]:
    """Return what makes the page of what lies in the folder. Raises InputError where that is none of ours."""
    files = set(folder.files())
    if PREDICTIONS in files:  # its page is made where its scans are read
        return lambda: _kept(folder)
    runs, _, name = folder.uri.rpartition("/")
    run = RunFolder(runs, name)
    identity = run.read(CONFIG) or {}
    # What makes the pages takes a second to import: not before it is known that there is something to show.
    if RESULTS in files or "search" in identity:
        from ray_jobs.searching.search_page import build_search_page

        return lambda: build_search_page(run)
    if folds_of(identity) is not None:
        from ray_jobs.reporting.folds_page import build_folds_page

        return lambda: build_folds_page(run)
    if "sampling" not in identity:
        raise InputError(
            f"wanted the folder of a run, a search, a cross-validation or finished predictions, {folder.uri} is none"
        )
    from ray_jobs.reporting.run_page import build_run_page
    from ray_jobs.reporting.run_record import read_run

    return lambda: build_run_page(read_run(folder.uri, name))


def _kept(folder: Objects) -> bytes:
    page = folder.get(REPORT)
    if page is None:
        raise InputError(f"wanted {REPORT} in {folder.uri}, found none: the command that wrote {PREDICTIONS} makes it")
    return page


def keep(page: bytes, folder: Objects) -> Path:
    """Write the page where a browser of this machine can open it: into the folder, else among temporary files."""
    if folder.folder is not None:
        try:
            folder.put(REPORT, page)
            return folder.folder / REPORT
        except InputError:  # somebody else's run
            pass
    place = Path(tempfile.mkdtemp(prefix="brats-report-")) / REPORT
    place.write_bytes(page)
    return place


def serve(make: Callable[[], bytes], folder: Objects, port: int) -> int:
    """Serve until Ctrl-C; return the exit status."""
    make()  # what is wrong is said here
    try:
        server = make_server(make, folder.get, port)
    except OSError as error:
        raise InputError(f"--port {port} cannot be listened on ({error}); give another, or 0 for a free one") from error
    print(f"http://{LOOPBACK}:{server.server_port}/ until Ctrl-C", flush=True)
    with server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
