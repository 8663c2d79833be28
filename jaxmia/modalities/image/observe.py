"""What attacks on image classifiers observe, by `Card.observes`."""

from collections.abc import Callable

import numpy as np

from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted, Observed
from jaxmia.core import Card
from jaxmia.modalities.image.inputs import attacked
from jaxmia.target import Target

__all__ = ["OBSERVE", "shown"]


def _label(given: Inputs) -> Observed:
    return Observed(given["targets"], given["targets"])


def _labels(given: Inputs) -> Observed:
    """All classes are made together, as a batch."""
    return Observed(given["targets"].reshape(-1, len(attacked(given))), given["targets"])


def _served(given: Inputs) -> Observed:
    """What the target answers to a private image: scores, an explanation with them, or a layer's features."""
    victims = given["victims"]
    return Observed(victims, given["targets"], {"pairs": victims}, served=True)


def _masked_image(given: Inputs) -> Observed:
    """A private image without its hidden pixels."""
    victims = given["victims"]
    seen = np.where(np.asarray(given["mask"])[..., None], np.float32(0), victims)
    return Observed(seen, given["targets"], {"pairs": victims})


OBSERVE: dict[str, Callable[[Inputs], Observed]] = {
    "label": _label,
    "labels": _labels,
    "scores": _served,
    "explained_scores": _served,
    "features": _served,
    "masked_image": _masked_image,
}


def shown(fitted: Fitted, card: Card, config: dict) -> Target:
    """What an attack is shown of a target: its first layers alone, where it observes their features, or explanations."""
    if card.observes == "explained_scores":
        return fitted.target.explained()
    return fitted.target.until(config["split"]) if card.observes == "features" else fitted.target
