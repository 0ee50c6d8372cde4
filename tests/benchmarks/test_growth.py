"""Lines through what was measured, and which process is which; the measuring itself is what a user runs."""

import pytest

from benchmarks.growth import fit_line, make_row
from benchmarks.processes import kind_of


def test_a_line_is_found_and_what_is_no_line_shows() -> None:
    sizes = (100, 1251, 2500)
    assert fit_line(sizes, [0.3 + 0.02 * size for size in sizes]) == pytest.approx((0.3, 0.02))
    straight = make_row("reads", "cases", sizes, [2.0 * size for size in sizes])
    assert straight["of"] == "100 / 1,251 / 2,500 cases" and straight["off by at most"] == "0%"
    square = make_row("pairs", "cases", sizes, [float(size**2) for size in sizes])
    assert int(str(square["off by at most"]).removesuffix("%")) > 30
    falling = make_row("left", "trials", (10, 20, 30), [90.0, 80.0, 70.0])
    assert falling["formula"] == "1e+02 - 1 n"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ray::RayTrainWorker.execute", "Ray worker: RayTrainWorker"),
        ("ray::_convert_one()", "Ray worker: _convert_one"),
        ("ray::IDLE", "Ray worker: IDLE"),
        ("/env/ray/core/src/ray/raylet/raylet --raylet_socket_name=x", "Ray: raylet"),
        ("python -u /env/ray/dashboard/agent.py --node-ip-address=1", "Ray: dashboard"),
        ("python /env/ray/_private/log_monitor.py", "Ray: log monitor"),
        ("ray-dashboard-NodeHead-0 (/env/bin/python -c from", "Ray: dashboard"),
        ("ray::DashboardAgent", "Ray: dashboard"),
        ("/usr/bin/git rev-parse", "git"),
    ],
)
def test_a_process_is_known_by_its_command_line(line: str, kind: str) -> None:
    assert kind_of(line.split(" ")) == kind
