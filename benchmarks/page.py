"""BENCHMARKS.md, written from the records: `python -m benchmarks page`. Nobody types a figure into it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import as_text
from benchmarks.settings import Page

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).with_name("records")
PAGE = ROOT / "BENCHMARKS.md"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A section of the page: what is claimed, and the records that bear it out."""

    heading: str
    text: str
    records: tuple[str, ...]


CLAIMS = (
    Claim(
        heading="Conversion and storage",
        text="NIfTI to a store, one worker, beside nnU-Net v2's preprocessing of the same cases in the same run.",
        records=("convert", "store-reads"),
    ),
    Claim(
        heading="What a training patch costs the CPU",
        text="Our loader with everything on the CPU, where a GPU would do the augmentation, beside nnU-Net v2's, "
        "MONAI's and TorchIO's, each with its own augmentation of 128³ patches.",
        records=("peers-loader",),
    ),
    Claim(
        heading="Training step",
        text="Forward, loss, backward and update, beside pytorch-3dunet's UNet3D and MONAI's DynUNet of equal widths.",
        records=("train-step",),
    ),
    Claim(
        heading="End to end, and how long a step waits for data",
        text="On two cores loader and network share the CPU, so the first table's wait is theirs together. The second "
        "lets a step sleep for a multiple of the loader's time per batch instead, as a GPU would keep busy: waits by "
        "the clock of a shared machine, and replayed from what each batch cost the CPU. Training has 8 ready.",
        records=("end-to-end", "feed"),
    ),
    Claim(
        heading="Best thresholds",
        text="Exact from one pass, beside a pass for each combination of thresholds, as cs231n-3d-segmentation found "
        "them. Both ways agree on the grid that was run; the row marked so is an estimate.",
        records=("threshold-search",),
    ),
    Claim(
        heading="Inference",
        text="One volume through our sliding window and MONAI's around the same network.",
        records=("inference",),
    ),
    Claim(
        heading="What kill -9 loses",
        text="A run is killed in mid-epoch and started again; a third was left alone.",
        records=("resume",),
    ),
    Claim(
        heading="IoU on real scans",
        text="Sixteen cases of BraTS 2018, ten for training: [docs/results.md](docs/results.md) has cases, split and "
        "what helped. cs231n-3d-segmentation's 0.573 came from other cases.",
        records=("real-scans",),
    ),
)

HEAD = """# Benchmarks

Each table is a record in [benchmarks/records](benchmarks/records), as the command under it wrote it; this page is made
of them by `python -m benchmarks page`, and a test holds the two together. `make bench` reruns all but the last on a
laptop with the peers beside ours (in an environment of its own, `.venv-bench`), on synthetic scans or, with
`make bench SOURCE=DIR`, on yours; `.bench/NAME` and `.bench/NAME.zarr` in the commands are those scans and their store.
A `+` after a commit means that files differed from it.

Times on a shared machine are CPU times, or the fastest of several rounds; trust the ratios within a table. What was
measured before 29 November 2026 was typed as `ray_jobs/benchmark.py` with other flags; its command is spelt as it is
now and measures the same. Of the reads, the rows of layouts that were not chosen were taken out.
"""

NOT_MEASURED = """## Not measured

- Anything on a GPU: no machine with one was to be had when this was written. `python -m benchmarks gpu-check` checks
  and measures the GPU path in one go, and
  `python -m benchmarks end-to-end --preset brats3d --device cuda:0` gives the wait share there.
- A training run on AWS: `make drill-cluster` runs `ray up` to `ray down` against stand-ins of EC2 and S3.
- Accuracy beside nnU-Net, MONAI or NVIDIA's nnU-Net after equal training.
- pytorch-3dunet's and NVIDIA's loaders: the one reads HDF5 that it does not make, the other needs a GPU.
"""


def render(records: Path = RECORDS) -> str:
    """Return the page."""
    parts = [HEAD]
    for claim in CLAIMS:
        parts.append(f"## {claim.heading}\n\n{claim.text}\n")
        parts += [render_record(json.loads((records / f"{name}.json").read_text())) for name in claim.records]
    return "\n".join([*parts, NOT_MEASURED])


def render_record(record: Mapping[str, Any]) -> str:
    """Return one record: title, table, and where it comes from."""
    rows: Sequence[Mapping[str, Any]] = record["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [not isinstance(rows[0].get(column, ""), str) for column in columns]
    lines = [
        f"**{record['title']}**\n",
        _line(columns),
        _line(["---:" if number else "---" for number in numbers]),
        *(_line([as_text(row.get(column, "")) for column in columns]) for row in rows),
        f"\n`{record['command']}` · {record['machine']} · {record['commit'] or 'no commit'} · {record['date']}\n",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def run(_: Page) -> None:
    """Write the page anew."""
    write_page()


def write_page() -> None:
    """Write what the records say."""
    PAGE.write_text(render())
