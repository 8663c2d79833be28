"""The targets of an audit: each as it is, under every defense, and as a control from which nothing can be recovered."""

import functools
import json
import pathlib
import time
from typing import Any, NamedTuple

import jax

from jaxmia.audit import folder as files
from jaxmia.audit import modality_of
from jaxmia.audit.examination import unlike_chance
from jaxmia.audit.modality import Fitted, Training
from jaxmia.audit.own import Own
from jaxmia.audit.roles import keywords, listed, named
from jaxmia.checkpoint import private_folder
from jaxmia.engine import fit
from jaxmia.plan import Plan

__all__ = ["Job", "Trained", "jobs", "train"]


class Job(NamedTuple):
    """One target to train.

    Attributes:
      name: of the target, its defense and its role.
      section: of the target.
      defense: sections of the defenses that it has together, none for none.
      control: the kind of a control, "" for none.
    """

    name: str
    section: dict[str, Any]
    defense: list[dict[str, Any]]
    control: str

    @property
    def origin(self) -> str:
        """The name of the target that a control is made of, else its own."""
        return self.name.removesuffix(f"-{self.control}") if self.control else self.name


class Trained(NamedTuple):
    """A target, and its entry in targets.json.

    Attributes:
      job: what it is.
      fitted: what attacks get a view of.
      record: for the report.
    """

    job: Job
    fitted: Fitted
    record: dict[str, Any]


def jobs(config: dict[str, Any], controls: tuple[str, ...]) -> list[Job]:
    """The targets of a configuration: undefended, under each defense, and as controls of the kinds `controls`.

    Raises:
      ValueError: if a control is not among the targets, or of another kind.
    """
    plain = named(listed(config["targets"]))
    known = {name: Job(f"{name}-{controls[0]}", section, [], controls[0]) for name, section in plain}
    known |= {
        f"{name}-{kind}": Job(f"{name}-{kind}", section, [], kind) for name, section in plain for kind in controls
    }
    unknown = sorted(set(config["controls"]) - known.keys())
    if unknown:
        legal = ", ".join(name for name, _ in plain)
        more = "".join(f", or NAME-{kind}" for kind in controls[1:])
        raise ValueError(f"controls: {', '.join(unknown)}: not among the targets; legal is {legal}{more}")
    # Controls in the order of the targets, whatever that of the section.
    chosen = {known[name].name: known[name] for name in known if name in config["controls"]}
    return [
        *(Job(name, section, [], "") for name, section in plain),
        *(
            Job(f"{name}+{how}", section, listed(defense), "")
            for how, defense in named(listed(config["defenses"]))
            for name, section in plain
        ),
        *chosen.values(),
    ]


def train(config: dict[str, Any], training: pathlib.Path, data: Any) -> list[Trained]:
    """All targets of a configuration, trained or found in the folder `training`."""
    return [_train(config, training, data, job) for job in jobs(config, modality_of(config).controls)]


def _train(config: dict[str, Any], training: pathlib.Path, data: Any, job: Job) -> Trained:
    modality, started = modality_of(config), time.monotonic()
    recipe = modality.targets[job.section["name"]](**keywords(job.section))
    where = training / job.name
    fitted = modality.fit(
        recipe,
        data,
        Training(
            functools.partial(fit, plan=Plan(**config["plan"])), where, config["seed"], f"train {job.name}",
            job.defense, job.control,
        ),
    )  # fmt: skip
    seconds = where / "seconds.json"
    took = float(seconds.read_text()) if seconds.exists() else round(time.monotonic() - started, 1)
    if not seconds.exists():
        private_folder(where)
        files.write_json(seconds, took)
    accuracy = where / "accuracy.json"  # a target that is billed is asked once
    if not accuracy.exists():
        files.write_json(accuracy, modality.accuracy(fitted, data))
    found = json.loads(accuracy.read_bytes())
    if isinstance(recipe, Own) and found is not None and not job.defense and not job.control:
        fitted = fitted._replace(notes=fitted.notes + unlike_chance(found, fitted.target.classes))
    weights = fitted.target.params["params"] if fitted.module is not None else {}
    record = {
        "name": job.name,
        "dataset": data.name,
        "architecture": job.section["name"],
        "test_accuracy": found,
        "defense": " and ".join(part["name"] for part in job.defense) + (f", {fitted.spent}" if fitted.spent else ""),
        "granted": fitted.target.granted.name,
        "digest": fitted.target.digest,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights)) or None,
        "seconds": took,
    }
    return Trained(job, fitted, record)
