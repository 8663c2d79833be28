"""The command line. Nothing heavy is imported before a verb needs it, so that help answers at once."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; errors of the user are one plain message and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["jaxmia", *arguments])
    try:
        if options.verb in ("train", "attack", "sweep", "evaluate", "plan"):
            _start(options)
        _VERBS[options.verb](options)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"jaxmia {options.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxmia: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxmia",
        description="Audit how much of its training data a model gives away: model inversion attacks and defenses.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def takes_overrides(verb: argparse.ArgumentParser, example: str) -> None:
        verb.add_argument(
            "--set", dest="override", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
            help=f"change the configuration, e.g. {example}",
        )  # fmt: skip

    for verb, text, out in (
        ("train", "train the targets and evaluators of a configuration", "runs/latest"),
        ("attack", "train what is missing, attack, judge, write the report", "runs/latest"),
        ("sweep", "the same for every cell of a configuration with a sweep, and one table of all", "runs/sweep"),
        ("show", "print a configuration with all its defaults; of a sweep every cell", ""),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("config", help="YAML file, see configs/")
        takes_overrides(sub, "seed=1 attacks.0.steps=100")
        if verb in ("train", "attack"):
            processes = sub.add_argument_group("several processes, on one machine or many, that share the run folder")
            processes.add_argument("--coordinator", help="host:port of process 0, or auto where JAX knows the cluster")
            processes.add_argument("--num-processes", type=int, help="how many there are")
            processes.add_argument("--process-id", type=int, help="which one this is, from 0")
        if verb == "sweep":
            sub.add_argument("--executor", choices=["local", "ray"], default="local", help="where cells run (local)")
            sub.add_argument("--address", help="of a running Ray cluster; without one Ray starts here")
            sub.add_argument("--workers", type=int, help="cells at once, where Ray starts here")
        if out:
            sub.add_argument("--out", default=out, help=f"run folder ({out}); one of the same configuration is resumed")
    planned = verbs.add_parser(
        "plan", help="what each program of a configuration needs: compiled at full size, not run"
    )
    planned.add_argument("config", help="YAML file, see configs/; neither data nor weights that it names are read")
    takes_overrides(planned, "attacks.0.pool=50")
    planned.add_argument(
        "--time", action="store_true", help="also run two steps of each, and say how long all would take"
    )
    planned.add_argument(
        "--limit", type=float, default=80.0, help="GB of a device (80), which decide what fits together"
    )
    planned.add_argument("--public", type=int, default=70_000, help="public pictures, if the file says none (70000)")
    planned.add_argument("--json", metavar="FILE", help="write the same there; what it has already is not done again")
    evaluate = verbs.add_parser("evaluate", help="judge the candidates of a run folder anew, and its report")
    evaluate.add_argument("run")
    takes_overrides(evaluate, "evaluators.0.steps=1000; only evaluators may change")
    report = verbs.add_parser("report", help="make the page and the table of a run folder anew, or the page of a sweep")
    report.add_argument("run")
    listed = verbs.add_parser("list", help="known methods")
    listed.add_argument("what", choices=["attacks", "defenses", "targets", "evaluators"])
    data = verbs.add_parser("data", help="data sets").add_subparsers(dest="data_verb", required=True, metavar="VERB")
    data.add_parser("list", help="what can be fetched, and what is cached")
    data.add_parser("fetch", help="fetch one data set").add_argument("name")
    return parser


def _start(options: argparse.Namespace) -> None:
    """Before anything is computed: join the other processes, find programs that an earlier run compiled."""
    from jaxmia import compiling, parallel
    from jaxmia.data.fetch import cache_folder

    if getattr(options, "coordinator", None):
        parallel.join(options.coordinator, options.num_processes, options.process_id)
    compiling.keep_compiled(cache_folder() / "compiled")


def _load(path: Any, overrides: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The checked configuration, and the audit of its modality."""
    from jaxmia import audit, config

    checked = config.load(path, overrides, lambda written: audit.module(written).SCHEMA)
    return checked, audit.module(checked)


def _attack(options: argparse.Namespace) -> None:
    from jaxmia import config
    from jaxmia.audit import folder

    checked, module = _load(options.config, options.override)
    if "sweep" in checked:
        raise ValueError(f"{options.config}: sweep: has several cells; use `jaxmia sweep`, or drop it")
    run = folder.open_run(options.out, config.dump(checked), config.digest(checked), options.command)
    if options.verb == "train":
        module.train(checked, [run])
        print(f"trained: {run / 'training'}")
        return
    failed = module.audit([(checked, run)])
    if failed:
        raise FloatingPointError(failed[run])
    print(f"candidates and measurements: {run}")
    options.run = run
    if not options.process_id:  # what a report reads the first process wrote
        _report(options)


