"""The command line. Nothing heavy is imported before a verb needs it, so that help answers at once."""

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from jaxmia import __version__, packages

__all__ = ["KINDS", "main"]

KINDS = ("attacks", "defenses", "targets", "evaluators", "priors", "data")
"""What `jaxmia list` can list."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb, and return the exit status.

    An error that a user can cause is one plain message and status 2; a fault of jaxmia is one sentence and status 1.
    `--debug` raises either with its traceback. Status 3 is that of --fail-above.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["jaxmia", *arguments])
    usual, warnings.formatwarning = warnings.formatwarning, _worded
    try:
        if options.verb in ("train", "attack", "audit", "sweep", "evaluate", "plan"):
            _start(options)
        status = _VERBS[options.verb](options) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("jaxmia: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read standard output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 141  # what a shell says of a program that SIGPIPE ended
    except Exception as error:
        if options.debug:
            raise
        message, status = _explained(error)
        print(f"jaxmia {options.verb}: {message}", file=sys.stderr)
        return status
    finally:
        warnings.formatwarning = usual
    return status


def _worded(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning as one line, without the place in the code that it comes from."""
    return f"jaxmia: {message}\n"


def _explained(error: Exception) -> tuple[str, int]:
    """The message and the exit status of an error."""
    text, section = str(error), "".join(f"{name}: " for name in _sections(error))
    if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] != "jaxmia":
        return section + (packages.missing(error.name) if isinstance(error, ModuleNotFoundError) else text), 2
    if isinstance(error, OSError) and error.strerror:  # without the number of the error
        return (f"{error.filename}: " if error.filename else "") + error.strerror, 2
    if isinstance(error, ValueError | OSError | FloatingPointError | ImportError) and text:
        return text, 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"out of memory; a smaller plan.chunk, batch_size or data.size needs less ({_first_line(error)})", 2
    if isinstance(error, TypeError):
        from jaxmia.oracle import ThreatModelError

        if isinstance(error, ThreatModelError):
            return section + text, 2
    message = section + _first_line(error)
    if isinstance(error, RuntimeError) and type(error).__module__.startswith("jax"):  # of the compiler or a device
        return f"{message}; this is a fault of JAX or of its device: --debug shows the traceback", 1
    return f"{message}; this is a fault of jaxmia: --debug shows the traceback, please report it", 1


def _sections(error: Exception) -> list[str]:
    """The sections of the configuration that an error is about, where it does not say so itself."""
    if not getattr(error, "__notes__", None):
        return []
    from jaxmia.sections import noted

    return noted(error)


