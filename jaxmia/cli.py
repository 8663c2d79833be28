"""The command line. Nothing heavy is imported before a verb needs it, so that help answers at once."""

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; errors of the user are one plain message and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="jaxmia",
        description="Audit how much of its training data a model gives away: model inversion attacks and defenses.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("train", "train the targets and evaluators of a configuration"),
        ("attack", "train what is missing, attack, judge, write the report"),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("config", help="YAML file, see configs/")
        sub.add_argument("--set", dest="override", nargs="*", default=[], help="key=value ..., e.g. seed=1")
        sub.add_argument("--out", default="runs/latest", help="run folder; one of the same configuration is resumed")
    report = verbs.add_parser("report", help="make the page and the table of a run folder anew")
    report.add_argument("run")
    listed = verbs.add_parser("list", help="known methods")
    listed.add_argument("what", choices=["attacks", "defenses", "targets", "evaluators"])
    data = verbs.add_parser("data", help="data sets").add_subparsers(dest="data_verb", required=True)
    data.add_parser("list", help="what can be fetched, and what is cached")
    data.add_parser("fetch", help="fetch one data set").add_argument("name")
    options = parser.parse_args(arguments)
    try:
        _VERBS[options.verb](options)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"jaxmia {options.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxmia: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    return 0


def _attack(options: argparse.Namespace) -> None:
    from jaxmia import config
    from jaxmia.audit import folder, image

    checked = config.load(options.config, options.override, image.SCHEMA)
    if "sweep" in checked:
        raise ValueError(f"{options.config}: has a sweep; run its cells one by one, sweeps are not built yet")
    command = f"jaxmia {options.verb} {options.config} {' '.join(options.override)}".strip()
    run = folder.open_run(options.out, config.dump(checked), config.digest(checked), command)
    if options.verb == "train":
        image.train(checked, run)
        print(f"trained: {run / 'training'}")
        return
    image.audit(checked, run)
    print(f"candidates and measurements: {run}")
    options.run = run
    _report(options)


def _report(options: argparse.Namespace) -> None:
    from jaxmia import report

    print(f"report: {report.build(options.run)}")


def _list(options: argparse.Namespace) -> None:
    from jaxmia import attacks, defenses, zoo

    if options.what in ("targets", "evaluators"):
        for name, factory in (zoo.TARGETS if options.what == "targets" else zoo.EVALUATORS).items():
            print(f"{name:16} {(factory.__doc__ or '').strip().splitlines()[0]}")
        return
    registry = attacks if options.what == "attacks" else defenses
    for name in registry.names():
        card = registry.get(name).card
        access = card.access.name if card.access is not None else card.hook
        print(f"{name:30} {access:8} {card.year}  {card.title}: {card.recovers or card.paper}")


def _data(options: argparse.Namespace) -> None:
    from jaxmia.data import fetch, listing

    if options.data_verb == "fetch":
        print(fetch(options.name))
        return
    for row in listing():
        print(f"{row['name']:8} {row['modality']:8} {row['content']:45} cached: {row['cached']}  {row['license']}")


_VERBS = {"train": _attack, "attack": _attack, "report": _report, "list": _list, "data": _data}


if __name__ == "__main__":
    sys.exit(main())
