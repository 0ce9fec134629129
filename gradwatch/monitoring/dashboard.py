"""The Grafana dashboard, made from the table of panels."""

from __future__ import annotations

import json
from typing import Any

from gradwatch.monitoring.metrics import with_names
from gradwatch.monitoring.panels import PANELS, SHOWN_OPTIMIZERS, VARIABLES, Panel

__all__ = ["dashboard", "expressions"]

_GRID = 24


def expressions() -> list[str]:
    """Every expression of the dashboard, with Grafana's variables in it."""
    return [with_names(expression) for panel in PANELS for expression, _ in panel.queries]


def dashboard() -> str:
    """The dashboard as JSON, to be imported into Grafana 10 or later."""
    made = {
        "uid": "gradwatch",
        "title": "gradwatch",
        "description": "Gradients of the trainings that gradwatch watches.",
        "tags": ["gradwatch", "training"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_DATASOURCE_VARIABLE, *(_variable(*item) for item in VARIABLES.items())]},
        "annotations": {"list": [_ANNOTATIONS]},
        "panels": _panels(),
    }
    return json.dumps(made, indent=2) + "\n"


_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_DATASOURCE_VARIABLE = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}

_ANNOTATIONS = {
    "name": "Alerts",
    "datasource": _DATASOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": with_names(f"{{alert_info}}{SHOWN_OPTIMIZERS}"),
    "titleFormat": "{{rule}} {{module}}",
    "textFormat": "{{words}}",
}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": with_names(query), "refId": name},
        # Runs begin while the dashboard is open.
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> list[dict[str, Any]]:
    """Side by side while there is room, as text is set."""
    made: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(PANELS, start=1):
        height = 4 if panel.kind == "stat" else 8
        if x + panel.width > _GRID:
            x, y = 0, y + int(made[-1]["gridPos"]["h"])
        place = {"x": x, "y": y, "w": panel.width, "h": height}
        made.append({"id": number, "gridPos": place, **_panel(panel)})
        x += panel.width
    return made


def _panel(panel: Panel) -> dict[str, Any]:
    scale = {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [_target(panel, *query, letter) for query, letter in zip(panel.queries, "ABC", strict=False)],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                **({"custom": {"scaleDistribution": scale}} if panel.kind == "timeseries" else {}),
            },
            "overrides": [],
        },
        "options": {},
    }


def _target(panel: Panel, expression: str, legend: str, letter: str) -> dict[str, Any]:
    is_table, is_instant = panel.kind == "table", panel.kind in ("table", "stat")
    return {
        "refId": letter,
        "datasource": _DATASOURCE,
        "expr": with_names(expression),
        "legendFormat": legend,
        "instant": is_instant,
        "range": not is_instant,
        "format": "table" if is_table else "heatmap" if panel.kind == "heatmap" else "time_series",
    }