def _first_line(error: Exception) -> str:
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxmia",
        description="Audit how much of its training data a model gives away: model inversion attacks and defenses.",
    )
    parser.add_argument("--version", action="version", version=f"jaxmia {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    after = argparse.ArgumentParser(add_help=False)  # --debug after the verb; without it, what stood before counts
    after.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def takes_overrides(verb: argparse.ArgumentParser, example: str) -> None:
        verb.add_argument(
            "--set", dest="override", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
            help=f"change the configuration, e.g. {example}",
        )  # fmt: skip

    def reports(verb: argparse.ArgumentParser) -> None:
        verb.add_argument(
            "--no-pictures", dest="pictures", action="store_false", help="a page without private or recovered content"
        )
        verb.add_argument(
            "--fail-above", type=_share, metavar="SHARE",
            help="exit with status 3 if the lower end of the interval of how much an attack recovers from a real target, "
            "its headline metric, lies above SHARE (0 to 1), and name it",
        )  # fmt: skip

    for verb, text, out in (
        ("train", "train the targets and evaluators of a configuration", "runs/latest"),
        ("attack", "train what is missing, attack, judge, write the report", "runs/latest"),
        ("audit", "attack your own model with a battery, and say what it shows", "runs/audit"),
        ("sweep", "the same for every cell of a configuration with a sweep, and one table of all", "runs/sweep"),
        ("show", "print a configuration with all its defaults, of a sweep every cell; or describe a method", ""),
    ):
        sub = verbs.add_parser(verb, help=text, parents=[after])
        named = ", or a name that `jaxmia list` knows, such as image/gmi" if verb == "show" else ""
        sub.add_argument("config", help="YAML file, see configs/" + named)
        takes_overrides(sub, "seed=1 attacks.0.steps=100")
        if verb in ("train", "attack", "audit"):
            processes = sub.add_argument_group("several processes, on one machine or many, that share the run folder")
            processes.add_argument("--coordinator", help="host:port of process 0, or auto where JAX knows the cluster")
            processes.add_argument("--num-processes", type=int, help="how many there are")
            processes.add_argument("--process-id", type=int, help="which one this is, from 0")
        if verb in ("attack", "audit"):
            reports(sub)
        if verb == "sweep":
            sub.add_argument("--executor", choices=["local", "ray"], default="local", help="where cells run (local)")
            sub.add_argument("--address", help="of a running Ray cluster; without one Ray starts here")
            sub.add_argument("--workers", type=int, help="cells at once, where Ray starts here")
        if out:
            sub.add_argument("--out", default=out, help=f"run folder ({out}); one of the same configuration is resumed")
    planned = verbs.add_parser(
        "plan", help="what each program of a configuration needs: compiled at full size, not run", parents=[after]
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
    evaluate = verbs.add_parser(
        "evaluate", help="judge the candidates of a run folder anew, and its report", parents=[after]
    )
    evaluate.add_argument("run")
    takes_overrides(evaluate, "evaluators.0.steps=1000; only evaluators may change")
    reports(evaluate)
    report = verbs.add_parser(
        "report", help="make the page and the table of a run folder anew, or the page of a sweep", parents=[after]
    )
    report.add_argument("run")
    reports(report)
    export = verbs.add_parser("export", help="what a run recovered and measured, as PNG, text and CSV", parents=[after])
    export.add_argument("run")
    export.add_argument("--out", metavar="FOLDER", help="new or empty (export in the run folder)")
    compare = verbs.add_parser("compare", help="two or more runs side by side, on a page and here", parents=[after])
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folder; differences are taken to the first")
    compare.add_argument("--out", metavar="FILE", default="compare.html", help="the page (compare.html)")
    init = verbs.add_parser("init", help="write audit.yaml and my_model.py to fill in", parents=[after])
    init.add_argument("kind", help="what your model is: callable, torch, onnx or http")
    init.add_argument("--out", default=".", help="folder (this one)")
    listed = verbs.add_parser("list", help="known methods", parents=[after])
    listed.add_argument("what", choices=KINDS)
    data = verbs.add_parser("data", help="data sets", parents=[after])
    data = data.add_subparsers(dest="data_verb", required=True, metavar="VERB")
    data.add_parser("list", help="what can be fetched, and what is cached", parents=[after])
    data.add_parser("fetch", help="fetch one data set", parents=[after]).add_argument("name")
    return parser


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text}; legal is 0 to 1")
    return float(text)


def _start(options: argparse.Namespace) -> None:
    """Before anything is computed: join the other processes, find programs that an earlier run compiled."""
    from jaxmia import compiling, parallel
    from jaxmia.data.fetch import cache_folder

    compiling.refuse_64_bit()
    if getattr(options, "coordinator", None):
        parallel.join(options.coordinator, options.num_processes, options.process_id)
    parallel.find_devices()
    compiling.keep_compiled(cache_folder() / "compiled")


def _load(path: Any, overrides: Sequence[str], **how: Any) -> dict[str, Any]:
    """The checked configuration."""
    from jaxmia import config
    from jaxmia.audit import schema

    return config.load(path, overrides, schema, **how)


def _attack(options: argparse.Namespace) -> int | None:
    from jaxmia.audit import assembly, battery, folder, run
    from jaxmia.holding import held

    filled = {"complete": battery.complete} if options.verb == "audit" else {}
    checked = _load(options.config, options.override, **filled)
    if "sweep" in checked:
        raise ValueError(f"{options.config}: sweep: has several cells; use `jaxmia sweep`, or drop it")
    data = assembly.check(checked)  # before anything is written
    if options.verb == "audit":
        print(f"jaxmia: {battery.announced(checked, len(data.names))}", file=sys.stderr)
    with held(options.out, options.command) as where:
        folder.open_run(where, checked, options.command, data.contents)
        if options.verb == "train":
            run.train(checked, [where], None, data)
            print(f"trained: {where / 'training'}")
            return None
        failed = run.audit([(checked, where)], None, data)
        print(f"candidates and measurements: {where}")
        options.run = where
        # What a report reads the first process wrote; what is missing stands on the page as unfinished.
        status = None if options.process_id else _report(options)
        if failed:
            raise FloatingPointError(failed[where])
        return status


def _sweep(options: argparse.Namespace) -> None:
    from jaxmia.audit.sweep import sweep

    checked = _load(options.config, options.override)
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
    from jaxmia import describe

    print(describe.shown(options.config, options.override), end="")


def _plan(options: argparse.Namespace) -> None:
    from jaxmia import terminal
    from jaxmia.audit import planning

    for name, value in (("--limit", options.limit), ("--public", options.public)):
        if not value > 0:
            raise ValueError(f"{name}: {value}; legal is more than 0")
    checked = _load(options.config, options.override)
    rows = planning.plan(
        checked, timed=options.time, limit=int(options.limit * 1e9), public=options.public, file=options.json,
        say=lambda part: print(f"compiling: {part}", file=sys.stderr, flush=True),
    )  # fmt: skip
    terminal.print_table(planning.COLUMNS, planning.table(rows, int(options.limit * 1e9)))


def _evaluate(options: argparse.Namespace) -> int:
    import pathlib

    from jaxmia.audit import folder
    from jaxmia.audit.run import evaluate
    from jaxmia.holding import held

    run = pathlib.Path(options.run).expanduser()
    checked = folder.reopened(run, options.override)
    with held(run, options.command):
        evaluate(checked, run)
        folder.amend_environment(run, evaluated=options.command)
        return _report(options)


def _report(options: argparse.Namespace) -> int:
    from jaxmia import report

    print(f"report: {report.build_any(options.run, options.pictures)}")
    told = report.above(options.run, options.fail_above) if options.fail_above is not None else ""
    print(told, end="\n" if told else "")
    return 3 if told else 0


def _export(options: argparse.Namespace) -> None:
    from jaxmia import report

    print(f"exported: {report.export(options.run, options.out)}")


def _compare(options: argparse.Namespace) -> None:
    from jaxmia import report, terminal

    path, found = report.build_comparison(options.runs, options.out)
    for warning in found.warnings:
        print(f"jaxmia: {warning}", file=sys.stderr)
    terminal.print_table(*report.listed(found))
    print(f"report: {path}")


def _list(options: argparse.Namespace) -> None:
    from jaxmia import describe, terminal

    terminal.print_table(*describe.listing(options.what))


def _data(options: argparse.Namespace) -> None:
    from jaxmia import describe, terminal
    from jaxmia.data import fetch

    if options.data_verb == "fetch":
        print(fetch(options.name))
    else:
        terminal.print_table(*describe.sets())


def _init(options: argparse.Namespace) -> None:
    from jaxmia import starters

    config, model = starters.write(options.kind, options.out)
    print(f"{config} and {model}: fill in what is yours, then jaxmia audit {config.name}")


_VERBS = {
    "train": _attack,
    "attack": _attack,
    "audit": _attack,
    "sweep": _sweep,
    "show": _show,
    "plan": _plan,
    "evaluate": _evaluate,
    "report": _report,
    "export": _export,
    "compare": _compare,
    "init": _init,
    "list": _list,
    "data": _data,
}


if __name__ == "__main__":
    sys.exit(main())
