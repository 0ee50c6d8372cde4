"""A challenge's container as it is built and run, but for docker: its recipe is read, and done by hand.

The entry program runs without a network, with its input read-only, with little memory and without Ray.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ray_jobs.package import main
from ray_jobs.predicting.container import main as run_in_container
from storage import InputError
from storage.labels.conventions import MODALITIES

MakeCheckpoint = Callable[..., str]
KIB_OF_ADDRESSES = 24 * 2**20
NO_NETWORK = ["unshare", "--map-root-user", "--net", "--mount"]


@pytest.fixture
def package(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    """A build folder of two networks."""
    folder = tmp_path / "package"
    checkpoints = [make_checkpoint("one", seed=1), make_checkpoint("two", seed=2)]
    assert main(["--checkpoint", *checkpoints, "--tag", "team/method:1.0", "--output", str(folder)]) == 0
    return folder


def read_recipe(folder: Path) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order."""
    lines = re.sub(r"\\\n", " ", (folder / "Dockerfile").read_text()).splitlines()
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in lines
        if line.strip() and not line.startswith("#")
    ]


def do_copies(folder: Path, root: Path) -> list[str]:
    """Do what COPY and WORKDIR say, below `root`; return the entry point, whose files lie there."""
    place, entry = root, []
    for word, rest in read_recipe(folder):
        if word == "WORKDIR":
            place = root / rest.lstrip("/")
            place.mkdir(parents=True)
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                if (folder / source).is_dir():
                    shutil.copytree(folder / source, place / target, dirs_exist_ok=True)
                else:
                    shutil.copy(folder / source, place / target)
        elif word == "ENTRYPOINT":
            entry = json.loads(rest)
    return [str(root / word.lstrip("/")) if word.startswith("/") else word for word in entry]


def test_the_recipe_keeps_to_the_rules(package: Path) -> None:
    recipe = read_recipe(package)
    words = [word for word, _ in recipe]
    assert words[0] == "FROM" and words.count("FROM") == 1
    assert re.fullmatch(r"python:3\.1[12]-slim-\w+", recipe[0][1])  # a tag, and no registry's host
    assert set(words) <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT"}
    (user,) = [rest for word, rest in recipe if word == "USER"]
    assert user not in ("root", "0") and words.index("USER") > max(
        index for index, word in enumerate(words) if word in ("RUN", "COPY")
    )
    runs = [rest for word, rest in recipe if word == "RUN"]
    assert any(re.search(rf"useradd .*\b{user}$", run) for run in runs)
    (install,) = [run for run in runs if "pip install" in run]
    assert "--constraint constraints.txt" in install
    assert "[train]" in install  # the parts alone read no checkpoint
    assert not any("://" in rest for _, rest in recipe)
    (entry,) = [rest for word, rest in recipe if word == "ENTRYPOINT"]
    assert isinstance(json.loads(entry), list)  # no shell between docker's signals and the program
    for rest in (rest for word, rest in recipe if word == "COPY"):
        assert all((package / source).exists() for source in rest.split()[:-1]), rest
    assert "Apache License" in (package / "LICENSE").read_text()
    assert not list(package.rglob("__pycache__")) and not list(package.rglob("state.pt"))


