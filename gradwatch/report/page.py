"""A run as one page for a browser: it loads nothing, and all that it draws is there in words and tables too.

What comes from the run, names above all, is the user's and may look like markup: it becomes text in ``markup``
alone. Scripts run by their hash, so that nothing else in the page could.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from gradwatch.alerts import Alert, Incident
from gradwatch.report.drawing import drawing
from gradwatch.report.markup import Markup, element, join, table
from gradwatch.report.run import Flight, Run
from gradwatch.report.series import Series, all_series
from gradwatch.report.tables import Table, by_line, by_optimizer, by_parameter, by_step, by_stretch
from gradwatch.report.words import about, clipping

__all__ = ["page"]

# Incidents that are told and drawn, the worst; alerts of which there is a row each, the newest.
_INCIDENTS, _ALERTS = 100, 500


def page(run: Run) -> str:
    """The page, to be written as UTF-8."""
    series, all_incidents = all_series(run.steps), run.incidents()
    incidents = all_incidents[:_INCIDENTS]
    parts = [("incidents", "Incidents", _incidents(incidents, len(all_incidents), series))]
    drawings = [drawing(one, incidents, run.began) for one in series]
    parts += [
        (f"optimizer-{place}", one.optimizer, _optimizer(place, one, _drawn(one, drawings[place])))
        for place, one in enumerate(series)
    ]
    if run.alerts:
        parts.append(("alerts", "Alerts", _alerts(run.alerts)))
    if run.flights:
        parts.append(("flights", "Flight recorder", join(map(_flight, run.flights))))
    scripts = [_charting_library(), _text("charts.js"), _text("page.js")]
    return Template(_text("page.html")).substitute(
        title=element("", f"gradwatch: {run.name}"),
        name=element("", run.name),
        about=element("", about(run)),
        parts=join(element("a", title, href=f"#{place}") for place, title, _ in parts),
        body=join(_part(*part) for part in parts),
        styles=_text("uPlot.min.css") + _text("page.css"),
        numbers=_as_data(drawings),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        hashes=" ".join(map(_hash, scripts)),
    )


def _part(place: str, title: str, content: str) -> Markup:
    head = element("h2", title, id=f"{place}-title")
    return element("section", head, content, id=place, aria_labelledby=f"{place}-title")


def _incidents(incidents: Sequence[Incident], count: int, series: Sequence[Series]) -> Markup:
    overview = by_optimizer(series)
    more = count - len(incidents)
    rest = (
        element("p", f"And {more} more incidents, none of them worse than these.", class_="card") if more else ""
    )
    shown = join(_incident(place, incident, series) for place, incident in enumerate(incidents, 1))
    quiet = element("p", "No incident: no rule has found anything.", class_="card fine")
    return join([shown or quiet, rest, element("div", table(overview), class_="card") if series else ""])


def _incident(place: int, incident: Incident, series: Sequence[Series]) -> Markup:
    state = "not over" if incident.over is None else "over"
    badge = element("span", f"{incident.severity.upper()}, {state}", class_="badge")
    optimizers = [one.optimizer for one in series]
    own = incident.alerts[0].optimizer
    button = (
        element(
            "button", "Show it in the charts", type="button", class_="needs-script", hidden=True,
            data_optimizer=str(optimizers.index(own)), data_incident=str(place),
        )
        if own in optimizers
        else ""
    )  # fmt: skip
    to_do = join(
        element("p", element("strong", "Then: " if more else "To do: "), remedy)
        for more, remedy in enumerate(incident.remedies())
    )
    return element(
        "article",
        element("h3", badge, f"{place}. {incident.title}"),
        element("p", incident.lasted, class_="muted"),
        element("ul", join(element("li", event) for event in incident.events())),
        element("div", to_do, class_="remedies") if to_do else "",
        button,
        class_="incident" if incident.over is not None else f"incident {incident.severity}",
    )


def _drawn(one: Series, drawn: Mapping[str, Any]) -> str:
    """How many of the steps the charts show, where those are not all."""
    shown, whole, share = len(drawn["steps"]), len(one.steps), len(one.steps) // len(drawn["heat"]["begins"])
    if shown == whole:
        return ""
    return (
        f"{shown} of {whole} steps are drawn: all around the beginning of an incident, else of each {share} the "
        "first, the last, and the least and largest of each curve. A cell is the step furthest from the usual."
    )


def _optimizer(place: int, one: Series, drawn: str) -> Markup:
    curves = [("before", "before clipping"), ("after", "after"), ("limit", "limit")]
    lines = join(element("li", element("i", class_=kind), name) for kind, name in curves)
    marks = [("▲", "not finite"), ("○", "zero"), ("✕", "skipped")]
    signs = join(element("li", element("b", sign), name) for sign, name in marks)
    return element(
        "div",
        element("p", clipping(one)),
        element("p", drawn, class_="muted") if drawn else "",
        _CONTROLS,
        _figure(place, "norms", "Norms", join([lines, signs]), by_stretch(one), clipping(one)),
        _figure(place, "ratio", "Clip ratio: 1 leaves the norm as it is", Markup(), None, clipping(one)),
        _heat(place, one) if one.lines else "",
        _figure(place, "lanes", "Incidents", Markup(), None, "what the list of incidents above tells, by steps"),
        element("div", table(by_step(one)), class_="card"),
    )


_CONTROLS = Markup(
    '<div class="controls card needs-script" hidden role="group" aria-label="Step and zoom">'
    '<label><span>Step</span> <input type="range" min="0" value="0"></label>'
    '<div class="zooms"><button type="button" data-zoom="in" aria-label="Zoom in">+</button>'
    '<button type="button" data-zoom="out" aria-label="Zoom out">&minus;</button>'
    '<button type="button" data-zoom="whole" aria-label="All steps">All</button></div><output></output></div>'
)

_HEAT_KEYS = join(
    (
        element("li", element("span", element("span"), element("canvas"), element("span"), class_="ramp")),
        *(
            element("li", element("b", sign), name)
            for sign, name in (("▲", "not finite"), ("▁", "zero"), ("─", "no gradient"))
        ),
    )
)


def _heat(place: int, one: Series) -> Markup:
    words = f"{len(one.lines)} lines over {len(one.steps)} steps; the table has their smallest and largest norms"
    return _figure(place, "heat", "Norms before clipping, by line", _HEAT_KEYS, by_line(one), words)


def _figure(place: int, kind: str, title: str, keys: Markup, numbers: Table | None, words: str) -> Markup:
    name = f"{title}. {words}"
    return element(
        "figure",
        element("figcaption", element("h3", title), element("ul", keys, class_="keys") if keys else ""),
        element("div", class_="chart", role="img", aria_label=name, data_chart=kind, data_optimizer=str(place)),
        element("details", element("summary", "The numbers in a table"), table(numbers)) if numbers else "",
    )


def _alerts(alerts: Sequence[Alert]) -> Markup:
    newest = alerts[-_ALERTS:]
    rows = [
        (
            str(alert.step),
            alert.optimizer,
            alert.state,
            alert.severity,
            alert.title,
            alert.message,
            str(alert.cause or ""),
            alert.cause.remedy if alert.cause else "",
        )
        for alert in newest
    ]
    columns = ("step", "optimizer", "state", "severity", "what", "in words", "cause", "what to do")
    title = f"{len(newest)} of {len(alerts)} alerts, oldest first"
    return element("div", table(Table(title, columns, rows, frozenset(columns))), class_="card")


def _flight(flight: Flight) -> Markup:
    first, *more = flight.reason.splitlines() or ["no reason"]
    return element(
        "div",
        element("h3", flight.file),
        element("p", f"The last {flight.steps} steps before: {first}"),
        element("ul", join(element("li", line.strip()) for line in more)) if more else "",
        table(by_parameter(flight.last)) if flight.last is not None else "",
        class_="card",
    )


def _as_data(numbers: object) -> str:
    # In a script element nothing is escaped; without the sign, no text can end it.
    return json.dumps(numbers, separators=(",", ":")).replace("<", "\\u003c")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _charting_library() -> str:
    # Its licence asks that it goes with every copy.
    return f"/*\n{_text('uPlot.LICENSE')}*/\n{_text('uPlot.iife.min.js')}"


def _text(name: str) -> str:
    return files("gradwatch.report").joinpath("static", name).read_text(encoding="utf-8")
