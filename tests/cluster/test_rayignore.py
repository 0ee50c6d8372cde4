"""What a submitted job takes along, by Ray's own walk over a folder: the code, and nothing else that lies there."""

import shutil
from pathlib import Path

from ray._private.runtime_env import packaging

from ray_jobs.predicting.build_folder import FILES, ROOMS

ROOT = Path(__file__).parents[2]
BESIDE = (
    *("MICCAI.zip", "scans.tar.gz", "brats.zarr/zarr.json", "store/cases/a/image/c/0/0", "predictions/a_seg.nii.gz"),
    *("predictions/report.html", "containers/team/project/big.bin", "notes.pdf", "venv/lib/x.py", ".git/objects/x"),
    *("runs/a/model.safetensors", "data/phantom-16-0/a/a_t1.nii.gz", "[copy] é/x.zip"),
)


def test_code_is_sent_and_nothing_that_lies_beside_it(tmp_path: Path) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*FILES, ".gitignore", ".rayignore"):
        shutil.copy(ROOT / file, tmp_path / file)
    own = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    for name in (*BESIDE, "my_networks.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    sent: set[str] = set()
    packaging._dir_travel(
        tmp_path,
        [],
        lambda path: sent.add(str(path.relative_to(tmp_path))) if path.is_file() else None,
        include_gitignore=True,
    )
    assert sent == (own | {"my_networks.py"}) - {".gitignore", ".rayignore"}
