"""The figures of a sweep's page: a metric over settings, over pairs of settings, and against accuracy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from jaxmia.report.figures import WIDTH, Drawing, Theme, axes_on, text_on, twice
from jaxmia.report.folder import Measured
from jaxmia.report.tables import interval, value

__all__ = ["Dot", "Map", "Series", "maps", "over_setting", "tradeoff"]

_MARKERS = "osD^vP*X"
_LONG = 26  # characters of a name in a figure


class Series(NamedTuple):
    """A metric at several values of a setting; its color is a number, None for a control."""

    name: str
    x: Sequence[float]
    y: Sequence[Measured]
    color: int | None


class Map(NamedTuple):
    """A metric by row and column; NaN where no cell has finished."""

    name: str
    control: bool
    values: Float[np.ndarray, "r k"]


class Dot(NamedTuple):
    """A target's accuracy and the strongest attack on it; its number on the front, None behind."""

    name: str
    accuracy: Measured
    risk: Measured
    number: int | None


def over_setting(path: str, metric: str, panels: Sequence[tuple[str, Sequence[Series]]]) -> Drawing:
    """One panel per target, one line per attack; a logarithmic axis where the values span two decades."""
    series = [one for _, lines in panels for one in lines]
    names = list(dict.fromkeys((one.name, one.color) for one in series))
    ticks = sorted({x for one in series for x in one.x})
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    legend_columns = 2 if max(len(name) for name, _ in names) <= 40 else 1
    height = 2.3 * rows + 0.3 + 0.2 * -(-len(names) // legend_columns) + 0.4 * (rows == 1)

    def draw(theme: Theme) -> Figure:
        figure = Figure((WIDTH, height))
        first: Any = None
        for number, (title, lines) in enumerate(panels, start=1):
            axes = axes_on(figure, theme, rows, columns, number, sharex=first, sharey=first)
            first = first or axes
            for place, one in enumerate(lines):
                look = _look(theme, names.index((one.name, one.color)), one.color)
                dodge = offset_copy(axes.transData, figure, 3 * (place - (len(lines) - 1) / 2), 0, "points")
                y = [m.value for m in one.y]
                ends = [[m.value - m.low for m in one.y], [m.high - m.value for m in one.y]]
                axes.errorbar(one.x, y, ends, **look, transform=dodge)
                axes.update_datalim([(x, end) for x, m in zip(one.x, one.y) for end in (m.low, m.high)])
            axes.autoscale_view()
            if len(panels) > 1:
                axes.set_title(_cut(title, 40), fontsize=9, color=theme.ink, loc="left", parse_math=False)
            axes.grid(axis="y", color=theme.line, lw=0.7)
            if number > len(panels) - columns:
                axes.set_xlabel(_cut(path, 50), color=theme.muted, parse_math=False)
            if number % columns == 1 or columns == 1:
                axes.set_ylabel(_cut(metric, 34), color=theme.muted, parse_math=False)
        _scale(first, ticks, theme)
        _percents(first.yaxis, [m for one in series for m in one.y])
        handles = [
            first.plot([], [], **{k: v for k, v in _look(theme, i, color).items() if k in _LINE})[0]
            for i, (_, color) in enumerate(names)
        ]
        labels = [
            _cut(name, 84 // legend_columns).lstrip("_") + " (control)" * (color is None) for name, color in names
        ]
        legend = figure.legend(
            handles, labels, loc="outside lower left", ncols=legend_columns, frameon=False, fontsize=8
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
            text.set_color(theme.ink)
        return figure

    said = (
        f"{one.name}{f', {title}' if len(panels) > 1 else ''}: "
        + ", ".join(f"{value(m)} {interval(m)} at {x:g}" for x, m in zip(one.x, one.y))
        for title, lines in panels
        for one in lines
    )
    return twice(draw, f"{metric} by {path}. " + "; ".join(said))


_LINE = ("color", "ls", "marker", "ms", "mfc", "mew", "lw")


def _look(theme: Theme, index: int, color: int | None) -> dict[str, Any]:
    """Line and marker of a series; a control is hollow and dashed."""
    shade = theme.muted if color is None else theme.series[color % len(theme.series)]
    return {
        "color": shade, "ls": (0, (3, 2)) if color is None else "-", "lw": 1.3, "marker": _MARKERS[index % len(_MARKERS)],
        "ms": 5, "mfc": theme.paper if color is None else shade, "mew": 1.2, "elinewidth": 1.1, "capsize": 2,
    }  # fmt: skip


def _scale(axes: Any, ticks: Sequence[float], theme: Theme) -> None:
    """The x axis: logarithmic over decades, linear through zero, marked at the values where these leave room."""
    positive = [x for x in ticks if x > 0]
    if ticks[0] >= 0 and positive and positive[-1] / positive[0] >= 100:
        if ticks[0] > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    low, high = axes.transAxes.inverted().transform(axes.transData.transform([(ticks[0], 0), (ticks[-1], 0)]))[:, 0]
    places = axes.transData.transform([(x, 0) for x in ticks])[:, 0]
    if len(ticks) <= 8 and (len(ticks) == 1 or np.diff(places).min() >= (places[-1] - places[0]) / 14):
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.set_xticks([], minor=True)
    axes.margins(x=0.08)


def _percents(axis: Any, measured: Sequence[Measured]) -> None:
    if all(m.unit == "share" for m in measured):
        axis.set_major_formatter(lambda x, _: f"{100 * x:g}\u00a0%")


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def maps(rows: tuple[str, list[str]], columns: tuple[str, list[str]], panels: Sequence[Map], like: Measured) -> Drawing:
    """One panel per attack and target, on one scale of color, with the values: path and values of rows, then columns."""
    wide = len(columns[1])
    across = min(len(panels), 3 if wide <= 4 else 2 if wide <= 8 else 1)
    room = 66 - min(_LONG, max(len(name) for name in rows[1]))  # characters of titles that fit side by side
    if across == 3 and max(len(panel.name) for panel in panels) > room // 3:
        across = 2
    down = -(-len(panels) // across)
    values = np.concatenate([panel.values.ravel() for panel in panels])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if like.unit == "share":
        low, high = 0.0, 1.0

    def draw(theme: Theme) -> Figure:
        figure = Figure((WIDTH, 0.5 + down * (0.75 + 0.28 * len(rows[1]))))
        colors = LinearSegmentedColormap.from_list("metric", [theme.line, theme.accent]).with_extremes(bad=theme.paper)
        norm, every, mesh = Normalize(low, high), [], None
        for number, panel in enumerate(panels, start=1):
            axes = axes_on(figure, theme, down, across, number)
            every.append(axes)
            mesh = axes.pcolormesh(
                np.ma.masked_invalid(panel.values), cmap=colors, norm=norm, edgecolors=theme.paper, linewidth=1.5
            )
            for (r, k), x in np.ndenumerate(panel.values):
                if wide <= 16 and not np.isnan(x):
                    said = f"{100 * x:.0f}" if like.unit == "share" else f"{x:.3g}"
                    axes.text(k + 0.5, r + 0.5, said, ha="center", va="center", size=8 if wide <= 10 else 6.5,
                              color=text_on(colors(norm(x)), theme))  # fmt: skip
            first, last = (number - 1) % across == 0, number > len(panels) - across
            _named(axes.set_xticks, columns[1] if last else [""] * wide)
            _named(axes.set_yticks, rows[1] if first else [""] * len(rows[1]))
            if last and any(len(name) > 5 for name in columns[1]):
                axes.tick_params(axis="x", rotation=35)
                for text in axes.get_xticklabels():
                    text.set(ha="right", rotation_mode="anchor")
            if last:
                axes.set_xlabel(_cut(columns[0], 60 // across), color=theme.muted, parse_math=False)
            if first:
                axes.set_ylabel(_cut(rows[0], 24), color=theme.muted, parse_math=False)
            axes.invert_yaxis()
            axes.tick_params(length=0)
            color = theme.muted if panel.control else theme.ink
            axes.set_title(_cut(panel.name, room // across), fontsize=8.5, color=color, loc="left", parse_math=False)
            for spine in axes.spines.values():
                spine.set_visible(False)
        bar = figure.colorbar(mesh, ax=every, fraction=0.022, pad=0.02, aspect=20)  # type: ignore[arg-type]
        _percents(bar.ax.yaxis, [like])
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(length=0, colors=theme.muted, labelsize=8)
        return figure

    def said(panel: Map) -> str:
        r, k = np.unravel_index(np.nanargmax(panel.values), panel.values.shape)
        top = value(like._replace(value=float(panel.values[r, k])))
        return f"{panel.name}: highest {top} at {rows[1][r]} and {columns[1][k]}"

    return twice(draw, f"{rows[0]} by {columns[0]}. " + "; ".join(said(panel) for panel in panels))


def _named(set_ticks: Any, names: Sequence[str]) -> None:
    set_ticks(np.arange(len(names)) + 0.5, [_cut(name, _LONG) for name in names], parse_math=False)


def tradeoff(metric: str, dots: Sequence[Dot]) -> Drawing:
    """Accuracy against the strongest attack, one color per target; those on the front are numbered and joined."""
    names = list(dict.fromkeys(dot.name for dot in dots))
    places: dict[tuple[float, float], list[str]] = {}  # equal ones share a mark
    for dot in dots:
        if dot.number:
            places.setdefault((dot.accuracy.value, dot.risk.value), []).append(str(dot.number))

    def draw(theme: Theme) -> Figure:
        figure = Figure((WIDTH, 3.4 + 0.2 * -(-len(names) // 3)))
        axes = axes_on(figure, theme)
        front = sorted((d for d in dots if d.number), key=lambda d: d.accuracy.value)
        x, y = [d.accuracy.value for d in front], [d.risk.value for d in front]
        axes.plot(x, y, color=theme.muted, lw=0.9, ls=(0, (1, 2)), drawstyle="steps-pre", zorder=1)
        for dot in dots:
            color = theme.series[names.index(dot.name) % len(theme.series)]
            x, y, faint = dot.accuracy, dot.risk, 1.0 if dot.number else 0.45
            axes.plot([x.low, x.high], [y.value, y.value], color=color, lw=0.8, alpha=0.4 * faint)
            axes.plot([x.value, x.value], [y.low, y.high], color=color, lw=0.8, alpha=0.4 * faint)
            axes.plot(
                x.value, y.value, _MARKERS[names.index(dot.name) % len(_MARKERS)], color=color, alpha=faint,
                ms=7 if dot.number else 5, mec=theme.ink if dot.number else color, mew=0.9, zorder=3,
            )  # fmt: skip
        for i, ((x, y), numbers) in enumerate(places.items()):  # neighbors on the front take turns above and below
            axes.annotate(
                ", ".join(numbers), (x, y), xytext=(6, -11 if i % 2 else 5), textcoords="offset points", size=9,
                color=theme.ink, fontweight="bold", zorder=5,
            )  # fmt: skip
        axes.set_xlabel("test accuracy", color=theme.muted)
        axes.set_ylabel(_cut(metric, 44), color=theme.muted, parse_math=False)
        axes.grid(color=theme.line, lw=0.7)
        for axis, measured in ((axes.xaxis, [d.accuracy for d in dots]), (axes.yaxis, [d.risk for d in dots])):
            _percents(axis, measured)
            if all(m.unit == "share" for m in measured):
                low, high = axis.get_view_interval()
                axis.set_view_interval(max(low, -0.05), min(high, 1.05), ignore=True)
        handles = [
            axes.plot([], [], _MARKERS[i % len(_MARKERS)], color=theme.series[i % len(theme.series)], ms=6)[0]
            for i in range(len(names))
        ]
        legend = figure.legend(
            handles, [_cut(name, _LONG).lstrip("_") for name in names], loc="outside lower left", ncols=3, frameon=False,
            fontsize=8,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
            text.set_color(theme.ink)
        return figure

    said = (f"{d.number}: {d.name}, test accuracy {value(d.accuracy)}, {value(d.risk)}" for d in dots if d.number)
    return twice(draw, f"{metric} of the strongest attack by test accuracy. On the front: " + "; ".join(said))
