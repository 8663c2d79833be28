"""What attacks on image classifiers observe, by `Card.observes`."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Observed
from jaxmia.core import Card
from jaxmia.data import to_float
from jaxmia.modalities.image.inputs import attacked
from jaxmia.target import Target

__all__ = ["OBSERVE", "shown"]


def _targets(given: Inputs) -> Int[np.ndarray, " n"]:
    """The class of every candidate."""
    return np.tile(attacked(given), given.config["candidates"])


def _victims(given: Inputs) -> Float[np.ndarray, "n h w c"]:
    """One private training image for each candidate."""
    private, targets = given.data.split.train, _targets(given)
    rank = np.arange(len(targets)) // len(attacked(given))
    rows = np.array([np.resize(np.flatnonzero(private.labels == c), k + 1)[k] for c, k in zip(targets, rank)])
    return to_float(private.images[rows])


def _label(given: Inputs) -> Observed:
    return Observed(_targets(given), _targets(given))


def _labels(given: Inputs) -> Observed:
    """All classes are made together, as a batch."""
    return Observed(_targets(given).reshape(-1, len(attacked(given))), _targets(given))


def _served(given: Inputs) -> Observed:
    """What the target answers to a private image: scores, an explanation with them, or a layer's features."""
    victims = _victims(given)
    return Observed(victims, _targets(given), {"pairs": victims}, served=True)


def _masked_image(given: Inputs) -> Observed:
    """A private image without its hidden pixels."""
    victims = _victims(given)
    seen = np.where(np.asarray(given["mask"])[..., None], np.float32(0), victims)
    return Observed(seen, _targets(given), {"pairs": victims})


OBSERVE: dict[str, Callable[[Inputs], Observed]] = {
    "label": _label,
    "labels": _labels,
    "scores": _served,
    "explained_scores": _served,
    "features": _served,
    "masked_image": _masked_image,
}


def shown(target: Target, card: Card, config: dict) -> Target:
    """What an attack is shown of a target: its first layers alone, where it observes their features, or explanations."""
    if card.observes == "explained_scores":
        return target.explained()
    return target.until(config["split"]) if card.observes == "features" else target
