"""The Prometheus and Grafana files, as far as they can be checked where neither runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private import ray_constants
from ray.dashboard.modules.reporter import reporter_agent

from catuvac.tune import prometheus

FOLDER = Path(__file__).parents[2] / "cluster_configs" / "monitoring"
OURS = {f"ray_{name}" for name in (prometheus.TRIALS, prometheus.BEST_OBJECTIVE, prometheus.EPOCHS_PER_SECOND)}
RAYS = {f"ray_{name}" for name in reporter_agent.METRICS_GAUGES}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "grafana_dashboard.json").read_text(encoding="utf-8")))


def sources(node: Any) -> list[Any]:
    """Every data source that is named anywhere."""
    if isinstance(node, list):
        return [found for item in node for found in sources(item)]
    if not isinstance(node, dict):
        return []
    own = [node["datasource"]] if "datasource" in node else []
    return own + [found for item in node.values() for found in sources(item)]


def test_every_query_is_of_a_metric_that_is_exported(dashboard: dict[str, Any]) -> None:
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    [study] = [variable for variable in dashboard["templating"]["list"] if variable["name"] == "study"]
    names = set(re.findall(r"\bray_\w+", " ".join([*queries, study["query"]["query"]])))
    assert all(re.search(r"\bray_\w+", query) for query in queries)
    assert names >= OURS
    assert names <= OURS | RAYS


def test_our_gauges_are_those_of_the_chosen_study(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert ("ray_catuvac" in target["expr"]) == ('study=~"$study"' in target["expr"])


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24  # Grafana's width


def test_the_data_source_is_chosen_in_grafana(dashboard: dict[str, Any]) -> None:
    found = sources(dashboard)
    assert len(found) > len(dashboard["panels"])
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in found)
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    assert "__inputs" not in dashboard


def test_states_have_their_colours(dashboard: dict[str, Any]) -> None:
    overrides = dashboard["panels"][0]["fieldConfig"]["overrides"]
    assert tuple(override["matcher"]["options"] for override in overrides) == prometheus.STATES


def test_prometheus_reads_the_list_that_ray_writes() -> None:
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    [job] = yaml.safe_load(text)["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [f"/tmp/ray/{ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
    command = text.partition("\n")[0].removeprefix("# ")
    assert "--web.listen-address=127.0.0.1:9090" in command.split()
    assert (FOLDER / "README.md").read_text(encoding="utf-8").startswith(f"<!-- {command} -->\n")


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool; Debian's package prometheus has it")
def test_promtool_accepts_the_file() -> None:
    command = ["promtool", "check", "config", str(FOLDER / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
