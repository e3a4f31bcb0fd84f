"""What all dashboards have: what is chosen at the top, links to the others, rows of panels, and their text as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from dashboards.panel import SOURCE, Panel

TAG = "samba-coe"


class Row(NamedTuple):
    """Panels under a title."""

    title: str
    panels: Sequence[Panel]


class Dashboard(NamedTuple):
    """``uid`` is also the name of its file, but for what all begin with."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.uid.removeprefix('coe-')}.json"


def text_of(asked: Dashboard) -> str:
    """The dashboard as Grafana imports it, byte by byte the same whenever it is made."""
    frame = dashboard.Dashboard(asked.title).uid(asked.uid).description(asked.description).tags([TAG]).readonly()
    frame.time("now-15m", "now").refresh("5s").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    for variable in _variables():
        frame.with_variable(variable)
    frame.link(_to_the_others())
    for row in asked.rows:
        frame.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            frame.with_panel(panel)
    built = frame.build()
    for number, one in enumerate(built.panels or [], start=1):
        one.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """The same in all, so that what is chosen in one is chosen in the next."""
    node = 'label_values(coe_virtual_time_seconds_total{run="$run"}, node)'
    socket = 'label_values(coe_socket_up{run="$run",node=~"$node"}, socket)'
    run = 'label_values({__name__=~"coe_run|coe_link_frames_total"}, run)'  # of coe run, and of coe generate
    several = [
        _query("node", "Node", node, model.VariableSort.NUMERICAL_ASC),
        _query("socket", "Socket", socket, model.VariableSort.NUMERICAL_ASC),
    ]
    return [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        _query("run", "Run", run, model.VariableSort.ALPHABETICAL_DESC),  # most names begin with a date
        *(variable.multi(True).include_all(True).all_value(".*") for variable in several),
    ]


def _query(name: str, label: str, query: str, sort: model.VariableSort) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query).definition(query)
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(sort)


def _to_the_others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Samba-CoE").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    link.placement("")  # above the panels; the library would hide it in a menu
    return link.keep_time(True).include_vars(True)
