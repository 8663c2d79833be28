"""How well reconstructions show the private class: evaluator verdict, feature distance, similarity of pairs.

An evaluator network is a function of images that the caller brings (classes or embeddings). Its verdict alone
does not show a leak: it shares its task with the target, and most reconstructions it accepts can be false
positives (Ho et al., arXiv 2505.03519, 2025). Report more than one evaluator, the nearest-private-image
distance and coverage beside it.

Every function returns one value per case, for `estimate.bootstrap` with the classes as groups.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxmia.metrics.arrays import as_classes, as_matrix, require_finite, require_same_length

__all__ = [
    "apply_in_batches",
    "attack_accuracy",
    "feature_distance",
    "knn_distance",
    "nearest_index",
    "psnr",
    "ssim",
    "verification",
]

_BLOCK_ELEMENTS = 1 << 22  # distance matrices are made in row blocks of this many elements, 32 MiB


def apply_in_batches(
    network: Callable[[Any], Any], images: Shaped[Any, "n ..."], *, batch: int = 256
) -> Float[np.ndarray, "n d"]:
    """Outputs of a network (features or logits) on all images, on the host.

    Every call has the same shape, the last batch being filled up with copies, so a jitted network compiles
    once.

    Raises:
      ValueError: no images, batch < 1, or outputs that are not [batch, d].
    """
    count = len(images)
    if count == 0 or batch < 1:
        raise ValueError(f"images has {count} rows and batch is {batch}: both must be at least 1")
    batch = min(batch, count)
    outputs = []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        output = np.asarray(network(images[rows]))
        if output.ndim != 2 or len(output) != batch:
            raise ValueError(f"network gave shape {output.shape} on {batch} images: [{batch}, d] is needed")
        outputs.append(output)
    return np.concatenate(outputs)[:count]


def attack_accuracy(
    logits: Float[Any, "n c"],
    targets: Int[Any, " n"],
    k: int = 1,
    *,
    failed: Bool[Any, " n"] | None = None,
) -> Float[np.ndarray, " n"]:
    """1.0 per case whose target class is among the evaluator's k best classes, else 0.0 (Acc@k).

    Classes that tie with the target rank before it, so an evaluator with constant output never agrees by
    accident. k is cut to the number of classes, where Acc@k says nothing.

    Args:
      logits: evaluator outputs on the reconstructions; any increasing function of them does.
      targets: class each case was meant to show. Every attacked class belongs here, also those never reached.
      k: 1 for Acc@1, 5 for Acc@5.
      failed: cases for which the attack gave no usable image; they count as failures and their logits are not
        read.

    Raises:
      ValueError: non-finite logits of a case that is not marked failed, a target outside 0 to c - 1, or k <
        1.

    >>> attack_accuracy(np.array([[0.1, 0.9], [0.5, 0.5]]), np.array([1, 0])).tolist()
    [1.0, 0.0]
    """
    values = np.asarray(logits)
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] < 2:
        raise ValueError(f"logits has shape {values.shape}: [n, c] with n >= 1 and c >= 2 is needed")
    if k < 1:
        raise ValueError(f"k is {k}: at least 1 is needed")
    classes = as_classes("targets", targets, values.shape[1])
    require_same_length("logits", values, "targets", classes)
    lost = np.zeros(len(values), dtype=bool) if failed is None else np.asarray(failed, dtype=bool)
    require_same_length("logits", values, "failed", lost)
    require_finite("logits (of a case not marked failed)", np.where(lost[:, None], 0, values))
    wanted = np.take_along_axis(values, classes[:, None], axis=1)
    before = np.sum(values >= wanted, axis=1) - 1
    return ((before < min(k, values.shape[1])) & ~lost).astype(np.float64)


def nearest_index(
    features: Float[Any, "n d"],
    candidates: Float[Any, "m d"],
    candidate_labels: Int[Any, " m"] | None = None,
    targets: Int[Any, " n"] | None = None,
) -> Int[np.ndarray, " n"]:
    """Row of the L2-nearest candidate of every case, the lower row at a tie.

    With labels and targets only candidates of the case's target class are looked at (nearest private image);
    without, all are (nearest public image).

    Raises:
      ValueError: labels without targets or the reverse, or a target class without any candidate.
    """
    queries, rows = as_matrix("features", features), as_matrix("candidates", candidates)
    if (candidate_labels is None) != (targets is None):
        raise ValueError("candidate_labels and targets go together: one of them is missing")
    if candidate_labels is None:
        return _nearest(queries, rows)
    nearest = np.empty(len(queries), dtype=np.int64)
    for cases, members in _by_class(queries, rows, candidate_labels, targets):
        nearest[cases] = members[_nearest(queries[cases], rows[members])]
    return nearest


def knn_distance(
    features: Float[Any, "n d"],
    private_features: Float[Any, "m d"],
    private_labels: Int[Any, " m"],
    targets: Int[Any, " n"],
    *,
    squared: bool = False,
) -> Float[np.ndarray, " n"]:
    """Distance in feature space from every reconstruction to the nearest private image of its target class.

    Squared, this is what the released code of the field prints as KNN-Dist, and as delta_eval (evaluator
    features) or delta_face (FaceNet features) in PPA (Struppek et al., ICML 2022). The unit is that of the
    feature network: name it.

    Args:
      features: of the reconstructions.
      private_features, private_labels: of the training images of the target.
      targets: class each case was meant to show.
      squared: the squared distance of the literature in place of the distance.
    """
    nearest = nearest_index(features, private_features, private_labels, targets)
    gaps = np.asarray(features, dtype=np.float64) - np.asarray(private_features, dtype=np.float64)[nearest]
    distances = np.sum(gaps**2, axis=1)
    return distances if squared else np.sqrt(distances)


def feature_distance(
    features: Float[Any, "n d"],
    private_features: Float[Any, "m d"],
    private_labels: Int[Any, " m"],
    targets: Int[Any, " n"],
) -> Float[np.ndarray, " n"]:
    """L2 distance from every reconstruction to the mean private feature of its target class.

    "Feat Dist" in GMI (Zhang et al., CVPR 2020).
    """
    queries, rows = as_matrix("features", features), as_matrix("private_features", private_features)
    distances = np.empty(len(queries))
    for cases, members in _by_class(queries, rows, private_labels, targets):
        distances[cases] = np.linalg.norm(queries[cases] - rows[members].mean(axis=0), axis=1)
    return distances


def verification(first: Float[Any, "n d"], second: Float[Any, "n d"], threshold: float) -> Float[np.ndarray, " n"]:
    """1.0 per pair of embeddings closer than the threshold in L2 distance (same identity), else 0.0.

    The threshold belongs to the embedding, and to plain L2: 0.6 for dlib's face descriptor. Where a network's
    threshold is for the squared distance of normalized embeddings (FaceNet), normalize before and pass its
    square root.

    Raises:
      ValueError: unequal shapes, non-finite embeddings, or threshold <= 0.
    """
    a, b = as_matrix("first", first), as_matrix("second", second)
    if a.shape != b.shape:
        raise ValueError(f"first has shape {a.shape} but second has {b.shape}: they must be equal")
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}: a positive distance is needed")
    return (np.linalg.norm(a - b, axis=1) < threshold).astype(np.float64)


def ssim(first: Float[Any, "n h w c"], second: Float[Any, "n h w c"]) -> Float[np.ndarray, " n"]:
    """Structural similarity in [-1, 1] of every pair of images in [0, 1]; 1 for equal images.

    Wang et al., IEEE Transactions on Image Processing 13(4), 2004: Gaussian window of 11 x 11 pixels with
    sigma 1.5, only where it lies inside the image, k1 = 0.01, k2 = 0.03, mean over channels; float32.

    Raises:
      ValueError: unequal shapes, a side below 11 pixels, or values outside [0, 1].
    """
    import dm_pix
    import jax.numpy as jnp

    a, b = _image_pair(first, second)
    if min(a.shape[1:3]) < 11:
        raise ValueError(f"first has images of {a.shape[1]} x {a.shape[2]}: the window needs 11 x 11 or more")
    return np.asarray(dm_pix.ssim(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)), dtype=np.float64)


def psnr(first: Float[Any, "n h w c"], second: Float[Any, "n h w c"]) -> Float[np.ndarray, " n"]:
    """Peak signal-to-noise ratio in dB of every pair of images in [0, 1].

    -10 log10 of the mean squared error. Infinite for equal images, which no mean can hold: `bootstrap`
    refuses it, so report those cases by themselves.
    """
    a, b = _image_pair(first, second)
    error = np.mean((a - b) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def _nearest(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    # centered, since the expansion |a|^2 - 2 ab + |b|^2 cancels for a large common offset
    center = rows.mean(axis=0)
    queries, rows = queries - center, rows - center
    lengths = np.sum(rows**2, axis=1)
    block = max(1, _BLOCK_ELEMENTS // len(rows))
    return np.concatenate(
        [
            np.argmin(lengths - 2 * queries[start : start + block] @ rows.T, axis=1)
            for start in range(0, len(queries), block)
        ]
    )


def _by_class(queries: np.ndarray, rows: np.ndarray, labels: Any, targets: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per target class: which cases and which candidate rows belong to it."""
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(f"features have {queries.shape[1]} and {rows.shape[1]} columns: they must be equal")
    owners, wanted = as_classes("private_labels", labels), as_classes("targets", targets)
    require_same_length("private_features", rows, "private_labels", owners)
    require_same_length("features", queries, "targets", wanted)
    classes = np.unique(wanted)
    missing = classes[~np.isin(classes, owners)]
    if len(missing):
        raise ValueError(f"targets has {len(missing)} classes without a private image, first {missing[0]}")
    return [(np.flatnonzero(wanted == c), np.flatnonzero(owners == c)) for c in classes]


def _image_pair(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 4 or a.size == 0:
        raise ValueError(f"first has shape {a.shape} and second {b.shape}: equal [n, h, w, c] are needed")
    for name, images in (("first", a), ("second", b)):
        require_finite(name, images)
        if images.min() < 0 or images.max() > 1:
            raise ValueError(f"{name} spans [{images.min():g}, {images.max():g}]: pixels must be in [0, 1]")
    return a, b
