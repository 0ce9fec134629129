import itertools
import json
import re

from gradwatch.monitoring.dashboard import dashboard, expressions
from gradwatch.monitoring.metrics import METRICS, full_name
from gradwatch.monitoring.panels import PANELS, VARIABLES

MADE = json.loads(dashboard())


def test_every_metric_of_the_table_is_shown():
    used = set(re.findall(r"gradwatch_\w+", dashboard()))
    series = {full_name(name): metric.kind for name, metric in METRICS.items()}
    assert {name.removesuffix("_bucket") for name in used} == set(series)
    assert all(series.get(name.removesuffix("_bucket")) == "histogram" for name in used - set(series))


def test_every_variable_that_an_expression_uses_is_there():
    grafanas_own = {"__rate_interval", "__range"}
    used = set(re.findall(r"\$(\w+)", " ".join(expressions())))
    assert used - grafanas_own == set(VARIABLES)
    names = [variable["name"] for variable in MADE["templating"]["list"]]
    assert names == ["datasource", *VARIABLES]


def test_panels_lie_side_by_side_and_none_on_another():
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in MADE["panels"])
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))


def test_every_panel_has_its_queries_a_description_and_an_id_of_its_own():
    assert len({panel["id"] for panel in MADE["panels"]}) == len(PANELS)
    for panel, made in zip(PANELS, MADE["panels"], strict=True):
        assert len(made["targets"]) == len(panel.queries) == len({target["refId"] for target in made["targets"]})
        assert made["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in made["targets"]} == {"${datasource}"}
