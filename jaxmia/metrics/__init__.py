"""Metrics: per-case arrays first, then one number with its n and interval (`bootstrap` and its relatives).

All run on the host in numpy and take numpy or JAX arrays. An evaluator network enters as a function that the
caller brings.
"""

from jaxmia.metrics.distribution import Prdc, frechet_distance, kernel_distance, prdc
from jaxmia.metrics.estimate import Estimate, block_jackknife, bootstrap, difference, wilson
from jaxmia.metrics.graph import (
    LinkScores,
    candidate_pairs,
    link_auc,
    link_auc_difference,
    link_average_precision,
    link_interval,
    link_precision,
    link_scores,
)
from jaxmia.metrics.image import (
    apply_in_batches,
    attack_accuracy,
    feature_distance,
    knn_distance,
    nearest_index,
    psnr,
    ssim,
    verification,
)
from jaxmia.metrics.privacy import (
    Exposure,
    accuracy,
    attribute_advantage,
    exposure_by_sampling,
    exposure_exact,
)
from jaxmia.metrics.ranking import (
    auc_difference,
    auc_interval,
    average_precision,
    precision_at_density,
    roc_auc,
)
from jaxmia.metrics.text import edit_distance, exact_match, token_f1

__all__ = [
    "Estimate",
    "Exposure",
    "LinkScores",
    "Prdc",
    "accuracy",
    "apply_in_batches",
    "attack_accuracy",
    "attribute_advantage",
    "auc_difference",
    "auc_interval",
    "average_precision",
    "block_jackknife",
    "bootstrap",
    "candidate_pairs",
    "difference",
    "edit_distance",
    "exact_match",
    "exposure_by_sampling",
    "exposure_exact",
    "feature_distance",
    "frechet_distance",
    "kernel_distance",
    "knn_distance",
    "link_auc",
    "link_auc_difference",
    "link_average_precision",
    "link_interval",
    "link_precision",
    "link_scores",
    "nearest_index",
    "prdc",
    "precision_at_density",
    "psnr",
    "roc_auc",
    "ssim",
    "token_f1",
    "verification",
    "wilson",
]