def _sweep(options: argparse.Namespace) -> None:
    from jaxmia.audit.sweep import sweep

    checked, _ = _load(options.config, options.override)
    if "sweep" not in checked:
        raise ValueError(
            f"{options.config}: sweep: missing, so there is one cell; use `jaxmia attack`, or give a sweep"
        )
    if options.executor == "ray":
        from jaxmia.audit.cluster import on_ray

        executor = on_ray(options.address, options.workers)
    elif options.address or options.workers:
        raise ValueError("--address, --workers: are of Ray; legal with --executor ray")
    else:
        executor = None
    print(f"report: {sweep(checked, options.out, options.command, executor)}")


def _show(options: argparse.Namespace) -> None:
    from jaxmia import config

    checked, module = _load(options.config, options.override)
    print("---\n".join(config.dump(cell) for cell in config.expand(checked, module.SCHEMA)), end="")


def _plan(options: argparse.Namespace) -> None:
    from jaxmia.audit import planning

    for name, value in (("--limit", options.limit), ("--public", options.public)):
        if not value > 0:
            raise ValueError(f"{name}: {value}; legal is more than 0")
    checked, _ = _load(options.config, options.override)
    rows = planning.plan(
        checked, timed=options.time, limit=int(options.limit * 1e9), public=options.public, file=options.json,
        say=lambda part: print(f"compiling: {part}", file=sys.stderr, flush=True),
    )  # fmt: skip
    _print_table(planning.COLUMNS, planning.table(rows, int(options.limit * 1e9)))


def _evaluate(options: argparse.Namespace) -> None:
    import pathlib

    from jaxmia import config
    from jaxmia.audit import folder

    run = pathlib.Path(options.run)
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder")
    for override in options.override:
        key = override.partition("=")[0].strip()
        if key.split(".")[0] != "evaluators":
            raise ValueError(f"{key}: cannot change for candidates that are there; legal is evaluators")
    stored, _ = _load(run / "config.yaml", [])
    if not folder.holds(run, config.digest(stored)):
        raise ValueError(f"{run / 'config.yaml'}: is not what the run was made with (see config.sha256); restore it")
    checked, module = _load(run / "config.yaml", options.override)
    module.evaluate(checked, run)
    folder.amend_environment(run, evaluated=options.command)
    _report(options)


def _report(options: argparse.Namespace) -> None:
    import pathlib

    from jaxmia import report

    of_sweep = (
        not (pathlib.Path(options.run) / "config.yaml").exists()
        and (pathlib.Path(options.run) / "results.csv").exists()
    )
    print(f"report: {(report.build_sweep if of_sweep else report.build)(options.run)}")


def _list(options: argparse.Namespace) -> None:
    from jaxmia import attacks, defenses, zoo

    if options.what in ("targets", "evaluators"):
        known = zoo.TARGETS if options.what == "targets" else zoo.EVALUATORS
        told = ((name, " ".join((factory.__doc__ or "").split())) for name, factory in known.items())
        _print_table(("name", "what"), told)
        return
    registry = attacks if options.what == "attacks" else defenses
    cards = [(name, registry.get(name).card) for name in registry.names()]
    if options.what == "attacks":
        _print_table(
            ("name", "access", "year", "title", "recovers"),
            ((name, card.access.name, card.year, card.title, card.recovers) for name, card in cards),
        )
    else:
        _print_table(
            ("name", "hooks", "year", "title", "paper"),
            ((name, card.hook, card.year, card.title, card.paper) for name, card in cards),
        )


def _data(options: argparse.Namespace) -> None:
    from jaxmia.data import fetch, listing

    if options.data_verb == "fetch":
        print(fetch(options.name))
        return
    _print_table(
        ("name", "modality", "MB", "cached", "content", "license"),
        (
            (row["name"], row["modality"], row["megabytes"], "yes" if row["cached"] else "no", row["content"],
             row["license"])
            for row in listing()
        ),
    )  # fmt: skip


def _print_table(head: Sequence[str], rows: Any) -> None:
    """A table that fits a terminal; elsewhere one line a row, aligned, for grep and the like."""
    lines = [[str(entry) for entry in row] for row in (head, *rows)]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*head)
        for line in lines[1:]:
            table.add_row(*(Text(entry) for entry in line))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(entry.ljust(width) for entry, width in zip(line, widths)).rstrip())


_VERBS = {
    "train": _attack,
    "attack": _attack,
    "sweep": _sweep,
    "show": _show,
    "plan": _plan,
    "evaluate": _evaluate,
    "report": _report,
    "list": _list,
    "data": _data,
}


if __name__ == "__main__":
    sys.exit(main())
