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
from jaxmia.metrics.graph_shape import (
    adjacency_of,
    clustering_cosine,
    clustering_divergence,
    degree_distance,
    degree_divergence,
    frobenius_distance,
    spectral_distance,
    strongest_pairs,
    wl_similarity,
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
from jaxmia.metrics.link_tails import link_tpr, links_by_class, links_by_influence, tied_share
from jaxmia.metrics.pair_codes import LinkCounts, PairCodes, balanced_links, link_counts, pair_scores
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
    "LinkCounts",
    "LinkScores",
    "PairCodes",
    "Prdc",
    "accuracy",
    "adjacency_of",
    "apply_in_batches",
    "attack_accuracy",
    "attribute_advantage",
    "auc_difference",
    "auc_interval",
    "average_precision",
    "balanced_links",
    "block_jackknife",
    "bootstrap",
    "candidate_pairs",
    "clustering_cosine",
    "clustering_divergence",
    "degree_distance",
    "degree_divergence",
    "difference",
    "edit_distance",
    "exact_match",
    "exposure_by_sampling",
    "exposure_exact",
    "feature_distance",
    "frechet_distance",
    "frobenius_distance",
    "kernel_distance",
    "knn_distance",
    "link_auc",
    "link_auc_difference",
    "link_average_precision",
    "link_counts",
    "link_interval",
    "link_precision",
    "link_scores",
    "link_tpr",
    "links_by_class",
    "links_by_influence",
    "nearest_index",
    "pair_scores",
    "prdc",
    "precision_at_density",
    "psnr",
    "roc_auc",
    "spectral_distance",
    "ssim",
    "strongest_pairs",
    "tied_share",
    "token_f1",
    "verification",
    "wilson",
    "wl_similarity",
]
