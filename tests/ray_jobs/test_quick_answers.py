"""What a command line gets wrong is said at once: before PyTorch, DALI or Ray are imported, which takes seconds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "nvidia", "matplotlib", "pandas", "scipy"}
# What a command wants first.
KIND = {"give": ["onnx"], "bring": ["nnunet", "nowhere"], "show": ["nowhere"]}

# Runs a command as Python does, and says at its end which of the libraries named first were imported.
WATCH = """
import atexit, runpy, sys
heavy, sys.argv = sys.argv[1], sys.argv[2:]
atexit.register(lambda: print("imported", *sorted(set(heavy.split()) & {*sys.modules}), file=sys.stderr))
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def answer(tmp_path: Path, name: str, *arguments: str) -> tuple[int, str, set[str]]:
    """Return exit status, all that was printed, and the heavy libraries that were imported."""
    script = str(ROOT / "ray_jobs" / f"{name}.py")
    command = [sys.executable, "-c", WATCH, " ".join(HEAVY), script, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True)
    *said, last = done.stderr.splitlines()
    assert last.split()[:1] == ["imported"], done.stderr
    return done.returncode, done.stdout + "\n".join(said), set(last.split()[1:])


@pytest.mark.parametrize(
    "name",
    [
        *("train", "tune", "threshold", "convert", "predict", "score", "package", "give", "bring", "show"),
        *("spot_watcher", "placement_groups", "resubmit"),
    ],
)
@pytest.mark.parametrize("arguments", [["--help"], ["--chekpoint", "x"]])
def test_help_and_a_misspelt_flag(tmp_path: Path, name: str, arguments: list[str]) -> None:
    status, said, imported = answer(tmp_path, name, *KIND.get(name, ()), *arguments)
    if arguments == ["--help"]:
        assert status == 0 and ("--help" in said or "usage" in said)
    else:
        assert status == 2 and "--chekpoint" in said and len(said.strip().splitlines()) == 1
    assert imported == set()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train", ["--source", "nowhere"]),
        ("train", ["--store", "nowhere"]),
        ("tune", ["--store", "nowhere"]),
        ("tune", ["--search", "threshold", "--checkpoint", "nowhere", "--store", "nowhere"]),
        ("threshold", ["--checkpoint", "nowhere", "--store", "nowhere"]),
        ("convert", ["--source", "nowhere", "--store", "store"]),
        ("predict", ["--checkpoint", "nowhere", "--input", "nowhere", "--output", "out"]),
        ("score", ["--prediction", "nowhere", "--label", "nowhere", "--output", "out"]),
        ("package", ["--checkpoint", "nowhere", "--tag", "team", "--output", "out"]),
        ("give", ["onnx", "--checkpoint", "nowhere", "--output", "out"]),
        ("bring", ["nnunet", "nowhere", "--output", "out"]),
        ("show", ["nowhere"]),
        ("show", ["nowhere/run", "--serve"]),
    ],
)
def test_a_folder_that_is_not_there(tmp_path: Path, name: str, arguments: list[str]) -> None:
    status, said, imported = answer(tmp_path, name, *arguments)
    assert status == 2 and "wanted" in said and "nowhere" in said
    assert imported == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", [("--task", "gli-1999"), ("--write-task", "gli-1999"), ("--label-map", "1", "99")])
def test_labels_that_nobody_knows(tmp_path: Path, flag: tuple[str, ...]) -> None:
    arguments = ("--checkpoint", "nowhere", "--input", "nowhere", "--output", "out", *flag)
    status, said, imported = answer(tmp_path, "predict", *arguments)
    assert status == 2 and flag[0] in said and flag[-1] in said and "nowhere" not in said
    assert imported == set()


def test_the_watch_sees_what_is_imported(tmp_path: Path) -> None:
    script = tmp_path / "heavy.py"
    script.write_text("import scipy")
    command = [sys.executable, "-c", WATCH, " ".join(HEAVY), str(script)]
    assert subprocess.run(command, capture_output=True, text=True).stderr.split() == ["imported", "scipy"]


@pytest.mark.parametrize("script", ["ray_jobs/train.py", "ray_jobs/predict.py", "ray_jobs/convert.py", "benchmarks"])
def test_ctrl_c_while_a_command_imports_what_it_needs(tmp_path: Path, script: str) -> None:
    """A library that is interrupted as it is imported: before anything of ours can catch that."""
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    command = ["-m", "benchmarks"] if script == "benchmarks" else [str(ROOT / script)]
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, *command, "--help"], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")


def test_what_nobody_reads_any_more_is_no_error(tmp_path: Path) -> None:
    """As of `train.py --help | head -1`: its reader has gone before it is written."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as gone:
        command = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), "--help"]
        done = subprocess.run(command, cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0 and done.stderr == ""


def test_a_terminal_that_lacks_a_letter_gets_it_in_other_words(tmp_path: Path) -> None:
    """tune.py's help says `--space …=choice:…`."""
    command = [sys.executable, str(ROOT / "ray_jobs" / "tune.py"), "--help"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and r"--space \u2026=choice:\u2026" in done.stdout, done.stderr