def refused(arguments: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        main(arguments)
    return str(caught.value)


def test_what_would_fail_at_the_organisers_is_refused_here(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    whole, unvalidated = make_checkpoint("a", seed=1), make_checkpoint("b", seed=1, thresholds=None)
    folder = ["--output", str(tmp_path / "package")]
    assert "wanted --tag as docker takes it" in refused(["--checkpoint", whole, "--tag", "Team Name", *folder])
    assert "wanted thresholds in" in refused(["--checkpoint", unvalidated, "--tag", "team", *folder])
    limits = ["--checkpoint", whole, "--tag", "team", *folder]
    assert "wanted --seconds-per-case above 0" in refused([*limits, "--seconds-per-case", "0"])
    assert not (tmp_path / "package").exists()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "mine").touch()
    assert "wanted a new or empty folder" in refused(limits)


@pytest.fixture
def cohort(phantom_source: Path, tmp_path: Path) -> Path:
    """Cases in the usual layouts and under any names; half of them cannot be segmented."""
    source = tmp_path / "input"

    def copy(number: int, folder: str, name: str) -> Path:
        (source / folder).mkdir(parents=True)
        case_id = f"BraTS20_Training_{number:03d}"
        scans = dict(zip(("t1n", "t1c", "t2f", "t2w"), ("t1", "t1ce", "flair", "t2"), strict=True))
        for new, old in scans.items():
            shutil.copy(phantom_source / case_id / f"{case_id}_{old}.nii.gz", source / folder / name.format(new))
        return source / folder

    copy(1, "BraTS-GLI-0001234567-000", "BraTS-GLI-0001234567-000-{}.nii.gz")  # more digits than ever
    copy(2, "patient seven", "{}.nii.gz")  # the folder says whose they are
    damaged = copy(3, "BraTS-GLI-00003-000", "BraTS-GLI-00003-000-{}.nii.gz") / "BraTS-GLI-00003-000-t1c.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (copy(1, "BraTS-GLI-00004-000", "BraTS-GLI-00004-000-{}.nii.gz") / "BraTS-GLI-00004-000-t1n.nii.gz").unlink()
    strange = copy(2, "strange", "scan_{}_of_somebody.nii.gz")
    assert len(list(strange.iterdir())) == 4
    for scan in copy(3, "BraTS-GLI-00005-000", "BraTS-GLI-00005-000-{}.nii.gz").iterdir():
        scan.write_bytes(b"")
    return source


def values_of(file: Path) -> Any:
    return np.asanyarray(nib.load(file).dataobj)


@pytest.mark.slow
@pytest.mark.processes
def test_every_case_is_segmented_or_named_without_a_network(package: Path, cohort: Path, tmp_path: Path) -> None:
    if subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespace without a network (unshare --net)")
    entry = do_copies(package, tmp_path / "image")
    (tmp_path / "no_ray" / "ray").mkdir(parents=True)
    (tmp_path / "no_ray" / "ray" / "__init__.py").write_text("raise ImportError('there is no Ray here')\n")
    output = tmp_path / "output"
    output.mkdir()
    arguments = ["--input", str(cohort), "--output", str(output)]
    inside = " && ".join(
        [
            shlex.join(["mount", "--bind", str(cohort), str(cohort)]),
            shlex.join(["mount", "-o", "remount,bind,ro", str(cohort)]),
            f"! touch {shlex.quote(str(cohort / 'written'))} 2> /dev/null",
            f"ulimit -v {KIB_OF_ADDRESSES}",
            shlex.join([sys.executable, *entry[1:], *arguments]),
        ]
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment |= {"PYTHONPATH": str(tmp_path / "no_ray"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*NO_NETWORK, "bash", "-c", inside], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "2 cases segmented, 4 failed" in done.stdout
    whole = {"BraTS-GLI-0001234567-000": 1, "patient seven": 2}
    empty = {"BraTS-GLI-00003-000": "t1n", "BraTS-GLI-00004-000": "t1c", "strange": "scan_t1c_of_somebody"}
    failures = {line.split(":")[0].removeprefix("failed "): line for line in done.stderr.splitlines()}
    assert set(failures) == {*empty, "BraTS-GLI-00005-000"}
    assert "t1c.nii.gz" in failures["BraTS-GLI-00003-000"] and "truncated" in failures["BraTS-GLI-00003-000"]
    assert "missing modalities t1" in failures["BraTS-GLI-00004-000"]
    assert failures["BraTS-GLI-00005-000"].endswith("nothing is written")
    assert {file.name for file in output.iterdir()} == {f"{case_id}.nii.gz" for case_id in (*whole, *empty)}
    for case_id in (*whole, *empty):
        scan = next(file for file in sorted((cohort / case_id).iterdir()) if empty.get(case_id, "") in file.name)
        made, wanted = nib.load(output / f"{case_id}.nii.gz"), nib.load(scan)
        assert made.shape == wanted.shape and made.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(made.affine, wanted.affine)
        assert values_of(output / f"{case_id}.nii.gz").any() == (case_id in whole)


def test_the_weights_and_the_choices_travel(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path(make_checkpoint("one", seed=1))
    names = [word for scan in MODALITIES for word in (scan, f"_{scan}_x.nii.gz")]
    told = ["--write-task", "gli-2023", "--names", *names, "--inference.mirror", "True"]
    assert main(["--checkpoint", str(run), "--tag", "team/method:1.0", *told]) == 0
    folder = tmp_path / "containers" / "team-method-1.0"
    assert f"docker build --tag team/method:1.0 {folder.relative_to(tmp_path)}" in capsys.readouterr().out
    said = json.loads((folder / "container.json").read_text())
    assert said["write_task"] == "gli-2023" and said["names"]["flair"] == "_flair_x.nii.gz"
    assert said["inference"] == {"whole": None, "mirror": True, "overlap": None, "window_batch": None}
    (weights,) = run.rglob("model.safetensors")
    assert (folder / "checkpoints" / "00" / "model.safetensors").read_bytes() == weights.read_bytes()
    assert {file.name for file in (folder / "checkpoints" / "00").iterdir()} == {
        *("model.safetensors", "config.json", "record.json", "decision.json"),
    }


def test_what_was_chosen_holds_in_the_container_unless_a_run_says_otherwise(
    make_checkpoint: MakeCheckpoint, phantom_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, float, float]] = []

    class NoWork:
        """In the place of the process that predicts: says what it was told, and that all is done."""

        def __init__(self, make: Any, *, seconds: float, gib: float) -> None:
            told.append((make.config, seconds, gib))

        def __enter__(self) -> "NoWork":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def do(self, item: str) -> tuple[bytes, None]:
            return item.encode(), None

    monkeypatch.setattr("ray_jobs.predicting.container.WatchedWork", NoWork)
    folder, output = tmp_path / "package", tmp_path / "output"
    limits = ["--seconds-per-case", "7", "--gib-per-case", "3"]
    choices = ["--inference.mirror", "True", "--write-task", "ped-2024", *limits]
    arguments = ["--checkpoint", make_checkpoint("one", seed=1), "--tag", "method", "--output", str(folder)]
    with pytest.raises(InputError, match="written as"):
        main([*arguments, *choices])  # values that the network's labels have none of
    choices[choices.index("ped-2024")] = "gli-2023"
    assert main([*arguments, *choices]) == 0
    places = ["--input", str(phantom_source), "--output", str(output)]
    assert run_in_container(places, folder) == 0
    assert run_in_container([*places, "--seconds-per-case", "9"], folder) == 0
    (config, *first), (_, *second) = told
    assert (first, second) == ([7, 3], [9, 3])
    assert config.write_task == "gli-2023" and config.inference.mirror is True
    assert config.checkpoint == (str(folder / "checkpoints" / "00"),)
    made = {file.name: file.read_bytes() for file in output.iterdir()}
    assert made == {f"{case.name}.nii.gz": case.name.encode() for case in phantom_source.iterdir() if case.is_dir()}
