"""Batteries: what `jaxmia audit` does of a model where its configuration does not say.

A battery is as strong as the access that the target grants: attacks that need labels alone, those that need scores with
them, then those that need weights. "quick" takes minutes on two cores, "standard" the steps of the papers where a CPU
bears them. Whatever is written in the configuration stands.
"""

from typing import Any

from jaxmia import attacks
from jaxmia.audit import modality_of, targets
from jaxmia.audit.own import OWN, granted
from jaxmia.audit.roles import listed, named
from jaxmia.oracle import Access
from jaxmia.sections import Config

__all__ = ["BATTERIES", "announced", "complete", "not_run"]

Attacks = dict[Access, list[dict[str, Any]]]
"""Sections of attacks, by the access that they need."""

QUICK: Attacks = {
    Access.LABELS: [{"name": "image/brep_mi", "steps": 300, "patience": 100, "budget": 1000}],
    Access.SCORES: [
        {"name": "image/evolution_strategy", "steps": 150, "budget": 1000},
        {"name": "image/tb_mia", "steps": 300, "rate": 3e-3},
    ],
    Access.WEIGHTS: [
        {"name": "image/gmi", "identity_weight": 1000.0, "steps": 300, "restarts": 1},
        {"name": "image/mi_face", "rate": 1.0, "alpha": 300, "start": 0.5},
    ],
}
STANDARD: Attacks = {
    Access.LABELS: [{"name": "image/brep_mi", "budget": 50_000}],
    Access.SCORES: [{"name": "image/evolution_strategy", "budget": 20_000}, {"name": "image/tb_mia"}],
    Access.WEIGHTS: [
        {"name": "image/gmi", "identity_weight": 1000.0},
        {"name": "image/mirror"},
        {"name": "image/distilled", "base": {"name": "image/gmi", "identity_weight": 1000.0, "restarts": 1}},
        {"name": "image/mi_face", "rate": 1.0, "alpha": 1000, "start": 0.5},
    ],
}
BATTERIES = {"quick": QUICK, "standard": STANDARD}


def complete(written: Config) -> Config:
    """A configuration with what its `battery` adds: controls, evaluators, prior, attacks, and defenses of the answers.

    Raises:
      ValueError: for an unknown battery, another modality than images, or several targets.
    """
    name = written.get("battery", "quick")
    if name not in BATTERIES:
        raise ValueError(f"battery: {name!r}; legal is one of {', '.join(BATTERIES)}")
    if written.get("modality", "image") != "image":
        raise ValueError(
            f"modality: {written['modality']}; batteries are of images: name the attacks, and use `jaxmia attack`"
        )
    models = [one if isinstance(one, dict) else {"name": one} for one in listed(written.get("targets"))]
    if len(models) != 1:
        raise ValueError(f"targets: {len(models)} of them; legal is the one that is audited")
    (target,), access = models, Access.WEIGHTS
    if target.get("name") in OWN:
        access = granted(target)
    chosen = [section for needed, sections in BATTERIES[name].items() if needed <= access for section in sections]
    kind = "permuted" if target.get("name") in OWN else "shuffled"
    filled: Config = {
        "controls": [f"{named(models)[0][0]}-{kind}"],
        "evaluators": ["group_norm_cnn", "vgg_hard"],
        "prior": {"name": "eigenfaces", "components": 100},
        "decoder": {"width": 16},
        "attacks": chosen,
        "defenses": [{"name": "rounding", "level": 0.1}] if access == Access.SCORES else None,
    }
    return {**filled, **written, "battery": name}


def announced(config: Config, classes: int) -> str:
    """What an audit is about to do, in a sentence; of attacks that ask, their budgets on all targets and controls."""
    attacked = (config["attacked_classes"] or classes) * config["candidates"]
    number = len(targets.jobs(config, modality_of(config).controls))
    asked = sum(section.get("budget") or 0 for section in listed(config["attacks"])) * attacked * number
    names = ", ".join(name for name, _ in named(listed(config["attacks"])))
    return (
        f"{names} on {number} targets, controls among them, {attacked} candidates each; at most {asked:,} queries within "
        "the attacks' budgets, and some for the examination, accuracies and public data"
    )


def not_run(config: Config, access: Access) -> dict[str, Any]:
    """The attacks of a modality that a run did not make, and why, as a table of its page."""
    run = {section["name"] for section in listed(config["attacks"])}
    rows, shown = [], modality_of(config).observe
    for name in attacks.names():
        card = attacks.get(name).card
        if card.modality != config["modality"] or name in run:
            continue
        if card.access > access:
            why = f"needs {card.access.name.lower()}, and the target grants {access.name.lower()}"
        elif card.observes not in shown:
            why = f"observes {card.observes}, which an audit does not show"
        else:
            why = f"not in the battery {config['battery']!r}; `attacks:` of the configuration may name it"
        rows.append([name, card.title, why])
    note = "What is not shown by the attacks above may be shown by one of these."
    return {"title": "Attacks that were not run", "columns": ["attack", "title", "why"], "rows": rows, "note": note}
