"""The kinds of panel there are, each with a title, a description, a unit and its queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shown
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = shown.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 8, 8  # three in a row of 24
Panel = Builder[model.Panel]
Kind = TypeVar("Kind", timeseries.Panel, stat.Panel, bargauge.Panel, statetimeline.Panel)
Level = tuple[float, str]  # from this value on, in this colour
BY_SERIES, BY_LEVEL = model.FieldColorModeId.PALETTE_CLASSIC, model.FieldColorModeId.THRESHOLDS
NOW = common.ReduceDataOptions().calcs(["lastNotNull"])


class Query(NamedTuple):
    """PromQL, and what its series are called, by their labels."""

    expr: str
    legend: str


class About(NamedTuple):
    """What a panel says: ``description`` tells what it means, and where to look next; lines of it are joined.

    ``next``: the uid and the title of the dashboard for that; ``nothing``: what it says where there is no data.
    """

    title: str
    unit: str
    description: str
    next: tuple[str, str] | None = None
    nothing: str = ""


def lines(about: About, *queries: Query, most: float | None = None, stacked: bool = False) -> timeseries.Panel:
    """Series over time, on a scale from 0 to ``most``, or beyond it where a value is."""
    panel = _told(timeseries.Panel(), about, queries, BY_SERIES).min(0).fill_opacity(10)
    panel.legend(common.VizLegendOptions().show_legend(True).placement(shown.LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions().mode(shown.TooltipDisplayMode.MULTI).sort(shown.SortOrder.DESCENDING))
    if most is not None:
        panel.axis_soft_max(most)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shown.StackingMode.NORMAL)).fill_opacity(60).line_width(0)
    return panel


def marked(panel: timeseries.Panel, *levels: Level) -> timeseries.Panel:
    """With dashed lines at ``levels``."""
    style = common.GraphThresholdsStyleConfig().mode(shown.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(_levels("green", levels)).thresholds_style(style)


def number(about: About, *queries: Query, levels: Sequence[Level] = ()) -> stat.Panel:
    """A number by query, as of now; ``levels`` give it a colour."""
    panel = _told(stat.Panel(), about, queries, BY_LEVEL, instant=True).reduce_options(NOW)
    panel.graph_mode(shown.BigValueGraphMode.NONE)
    return panel.text_mode(shown.BigValueTextMode.VALUE_AND_NAME).thresholds(_levels("green", levels))


def bars(about: About, *queries: Query, most: float | None = None, levels: Sequence[Level] = ()) -> bargauge.Panel:
    """A bar for each series, as of now."""
    panel = _told(bargauge.Panel(), about, queries, BY_LEVEL, instant=True).reduce_options(NOW).min(0)
    panel.thresholds(_levels("blue", levels))
    if about.unit == "short":
        panel.decimals(0)  # what is counted is whole, but for what Prometheus makes of the ends of a range
    panel.orientation(shown.VizOrientation.HORIZONTAL).display_mode(shown.BarGaugeDisplayMode.BASIC)
    return panel if most is None else panel.max(most)


def states(about: About, query: Query, named: Mapping[str, tuple[str, str]], others: str) -> statetimeline.Panel:
    """What each series was when; ``named``: text and colour by value, all ``others`` in one colour."""
    panel = _told(statetimeline.Panel(), about, [query], BY_LEVEL).thresholds(_levels(others, ()))
    results = {value: model.ValueMappingResult(text=text, color=colour) for value, (text, colour) in named.items()}
    return panel.mappings([model.ValueMap(results)])


def wide(panel: Kind, width: int, height: int = HEIGHT) -> Kind:
    """As wide as so many of 24 columns."""
    return panel.span(width).height(height)


def _told(
    panel: Kind, about: About, queries: Sequence[Query], colours: model.FieldColorModeId, *, instant: bool = False
) -> Kind:
    panel.color_scheme(dashboard.FieldColor().mode(colours))
    panel.title(about.title).description(" ".join(about.description.split())).unit(about.unit).datasource(SOURCE)
    panel.span(WIDTH).height(HEIGHT).no_value(about.nothing or "no data")
    for letter, query in zip("ABCDEF", queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expr).legend_format(query.legend)
        target = target.format(PromQueryFormat.TIME_SERIES)
        panel.with_target(target.instant() if instant else target.range())
    if about.next is not None:
        uid, title = about.next
        url = f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}"
        panel.links([dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url)])
    return panel


def _levels(first: str, levels: Sequence[Level]) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color=first), *(model.Threshold(value=at, color=c) for at, c in levels)]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
