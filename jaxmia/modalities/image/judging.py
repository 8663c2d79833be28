"""Judging reconstructions: evaluators that are not the target, distances to private images, with intervals."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmia import metrics
from jaxmia.audit.modality import Arrays, Judged
from jaxmia.compiling import jit
from jaxmia.data import to_float
from jaxmia.metrics.estimate import Estimate, block_jackknife, bootstrap
from jaxmia.models.face_embedding import embed
from jaxmia.target import digest

__all__ = ["Judge", "classifier_judge", "embedding_judge", "judge", "judge_candidates"]


class Judge(NamedTuple):
    """One evaluator.

    Attributes:
      name: reported beside every figure.
      digest: of its parameters; must differ from every target's.
      features: images -> features `[n, d]`.
      logits: features -> per-class scores `[n, classes]`, higher is more alike.
      private: features of the private training images.
      labels: their classes.
      accuracy: on the locked test images.
    """

    name: str
    digest: str
    features: Callable[[Any], Float[np.ndarray, "n d"]]
    logits: Callable[[Any], Float[np.ndarray, "n classes"]]
    private: Float[np.ndarray, "m d"]
    labels: Int[np.ndarray, " m"]
    accuracy: Estimate


def classifier_judge(name: str, digest: str, forward: Callable[[Any], Any], scene: Any) -> Judge:
    """A trained classifier, `forward(images) -> Outputs`; its features are the last hidden layer's."""

    def features(images: Any) -> Any:
        def both(x: Any) -> Any:
            out = forward(x)
            last = next(value for key, value in out.features.items() if key.endswith("penultimate"))
            return np.concatenate([np.asarray(out.logits), np.asarray(last).reshape(len(x), -1)], axis=1)

        return metrics.apply_in_batches(both, np.asarray(images, np.float32), batch=64)

    classes = len(scene.names)
    train, test = scene.split.train, scene.split.test
    correct = features(to_float(test.images))[:, :classes].argmax(1) == test.labels
    return Judge(
        name,
        digest,
        features=features,
        logits=lambda both: both[:, :classes],
        private=features(to_float(train.images)),
        labels=train.labels,
        accuracy=bootstrap(correct.astype(float), test.labels),
    )


def embedding_judge(scene: Any, weights: dict[str, np.ndarray]) -> Judge:
    """The pretrained face embedding (`data.faces`): a class scores by its nearest private training photo."""
    compiled = jit(lambda images: embed(weights, images))
    train, test = scene.split.train, scene.split.test

    def features(images: Any) -> Any:
        return metrics.apply_in_batches(compiled, np.asarray(images, np.float32), batch=20)

    private = features(to_float(train.images))

    def logits(embedded: Any) -> Any:
        own = [private[train.labels == c] for c in range(len(scene.names))]
        return -np.stack([np.linalg.norm(embedded[:, None] - one[None], axis=2).min(1) for one in own], axis=1)

    correct = logits(features(to_float(test.images))).argmax(1) == test.labels
    return Judge(
        "face_embedding",
        digest(weights),
        features,
        logits,
        private,
        train.labels,
        bootstrap(correct.astype(float), test.labels),
    )


def judge(judges: Sequence[Judge], scene: Any, arrays: Arrays) -> Judged:
    """The metrics of all candidates, and those that the first judge takes for their class."""
    del scene
    given = arrays["candidates"], arrays["targets"], arrays["failed"], arrays.get("pairs")
    summary, per_case = judge_candidates(judges, *given)
    found = {f"metric:{name}": np.asarray(value, np.float32) for name, value in per_case.items()}
    success = per_case[f"attack_accuracy@1 [{judges[0].name}]"] > 0
    return Judged(summary, {"success": success, **found}, [{"kind": "pictures"}])


def judge_candidates(
    judges: Sequence[Judge],
    candidates: Float[np.ndarray, "n h w c"],
    targets: Int[np.ndarray, " n"],
    failed: np.ndarray,
    pairs: Float[np.ndarray, "n h w c"] | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Every metric with its interval over classes, its unit and direction, and the per-case values.

    Args:
      judges: evaluators.
      candidates: in [0, 1].
      targets: class each was meant to show.
      failed: cases without a usable image; they count as failures of accuracy and are left out of distances.
      pairs: the very images that were to be recovered, where the attack aims at one.
    """
    per_case: dict[str, np.ndarray] = {}
    summary: dict[str, Estimate] = {}
    usable = ~failed
    shown = np.where(failed[:, None, None, None], 0.5, candidates)
    for judge in judges:
        features = judge.features(shown)
        logits = judge.logits(features)
        classes = logits.shape[1]
        for k in (1, 5):
            if k < classes:
                per_case[f"attack_accuracy@{k} [{judge.name}]"] = metrics.attack_accuracy(
                    logits, targets, k, failed=failed
                )
        deep = features[:, classes:] if judge.name != "face_embedding" else features
        private = judge.private[:, classes:] if judge.name != "face_embedding" else judge.private
        distances = metrics.knn_distance(deep, private, judge.labels, targets)
        per_case[f"knn_distance [{judge.name}]"] = np.where(usable, distances, np.nan)
        per_case[f"feature_distance [{judge.name}]"] = np.where(
            usable, metrics.feature_distance(deep, private, judge.labels, targets), np.nan
        )
        if usable.sum() >= 4 and len(set(targets[usable].tolist())) >= 2:  # an interval is over classes
            own = np.isin(judge.labels, targets)  # what nobody was to recover is not missing
            private, groups = private[own], judge.labels[own]
            summary[f"frechet_distance [{judge.name}]"] = block_jackknife(
                metrics.frechet_distance, deep[usable], private, second_groups=groups
            )
            spread = metrics.prdc(private, deep[usable], k=3)
            summary[f"precision [{judge.name}]"] = bootstrap(spread.precision, targets[usable])
            summary[f"recall [{judge.name}]"] = bootstrap(spread.recall, groups)
            summary[f"density [{judge.name}]"] = bootstrap(spread.density, targets[usable])
            summary[f"coverage [{judge.name}]"] = bootstrap(spread.coverage, groups)
    if pairs is not None:
        per_case["ssim"] = metrics.ssim(shown, pairs)
        per_case["psnr"] = metrics.psnr(shown, pairs)
    for name, values in per_case.items():
        kept = np.isfinite(values)
        if len(set(targets[kept].tolist())) >= 2:
            summary[name] = bootstrap(values[kept], targets[kept])
    order = sorted(summary, key=lambda name: (not name.startswith("attack_accuracy@1"), not name.startswith("attack")))
    return {name: _described(name, summary[name]) for name in order}, per_case


def _described(name: str, estimate: Estimate) -> dict[str, Any]:
    """An estimate as the report wants it."""
    unit = "share" if name.startswith(("attack", "precision", "recall", "coverage")) else "dB" * (name == "psnr")
    return {**estimate._asdict(), "unit": unit, "stronger": "lower" if "distance" in name else "higher"}
