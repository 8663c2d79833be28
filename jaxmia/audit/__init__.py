"""An audit: from a checked configuration to a run folder that `jaxmia.report` reads.

`run` trains, attacks and judges by what the configuration's `modality` says of its data, and `sweep` does so for the
cells of a sweep. All is resumable: what is finished is found in the run folder and not done again.

A modality is a module of `jaxmia.modalities` with a `MODALITY`, or of another package that registers it as an entry
point of the group "jaxmia.modalities".
"""

import importlib
import importlib.metadata
import pkgutil
from typing import Any, Literal

from jaxmia import attacks, defenses
from jaxmia.audit.modality import Modality
from jaxmia.plan import Plan, check_plan
from jaxmia.sections import Schema, Section

__all__ = ["modalities", "modality_of", "plan", "schema"]


def modalities() -> dict[str, str]:
    """Module of each modality by its name."""
    root = importlib.import_module("jaxmia.modalities")
    own = {found.name: f"{root.__name__}.{found.name}" for found in pkgutil.iter_modules(root.__path__)}
    others = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=root.__name__)}
    return others | own


def modality_of(config: dict[str, Any]) -> Modality:
    """The modality of a configuration, resolved or as written.

    Raises:
      ValueError: for an unknown modality.
    """
    name, known = config.get("modality", "image"), modalities()
    if name not in known:
        raise ValueError(f"modality: {name!r}; legal is one of {', '.join(sorted(known))}")
    return importlib.import_module(known[name]).MODALITY


def plan(
    *,
    chunk: int | None = None,
    microbatch: int | None = None,
    block: int = 50,
    mapper: Literal["shard_map", "pmap"] = "shard_map",
    loop: Literal["auto", "host", "scan"] = "auto",
    training: Literal["one_device", "data_parallel", "fully_sharded"] = "one_device",
) -> Plan:
    """Speed, never results (`engine.Plan`)."""
    made = Plan(chunk=chunk, microbatch=microbatch, block=block, mapper=mapper, loop=loop, training=training)
    check_plan(made)
    return made


def schema(config: dict[str, Any]) -> Schema:
    """What a configuration, resolved or as written, may hold: sections of every audit, then those of its modality.

    `controls`: names of targets that are made once more so that nothing can be recovered, and attacked likewise: on
    shuffled labels, or as "NAME-untrained" or "NAME-constant" says, where the modality has that. `battery` is what filled
    in the attacks that are not written, "" where nothing did (`jaxmia audit`).
    """
    from jaxmia.audit.claims import claim

    modality = modality_of(config)
    return {
        "modality": Section(str, "image"),
        "data": Section(modality.data),
        "seed": Section(int, 0),
        "targets": Section(modality.targets),
        "defenses": Section(defenses, None, together=True),
        "attacks": Section(attacks, role="adversary"),
        "controls": Section(tuple[str, ...], ()),
        "claims": Section(claim, None, role="speed", several=True),
        "battery": Section(str, "", role="speed"),
        "plan": Section(plan, role="speed"),
        **modality.sections,
    }
