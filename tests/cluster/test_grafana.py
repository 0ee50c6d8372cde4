"""The dashboard's form, and that it asks for all the figures there are and for no others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.on_ray import live_metrics

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "brats-stream.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HISTOGRAM = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_it_is_a_dashboard_that_any_prometheus_can_serve(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 36  # from here on a datasource is an object
    assert dashboard["title"]
    assert dashboard["uid"]
    assert "id" not in dashboard  # Grafana gives it; a number here would write over another dashboard
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "run"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["run"]["datasource"] == DATASOURCE


def test_panels_do_not_share_a_number_or_a_place(dashboard: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells


def test_every_panel_says_what_it_shows_and_asks_the_chosen_prometheus(panels: list[dict[str, Any]]) -> None:
    assert panels
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"], panel["title"]
        assert panel["datasource"] == DATASOURCE
        assert panel["targets"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["expr"]
            assert target["datasource"] == DATASOURCE


def test_it_asks_for_every_figure_and_for_no_other(panels: list[dict[str, Any]]) -> None:
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"ray_brats_(\w+)", query)}
    asked = {name.removesuffix(next((end for end in HISTOGRAM if name.endswith(end)), "")) for name in asked}
    gauges = {**live_metrics.RUN_GAUGES, **live_metrics.RANK_GAUGES, **live_metrics.REGION_GAUGES}
    gauges |= live_metrics.DRIVER_GAUGES
    assert asked == {*gauges, live_metrics.PATCHES, live_metrics.PART_SECONDS, live_metrics.STEP_SECONDS}
    for query in queries:
        if "ray_brats_" in query:
            assert query.count("ray_brats_") == query.count('run=~"$run"'), f"{query} does not keep to the chosen runs"
