"""From a run folder to one HTML page."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from jaxmia.report import exhibits, panels, tables
from jaxmia.report.folder import Cell, Run, Table, read
from jaxmia.report.writing import write

__all__ = ["build", "count", "further", "render", "threat"]

_STATUS = {"RUNNING": "took all steps", "STOPPED": "stopped early", "NONFINITE": "went non-finite"}


def build(folder: str | os.PathLike, pictures: bool = True) -> pathlib.Path:
    """Write `report.html` and `results.csv` into a run folder, whose layout `jaxmia.report` describes.

    The same folder gives the same bytes. The page holds its pictures and style, no script, and no links but those to
    the papers.

    Args:
      folder: of the run.
      pictures: False leaves out every exhibit of private or recovered content, pictures and texts, and says so.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: the folder or a required file is missing.
      ValueError: a file is damaged or does not fit the others; the message names it.
      OSError: the page or the table cannot be written; the message names it.
    """
    run = read(pathlib.Path(folder).expanduser(), arrays=pictures)
    shown = exhibits.sections(run, templates(), content=pictures)
    text = render("page", {**_content(run), "exhibits": shown, "pictures": pictures})
    write(run.folder / "results.csv", tables.results(run))
    write(run.folder / "report.html", text)
    return run.folder / "report.html"


def templates() -> jinja2.Environment:
    """The templates of the pages, which lie beside this file."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("jaxmia.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def render(page: str, content: dict[str, Any]) -> str:
    """The text of a page; its style stands in it."""
    style = (pathlib.Path(__file__).parent / "templates" / "style.css").read_text("utf-8")
    content = {**content, "style": Markup(style)}  # noqa: S704 (ours, without any value of a run)
    return templates().get_template(f"{page}.html.j2").render(content)


def _content(run: Run) -> dict[str, Any]:
    environment = dict(run.environment)
    command = environment.pop("command")
    warning = environment.pop("warning", None)
    title = environment.pop("title", None) or f"Model inversion audit: {run.folder.resolve().name}"
    methods = {m.method: m.confidence for cell in run.cells for m in cell.metrics.values()}
    return {
        "title": title,
        "summary": _summary(run),
        "warnings": [warning] if warning else [],
        "verdicts": [table.verdict for table in run.tables if table.verdict] or tables.verdicts(run),
        "unfinished": run.unfinished,
        "finished": len(run.cells),
        "tiles": _tiles(run),
        "threats": [threat(row) for row in tables.threats(run.cells)],
        "overviews": panels.overviews(run),
        "metrics": _metrics(run),
        "intervals": " ".join(f"{100 * confidence:g} %: {name}." for name, confidence in methods.items()),
        "curves": panels.curve_figures(run),
        "tables": further(run.tables),
        "targets": [
            {
                "name": t.name,
                "dataset": t.dataset,
                "architecture": t.architecture,
                "accuracy": tables.item(t.test_accuracy),
                "defense": t.defense,
                "granted": tables.sees(t.granted),
                "parameters": tables.number(t.parameters),
                "seconds": tables.seconds(t.seconds),
            }
            for t in run.targets.values()
        ],
        "costs": [_cost(run, cell) for cell in run.cells],
        "command": command,
        "config": run.config,
        "environment": [(name.replace("_", " "), value) for name, value in environment.items()],
    }


def further(given: Sequence[Table]) -> list[dict[str, Any]]:
    """Further tables as a page shows them."""
    return [
        {
            "title": table.title,
            "note": table.note,
            "columns": table.columns,
            "rows": [
                {"control": i in table.controls, "entries": [tables.item(entry) for entry in row]}
                for i, row in enumerate(table.rows)
            ],
        }
        for table in given
    ]


def _summary(run: Run) -> str:
    attacks = {cell.label for cell in run.cells if not cell.control}
    controls = {cell.label for cell in run.cells if cell.control}
    parts = [
        count(len(attacks), "attack"),
        count(len(controls), "control"),
        count(len(run.targets), "target"),
        f"{sum(cell.n for cell in run.cells):,} attacked",
        str(run.environment.get("date") or ""),
    ]
    return " · ".join(part for part in parts if part)


def count(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _tiles(run: Run) -> list[dict[str, Any]]:
    """The strongest attack on each target, where there are several targets to compare."""
    tiles = []
    for target in run.targets.values() if len(run.targets) > 1 else ():
        cells = [cell for cell in run.cells if cell.target == target.name and not cell.control]
        headline = next((cell.headline for cell in cells if cell.headline), None)
        best = tables.strongest(cells, headline) if headline else None
        if best is None or headline is None:
            continue
        shown = tables.estimate(best.metrics[headline])
        accuracy = f", test accuracy {tables.value(target.test_accuracy)}" if target.test_accuracy else ""
        tiles.append(
            {
                "name": target.name,
                "about": (target.defense or "no defense") + accuracy,
                "value": shown["value"],
                "interval": shown["interval"],
                "metric": tables.worded(headline),
                "label": best.label,
            }
        )
    return tiles


def threat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `tables.threats` as the page shows it."""
    url = row["card"]["url"]
    link = url if url.startswith(("https://", "http://")) else None  # no other scheme gets to be a link
    shown = {name: row[name] and tables.number(row[name]) for name in ("max", "training")}
    return {**row, "link": link, "mean": tables.number(row["mean"]), **shown}


def _metrics(run: Run) -> list[dict[str, Any]]:
    """One table per target; columns are all metrics of its cells."""
    blocks = []
    for target in run.targets:
        cells = [cell for cell in run.cells if cell.target == target and cell.metrics]
        names = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
        directions = {name: m.stronger for cell in cells for name, m in cell.metrics.items()}
        rows = [
            {
                "label": cell.label,
                "control": cell.control,
                "about": tables.seeded(cell, cells),
                "entries": [tables.item(cell.metrics.get(name)) for name in names],
            }
            for cell in cells
        ]
        columns = [tables.worded(name) + (" ↓" if directions[name] == "lower" else " ↑") for name in names]
        if rows:
            blocks.append({"title": tables.titled(run, target), "columns": columns, "rows": rows})
    return blocks


def _cost(run: Run, cell: Cell) -> dict[str, Any]:
    seed = tables.seeded(cell, run.cells)
    return {
        "name": cell.name,
        "label": cell.label,
        "control": cell.control,
        "about": tables.titled(run, cell.target) + f", {seed}" * bool(seed),
        "n": tables.number(cell.n),
        "status": [
            (_STATUS.get(name, name), count, name == "NONFINITE") for name, count in cell.status.items() if count
        ],
        "queries": tables.number(cell.queries["mean"]) if cell.queries else "–",
        "training": cell.queries and cell.queries["training"] and tables.number(cell.queries["training"]),
        "seconds": tables.seconds(cell.seconds),
        "each": tables.seconds(cell.seconds / cell.n) if cell.n else "–",
        "hyperparameters": list(cell.hyperparameters.items()),
    }
