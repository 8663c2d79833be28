"""One attack on one target, for one run or for all settings of a sweep at once: solve, judge, commit."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import attacks
from jaxmia import config as configuration
from jaxmia.audit import folder as files
from jaxmia.audit import setup
from jaxmia.audit.classifiers import Trained, keywords
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.judge import Judge, judge_candidates
from jaxmia.audit.roles import listed
from jaxmia.audit.scenes import Scene
from jaxmia.compiling import jit
from jaxmia.core import Scenario
from jaxmia.data import to_float
from jaxmia.engine import Result, Status, run, solve
from jaxmia.oracle import Access
from jaxmia.recipes import swept
from jaxmia.target import Target

__all__ = ["Stage", "attack", "finish"]


class Stage(NamedTuple):
    """What all cells of one run share."""

    config: dict[str, Any]
    folder: pathlib.Path
    scene: Scene
    judges: list[Judge]
    inputs: Inputs  # what attacks may ask for, by parameter name


def attack(stages: Sequence[Stage], one: Trained, served: Target, number: int, name: str) -> dict[pathlib.Path, str]:
    """Attack `number` of every run on one target; by run folder, what went wrong.

    The runs differ in traced numbers alone. Those whose cell is missing are solved as one program, unless the attack
    trains something of its own, which would depend on its settings. `served` answered for the victims that an attack
    observes.
    """
    missing = [stage for stage in stages if not files.is_done(_cell(stage, one, name))]
    if not missing:
        return {}
    stage, config = missing[0], missing[0].config
    sections = [listed(member.config["attacks"])[number] for member in missing]
    method = attacks.get(sections[0]["name"])
    targets = np.tile(setup.attacked(config, stage.scene), config["candidates"])
    cases, pairs = _observed(method.card.observes, served, stage, targets)
    settings = {configuration.digest(section): section for section in sections}  # two runs may differ elsewhere
    given = config, one.target, one.module, stage.inputs
    made = {which: setup.assemble(section, *given) for which, section in settings.items()}
    started, key, plan = time.monotonic(), jax.random.key(config["seed"]), setup.plan(**config["plan"])
    title = f"{method.name} on {one.name}"
    if len(settings) == 1 or any(attack.train for attack in made.values()):
        scenario = Scenario(one.target, cases, public=stage.inputs.batches)
        owner = dict(zip(map(configuration.digest, sections), missing))
        results = {
            which: run(attack, key, scenario, plan=plan, folder=_cell(owner[which], one, name) / "work", title=title)
            for which, attack in made.items()
        }
    else:
        work = {"runs": [member.folder.name for member in missing], "cell": f"{one.name}--{name}"}
        folder = stage.folder.parent / "together" / configuration.digest(work)[:12]
        # As `run` does: an attack's stages have the other keys.
        results = _together(
            settings, one, stage, cases, jax.random.fold_in(key, 0), plan=plan, folder=folder, title=title
        )
    seconds, failed = (time.monotonic() - started) / len(missing), {}
    for which, section in settings.items():
        result, alike = results[which], [stage for stage, other in zip(missing, sections) if other == section]
        if method.card.observes == "labels":
            result = _by_image(result, len(targets))
        broken = result.status == Status.NONFINITE
        if broken.mean() > 0.5:
            failed |= {stage.folder: f"{title}: {broken.mean():.0%} of the cases went non-finite" for stage in alike}
            continue
        broken |= np.asarray(result.info.extra.get("failed", np.zeros(len(targets), bool)))
        queries, training = np.asarray(result.info.queries), result.training_queries or 0
        record = {
            "attack": method.name,
            "target": one.name,
            "seed": config["seed"],
            "card": {**method.card._asdict(), "access": Access(method.card.access).name},
            "hyperparameters": keywords(section),
            "n": len(targets),
            "seconds": round(seconds, 2),
            # As many runs were timed as one, and each has its share.
            **({"seconds_shared_by": len(missing)} if len(missing) > 1 else {}),
            "queries": {"mean": float(queries.mean()), "max": int(queries.max()), "training": training}
            if training or queries.any()
            else None,
            "status": {status.name: int(np.sum(result.status == status)) for status in Status},
            "failed": int(broken.sum()),
            "control": one.control,
            "label": method.card.title
            + (f" ({name})" if name != method.name.rsplit("/", 1)[-1] else "")
            + (" on shuffled labels" if one.control else ""),
        }
        cells, ids = [_cell(stage, one, name) for stage in alike], np.arange(len(targets))
        finish(cells, stage.judges, record, result.output, targets, ids, broken, pairs)
    return failed


def _cell(stage: Stage, one: Trained, name: str) -> pathlib.Path:
    return stage.folder / "cells" / f"{one.name}--{name}"


def _together(
    settings: dict[str, dict[str, Any]], one: Trained, stage: Stage, cases: np.ndarray, key: Any, **how: Any
) -> dict[str, Result]:
    """All settings as one program; its result cut up again."""
    sections, n = list(settings.values()), len(cases)
    differing = [key for key in sections[0] if any(section[key] != sections[0][key] for section in sections)]
    numbers = {key: np.repeat(np.array([section[key] for section in sections], np.float32), n) for key in differing}

    def make(numbers: dict[str, Any]) -> Any:
        section = {**sections[0], **numbers}
        return setup.assemble(section, stage.config, one.target, one.module, stage.inputs).solve(())

    every = np.tile(cases, (len(sections),) + (1,) * (cases.ndim - 1))
    ids = np.tile(np.arange(n, dtype=np.int32), len(sections))
    result = solve(swept(make, make({}).steps), key, (numbers, every), ids=ids, **how)
    return {
        which: jax.tree.map(lambda leaf, i=i: leaf[i * n : (i + 1) * n], result) for i, which in enumerate(settings)
    }


def finish(
    cells: Sequence[pathlib.Path],
    judges: list[Judge],
    record: dict[str, Any],
    candidates: np.ndarray,
    targets: np.ndarray,
    case_ids: np.ndarray,
    failed: np.ndarray,
    pairs: np.ndarray | None = None,
) -> None:
    """Judge candidates, and commit the cells of all runs that share them."""
    metrics, per_case = judge_candidates(judges, candidates, targets, failed, pairs)
    arrays = {
        "candidates": np.asarray(candidates, np.float32),
        "targets": targets,
        "case_ids": case_ids,
        "failed": failed,
        "success": per_case[f"attack_accuracy@1 [{judges[0].name}]"] > 0,
        **{f"metric:{name}": np.asarray(value, np.float32) for name, value in per_case.items()},
        **({} if pairs is None else {"pairs": pairs}),
    }
    record = {**record, "metrics": metrics, "evaluators": [judge.digest for judge in judges]}
    for cell in cells:
        files.finish_cell(cell, record, arrays)


def _observed(observes: str, target: Target, stage: Stage, targets: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """The cases, and for the metrics alone the private images that they are of, where they are of some.

    What is observed of an image (scores, an explanation, a layer's features) is what the target serves for one private
    training image per case; or it is that image without its hidden pixels.
    """
    config = stage.config
    classes = len(setup.attacked(config, stage.scene))
    if observes == "label":
        return targets, None
    if observes == "labels":
        return targets.reshape(-1, classes), None
    private = stage.scene.split.train
    rank = np.arange(len(targets)) // classes
    rows = np.array([np.resize(np.flatnonzero(private.labels == c), k + 1)[k] for c, k in zip(targets, rank)])
    victims = to_float(private.images[rows])
    if observes == "masked images":
        return np.where(np.asarray(stage.inputs["mask"])[..., None], np.float32(0), victims), victims
    view = setup.shown(observes, target, config["split"]).view(Access.SCORES)
    keys = jax.random.split(jax.random.key(config["seed"]), len(rows))
    return jax.tree.map(np.asarray, jit(jax.vmap(view.answer))(keys, victims)), victims


def _by_image(result: Result, n: int) -> Result:
    """A result whose cases were batches of images, with a row for every image."""
    told, status, steps = jax.tree.map(
        lambda leaf: np.repeat(leaf, n // len(leaf), 0), (result.info, result.status, result.steps)
    )
    return Result(result.output.reshape(n, *result.output.shape[2:]), told, status, steps, result.training_queries)
