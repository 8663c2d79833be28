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
    `--debug` raises either with its traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["jaxmia", *arguments])
    usual, warnings.formatwarning = warnings.formatwarning, _worded
    try:
        if options.verb in ("train", "attack", "sweep", "evaluate", "plan"):
            _start(options)
        _VERBS[options.verb](options)
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
    return 0


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

    for verb, text, out in (
        ("train", "train the targets and evaluators of a configuration", "runs/latest"),
        ("attack", "train what is missing, attack, judge, write the report", "runs/latest"),
        ("sweep", "the same for every cell of a configuration with a sweep, and one table of all", "runs/sweep"),
        ("show", "print a configuration with all its defaults, of a sweep every cell; or describe a method", ""),
    ):
        sub = verbs.add_parser(verb, help=text, parents=[after])
        named = ", or a name that `jaxmia list` knows, such as image/gmi" if verb == "show" else ""
        sub.add_argument("config", help="YAML file, see configs/" + named)
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
    report = verbs.add_parser(
        "report", help="make the page and the table of a run folder anew, or the page of a sweep", parents=[after]
    )
    report.add_argument("run")
    listed = verbs.add_parser("list", help="known methods", parents=[after])
    listed.add_argument("what", choices=KINDS)
    data = verbs.add_parser("data", help="data sets", parents=[after])
    data = data.add_subparsers(dest="data_verb", required=True, metavar="VERB")
    data.add_parser("list", help="what can be fetched, and what is cached", parents=[after])
    data.add_parser("fetch", help="fetch one data set", parents=[after]).add_argument("name")
    return parser


def _start(options: argparse.Namespace) -> None:
    """Before anything is computed: join the other processes, find programs that an earlier run compiled."""
    from jaxmia import compiling, parallel
    from jaxmia.data.fetch import cache_folder

    compiling.refuse_64_bit()
    if getattr(options, "coordinator", None):
        parallel.join(options.coordinator, options.num_processes, options.process_id)
    parallel.find_devices()
    compiling.keep_compiled(cache_folder() / "compiled")


def _load(path: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """The checked configuration."""
    from jaxmia import config
    from jaxmia.audit import schema

    return config.load(path, overrides, schema)


def _attack(options: argparse.Namespace) -> None:
    from jaxmia.audit import assembly, folder, run
    from jaxmia.holding import held

    checked = _load(options.config, options.override)
    if "sweep" in checked:
        raise ValueError(f"{options.config}: sweep: has several cells; use `jaxmia sweep`, or drop it")
    data = assembly.check(checked)  # before anything is written
    with held(options.out, options.command) as where:
        folder.open_run(where, checked, options.command, data.contents)
        if options.verb == "train":
            run.train(checked, [where], None, data)
            print(f"trained: {where / 'training'}")
            return
        failed = run.audit([(checked, where)], None, data)
        if failed:
            raise FloatingPointError(failed[where])
        print(f"candidates and measurements: {where}")
        options.run = where
        if not options.process_id:  # what a report reads the first process wrote
            _report(options)


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
    import pathlib

    from jaxmia import config, describe
    from jaxmia.audit import schema

    name = options.config
    if not pathlib.Path(name).is_file() and not pathlib.Path(name).suffix:
        if not describe.is_known(name):
            near = f"; did you mean {' or '.join(describe.nearest(name))}?" if describe.nearest(name) else ""
            raise ValueError(f"{name}: neither a configuration file nor a name that `jaxmia list` knows{near}")
        if options.override:
            raise ValueError(f"--set: changes configurations, and {name} is a method; leave it out")
        print(describe.described(name))
        return
    checked = _load(options.config, options.override)
    print("---\n".join(config.dump(cell) for cell in config.expand(checked, schema(checked))), end="")


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


def _evaluate(options: argparse.Namespace) -> None:
    import pathlib

    from jaxmia import report
    from jaxmia.audit import folder
    from jaxmia.audit.run import evaluate
    from jaxmia.holding import held

    run = pathlib.Path(options.run).expanduser()
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder")
    if report.is_sweep(run):
        raise ValueError(
            f"{run}: is a sweep, which is not evaluated as a whole; evaluate one of its run folders, or change the "
            "evaluators in the configuration and sweep into another folder"
        )
    for override in options.override:
        key = override.partition("=")[0].strip()
        if key.split(".")[0] != "evaluators":
            raise ValueError(f"{key}: cannot change for candidates that are there; legal is evaluators")
    stored = _load(run / "config.yaml", [])
    if not folder.holds(run, stored):
        raise ValueError(f"{run / 'config.yaml'}: is not what the run was made with (see config.sha256); restore it")
    checked = _load(run / "config.yaml", options.override)
    with held(run, options.command):
        evaluate(checked, run)
        folder.amend_environment(run, evaluated=options.command)
        _report(options)


def _report(options: argparse.Namespace) -> None:
    import pathlib

    from jaxmia import report

    run = pathlib.Path(options.run).expanduser()
    build = report.build_sweep if report.is_sweep(run) else report.build
    print(f"report: {build(run)}")


def _list(options: argparse.Namespace) -> None:
    from jaxmia import describe, terminal

    terminal.print_table(*describe.listing(options.what))


def _data(options: argparse.Namespace) -> None:
    from jaxmia import terminal
    from jaxmia.data import fetch, listing

    if options.data_verb == "fetch":
        print(fetch(options.name))
        return
    terminal.print_table(
        ("name", "modality", "MB", "cached", "content", "license"),
        (
            (row["name"], row["modality"], row["megabytes"], "yes" if row["cached"] else "no", row["content"],
             row["license"])
            for row in listing()
        ),
    )  # fmt: skip


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
