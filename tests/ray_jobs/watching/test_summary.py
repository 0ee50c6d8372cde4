"""What is printed at the end of a run."""

import io

from rich.console import Console

from ray_jobs.watching.summary import print_summary
from storage.labels.tasks import GLI_2021_TASK

REGIONS = GLI_2021_TASK.region_names


def test_the_summary_says_where_the_time_went_and_what_to_do() -> None:
    scores = dict.fromkeys((*REGIONS, "mean"), 0.5)
    part = {"cases": 2, "iou": scores, "dice": scores, "threshold": dict.fromkeys(REGIONS, 0.4)}
    seconds = {"wait": 1.0, "forward": 29.0, "backward": 60.0, "validation": 10.0}
    advice = "compute-bound, as it should be: a sentence that is longer than a narrow log is wide"
    speed = {"patches_per_second": 4.0, "data_wait_fraction": 0.01, "world_size": 2, "device": "cpu"}
    summary = {
        "run": "trial",
        "validation": part,
        "test": None,
        "baseline_iou": scores,
        "throughput": speed | {"precision": "float32"},
        "time": {"seconds": seconds, "bound_by": "compute", "advice": advice},
        **dict.fromkeys(("store", "folder", "checkpoint"), "somewhere"),
    }
    written = io.StringIO()
    print_summary(summary, Console(file=written, width=70))
    lines = written.getvalue().splitlines()
    (forward,) = [line for line in lines if "forward" in line]
    assert forward.split() == ["│", "forward", "│", "29.0", "│", "29.0%", "│"]
    assert advice in lines
