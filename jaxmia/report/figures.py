"""Figures as data URIs: single pictures, and matplotlib figures drawn once for light and once for dark pages."""

import base64
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import image as encoder
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from jaxmia.report import fonts
from jaxmia.report.folder import Measured
from jaxmia.report.tables import value

__all__ = [
    "WIDTH",
    "Drawing",
    "Line",
    "Theme",
    "axes_on",
    "curves",
    "heat_map",
    "intervals",
    "picture",
    "stretched",
    "text_on",
    "twice",
]

WIDTH = 7.4  # inches; at 9 points the text matches the page's
_PIXELS = 160  # a picture's longer side is halved until it is no more than this


class Drawing(NamedTuple):
    """One figure: data URIs for light and dark pages, and what it says, for those who cannot see it."""

    light: str
    dark: str
    text: str


class Theme(NamedTuple):
    """Colors of one page theme."""

    paper: str
    ink: str
    muted: str
    line: str
    accent: str
    series: tuple[str, ...]


_LIGHT = Theme(
    "#fcfbf8", "#1f2529", "#6a737a", "#dfdfd9", "#a8321f",
    ("#a8321f", "#1f6f8b", "#c08a1e", "#4f7a3a", "#6d4c9f", "#2b3f55", "#c2577a", "#7a6a55"),
)  # fmt: skip
_DARK = Theme(
    "#15191c", "#e6e3dc", "#98a1a8", "#30373c", "#ef7d62",
    ("#ef7d62", "#66b8d4", "#e2b755", "#94c47d", "#b69be0", "#9fb3c8", "#ee9fb8", "#c4b49b"),
)  # fmt: skip
_METADATA: Any = {"Software": None}  # no version: the same run gives the same bytes
_STYLE: Any = {
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Line(NamedTuple):
    """One curve; its color is a number, None for a control."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int | None


def picture(image: Float[np.ndarray, "h w c"]) -> str:
    """One image in [0, 1] as the data URI of a PNG, shrunk by whole factors where it is large."""
    while max(image.shape[:2]) > _PIXELS:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    color = np.clip(np.broadcast_to(image, image.shape[:2] + (3,)), 0, 1)
    buffer = io.BytesIO()
    encoder.imsave(buffer, np.round(color * 255).astype(np.uint8), format="png", metadata=_METADATA)
    return _uri(buffer)


def stretched(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """The image at full contrast: its 1st to 99th percentile spread over [0, 1]; one without contrast is left alone."""
    low, high = np.percentile(image, (1, 99))
    return np.clip((image - low) / (high - low), 0, 1) if high - low > 1e-6 else image


def intervals(rows: Sequence[tuple[str, str, bool, Measured]]) -> Drawing:
    """Values with intervals of one metric, one row each: (label, group, control, measured); groups are headed."""
    heads = list(dict.fromkeys(group for _, group, _, _ in rows))
    headed = len(heads) > 1 or heads[0] != ""

    def draw(theme: Theme) -> Figure:
        figure = Figure((WIDTH, 0.55 + 0.27 * (len(rows) + headed * 1.35 * len(heads))))
        axes = axes_on(figure, theme)
        y, ticks = 0.0, []
        for group in heads:
            if headed:
                y += 0.35 * (y > 0)
                axes.text(
                    0, y, group + "  ", transform=axes.get_yaxis_transform(), ha="right", va="center",
                    color=theme.ink, fontweight="bold", parse_math=False,
                )  # fmt: skip
                y += 1
            for label, _, control, m in (row for row in rows if row[1] == group):
                color = theme.muted if control else theme.accent
                axes.plot([m.low, m.high], [y, y], color=color, lw=1.6, solid_capstyle="round")
                axes.plot(m.value, y, "o", ms=6, color=color, mfc=theme.paper if control else color, mew=1.5)
                axes.annotate(
                    value(m), (m.high, y), xytext=(6, 0), textcoords="offset points", va="center", color=color, size=8
                )
                ticks.append((y, f"{label} (control)" if control else label, control))
                y += 1
        axes.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], parse_math=False)
        for tick, (_, _, control) in zip(axes.get_yticklabels(), ticks):
            tick.set_color(theme.muted if control else theme.ink)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=theme.line, lw=0.7)
        measured = [row[3] for row in rows]
        if all(m.unit == "share" for m in measured):
            axes.set_xlim(-0.01, 1.0)
            axes.set_xticks(np.linspace(0, 1, 6), [f"{100 * x:.0f} %" for x in np.linspace(0, 1, 6)])
        return figure

    return twice(draw, "; ".join(f"{label}, {group}: {value(m)}" for label, group, _, m in rows))


def heat_map(labels: Sequence[str], classes: Sequence[str], shares: Float[np.ndarray, "r k"]) -> Drawing:
    """Share of successful candidates by row and class; NaN where a class was not attacked."""
    rows, columns = shares.shape

    def draw(theme: Theme) -> Figure:
        figure = Figure((WIDTH, 1.0 + 0.31 * rows + (0.35 if columns <= 30 else 0)))
        axes = axes_on(figure, theme)
        colors = LinearSegmentedColormap.from_list("success", [theme.line, theme.accent]).with_extremes(bad=theme.paper)
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(shares), cmap=colors, vmin=0, vmax=1, edgecolors=theme.paper,
            linewidth=1.5 if columns <= 60 else 0,
        )  # fmt: skip
        axes.set_yticks(np.arange(rows) + 0.5, labels, parse_math=False)
        if columns <= 30:
            axes.set_xticks(np.arange(columns) + 0.5, classes, rotation=40, ha="right", parse_math=False)
            axes.set_xticklabels(axes.get_xticklabels(), rotation_mode="anchor")
        else:
            axes.set_xticks(np.arange(0, columns, max(1, round(columns / 10 / 5) * 5)))
            axes.set_xlabel("class, in order", color=theme.muted)
        if columns <= 12:
            for (r, k), share in np.ndenumerate(shares):
                if not math.isnan(share):
                    on = text_on(colors(share), theme)
                    axes.text(k + 0.5, r + 0.5, f"{100 * share:.0f}", ha="center", va="center", size=8, color=on)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.022, pad=0.02, aspect=14 if rows > 3 else 6)
        bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(length=0, colors=theme.muted, labelsize=8)
        return figure

    averages = (f"{label}: {100 * np.nanmean(row):.0f} % on average" for label, row in zip(labels, shares))
    return twice(draw, "; ".join(averages))


def curves(name: str, lines: Sequence[Line], over: str = "step", doubling: bool = False) -> Drawing:
    """What happened over the steps, or what `over` is; on a logarithmic axis where all is positive and spans two decades.

    `doubling` has every doubling of `over` as wide as the next.
    """
    values = np.concatenate([np.asarray(line.y, float) for line in lines])
    logarithmic = bool(values.min() > 0 and values.max() / values.min() > 100)

    def draw(theme: Theme) -> Figure:
        legend_rows = -(-len(lines) // 2)
        figure = Figure((WIDTH, 2.6 + 0.2 * legend_rows))
        axes = axes_on(figure, theme)
        drawn: dict[int | None, int] = {}
        for line in lines:
            before = drawn.setdefault(line.color, 0)
            drawn[line.color] += 1
            color = theme.muted if line.color is None else theme.series[line.color % len(theme.series)]
            style = (0, (2, 2)) if line.color is None else ("-", "--", "-.", ":")[before % 4]
            label = (line.name if len(line.name) <= 44 else line.name[:43] + "…").lstrip("_") or "–"
            axes.plot(line.x, line.y, color=color, ls=style, lw=1.4, label=label)
        axes.set_yscale("log" if logarithmic else "linear")
        if doubling:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel(over, color=theme.muted)
        axes.set_ylabel(name, color=theme.muted, parse_math=False)
        axes.grid(color=theme.line, lw=0.7)
        axes.margins(x=0.01)
        legend = figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8, handlelength=2.4)
        for text in legend.get_texts():
            text.set_parse_math(False)
            text.set_color(theme.ink)
        return figure

    ends = (f"{line.name}: {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    what = "the steps" if over == "step" else over
    return twice(draw, f"{name} over {what}; " + "; ".join(ends))


def axes_on(figure: Figure, theme: Theme, *place: int, **options: Any) -> Any:
    """Axes of a figure in the theme's colors, the only ones or at a place of `add_subplot`."""
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot(*place, **options)
    axes.set_facecolor("none")
    axes.tick_params(colors=theme.ink, which="both", width=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(theme.muted)
        spine.set_linewidth(0.7)
    return axes


def text_on(color: Any, theme: Theme) -> str:
    """Whichever of ink and paper stands out more on a color."""
    light = lambda c: float(np.dot(to_rgb(c), (0.299, 0.587, 0.114)))  # noqa: E731
    return max((theme.ink, theme.paper), key=lambda c: abs(light(c) - light(color[:3])))


def twice(draw: Callable[[Theme], Figure], text: str) -> Drawing:
    """What `draw` makes, for both themes; in further fonts where the usual one lacks glyphs that an
    installed one has."""
    uris, families = [], [fonts.OWN]
    for theme in (_LIGHT, _DARK):
        uri, missing = _drawn(draw, theme, families)
        if missing and (more := [name for name in fonts.covering(missing) if name not in families]):
            families += more
            uri, _ = _drawn(draw, theme, families)
        uris.append(uri)
    return Drawing(uris[0], uris[1], text)


def _drawn(draw: Callable[[Theme], Figure], theme: Theme, families: list[str]) -> tuple[str, frozenset[str]]:
    """The figure, and what it shows as boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught, matplotlib.rc_context({**_STYLE, "font.family": families}):
        warnings.simplefilter("always")
        figure: Any = draw(theme)
        figure.savefig(buffer, format="png", dpi=200, transparent=True, metadata=_METADATA)
    glyphs = [(warning, re.match(r"Glyph (\d+) ", str(warning.message))) for warning in caught]
    for warning, glyph in glyphs:
        if glyph is None:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return _uri(buffer), frozenset(chr(int(glyph[1])) for _, glyph in glyphs if glyph)


def _uri(buffer: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
