"""Draws the charts of docs/design/silence.md from the back-test.

    python -m benchmarks.silence_plot [CHANNELS]

silence-week.svg shows the learned profiles of three kinds after four weeks; silence-tradeoff.svg
is the second table of that page. With 200 channels, as on that page, it takes about 2 minutes.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pygal
from pygal.style import Style

from benchmarks.silence import (
    CEILING,
    CHANNELS,
    FLOOR,
    TRAIN_WEEKS,
    WEEK,
    Channel,
    Outcome,
    history_of,
    judge_all,
    make,
    total,
)
from benchmarks.silence_traffic import BEGINS, BUSY, KINDS, ZONE
from demo.configuration import ROOT
from exporter.silence.model import Bounds, Learned, learn
from exporter.silence.profile import WEEK_HOURS

_FOLDER = ROOT / "docs" / "images"
_SHOWN = ("shop", "office", "night bar")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WIDTH = 860
_BLUE, _ORANGE = "#3987e5", "#d9662c"  # good contrast on white and on black
_LIGHT = {"background": "#ffffff", "ink": "#24292f", "guide": "#d8dee4"}
_DARK = {"background": "#0d1117", "ink": "#e6edf3", "guide": "#30363d"}
_BOUNDS = Bounds(1, FLOOR, CEILING)
_LEAST_ALARMS = 0.1  # a month; fewer do not fit on a logarithmic scale

# Both have their own background: a page may be dark while the browser is not.
_CSS = f"""inline:
.axis .line {{ stroke: {_LIGHT["guide"]} !important }}
.axis.x .guide.line {{ opacity: 1 !important }}
.line.nofill {{ stroke-width: 2 !important; stroke-opacity: 1 !important }}
text.label {{ transform: translateY(-11px) }}
@media (prefers-color-scheme: dark) {{
  .graph > .background, .plot > .background {{ fill: {_DARK["background"]} !important }}
  text {{ fill: {_DARK["ink"]} !important }}
  .axis .line {{ stroke: {_DARK["guide"]} !important }}
}}
"""


def main() -> None:
    """Draw both charts."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CHANNELS
    channels = [make(number) for number in range(count)]
    learned = _learned(channels)
    weeks = [_week(name, one, legend=name == _SHOWN[-1]) for name, one in learned.items()]
    _save("silence-week", 1, weeks)
    ways = judge_all(channels)
    _save(
        "silence-tradeoff",
        2,
        [
            _tradeoff("All channels, on average", channels, ways, None, statistics.mean),
            _tradeoff("Busy channels, median", channels, ways, BUSY, statistics.median),
        ],
    )


def _learned(channels: Sequence[Channel]) -> dict[str, Learned]:
    """Return the learned profile of the first channel of each shown kind."""
    ends = BEGINS.timestamp() + TRAIN_WEEKS * WEEK
    histories = {str(n): history_of(channel.heard, ends) for n, channel in enumerate(channels)}
    learned = learn(histories, _BOUNDS, ZONE)
    names = [kind.name for kind in KINDS]
    return {name: learned[str(names.index(name))] for name in _SHOWN}


def _week(name: str, learned: Learned, *, legend: bool) -> Any:
    chart = _chart(
        name.capitalize(),
        width=_WIDTH,
        height=205 if legend else 175,
        show_legend=legend,
        xrange=(0, WEEK_HOURS),
        range=(0, 60),
        y_labels=[0, 20, 40, 60],
        secondary_range=(0, 30),
        x_labels=[{"value": 24 * day, "label": label} for day, label in enumerate(_DAYS)],
    )
    # The rate is constant within an hour.
    busy = [
        (end, -60 * math.expm1(-rate / 60))
        for hour, rate in enumerate(learned.profile.rates)
        for end in (hour, hour + 1)
    ]
    chart.add("busy minutes an hour (left)", busy, fill=True)
    begins = BEGINS.timestamp()
    silent = [
        (half / 2, learned.threshold(begins + 1800 * half, _BOUNDS, ZONE) / 3600)
        for half in range(2 * WEEK_HOURS + 1)
    ]
    chart.add("may be silent, hours (right)", silent, secondary=True)
    return chart


def _tradeoff(
    title: str,
    channels: Sequence[Channel],
    ways: dict[str, list[Outcome]],
    kinds: set[str] | None,
    middle: Callable[[Sequence[int]], float],
) -> Any:
    chart = _chart(
        title,
        width=_WIDTH // 2,
        height=440,
        xrange=(math.log10(0.5), math.log10(900)),
        range=(math.log10(4), math.log10(800)),
        x_title="false alarms a month",
        y_title="messages lost to a zombie",
        x_labels=_logarithmic(1, 10, 100),
        y_labels=_logarithmic(5, 10, 20, 50, 100, 200, 500),
        show_dots=True,
        print_labels=True,
    )
    for prefix in ("fixed", "adaptive"):
        points = []
        for way, outcomes in ways.items():
            outcome = total(channels, outcomes, kinds)
            if way.startswith(prefix) and "72" not in way and outcome.per_month >= _LEAST_ALARMS:
                at = math.log10(outcome.per_month), math.log10(middle(outcome.lost))
                points.append({"value": at, "label": way.removeprefix(prefix).strip()})
        chart.add(prefix, points)
    return chart


def _logarithmic(*values: float) -> list[dict[str, Any]]:
    return [{"value": math.log10(value), "label": f"{value:g}"} for value in values]


def _chart(title: str, **options: Any) -> Any:
    style = Style(
        background=_LIGHT["background"],
        plot_background=_LIGHT["background"],
        foreground=_LIGHT["ink"],
        foreground_strong=_LIGHT["ink"],
        foreground_subtle=_LIGHT["guide"],
        guide_stroke_color=_LIGHT["guide"],
        major_guide_stroke_color=_LIGHT["guide"],
        guide_stroke_dasharray="none",
        major_guide_stroke_dasharray="none",
        colors=(_BLUE, _ORANGE),
        opacity=".35",
        font_family="system-ui, sans-serif",
        title_font_size=15,
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=13,
        value_label_font_size=11,
        value_font_size=5,  # sets the labels' distance from their points
    )
    given = {
        "show_dots": False,
        "show_x_guides": True,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 2,
        "margin": 10,
        **options,
    }
    css = ["file://style.css", "file://graph.css", _CSS]
    return pygal.XY(title=title, style=style, css=css, js=[], **given)


def _save(name: str, columns: int, charts: Sequence[Any]) -> None:
    """Write the charts into one SVG file, in ``columns`` columns."""
    parts = []
    width = height = 0
    for number, chart in enumerate(charts):
        chart.uuid = f"{name}-{number}"
        chart.explicit_size = True
        chart.disable_xml_declaration = True
        column = number % columns
        at = f'<svg x="{column * chart.config.width}" y="{height}" '
        parts.append(chart.render(is_unicode=True).replace("<svg ", at, 1))
        width = max(width, (column + 1) * chart.config.width)
        if column == columns - 1:
            height += chart.config.height
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(parts)}</svg>\n'
    )
    (_FOLDER / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    main()
