"""Images: classifiers of private people or things, attacked for pictures of them, judged by networks of their own."""

from typing import Any

import jax
import numpy as np

from jaxmia.audit.assembly import blank
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Arrays, Modality, Observed, without_model
from jaxmia.audit.own import OWN
from jaxmia.audit.roles import listed, named
from jaxmia.data import to_float
from jaxmia.modalities.image import data, judging, targets, zoo
from jaxmia.modalities.image.inputs import INPUTS, TARGET_INPUTS, attacked, decoder_width, networks
from jaxmia.modalities.image.observe import OBSERVE, shown
from jaxmia.modalities.image.priors import PRIORS
from jaxmia.modalities.image.scene import Scene
from jaxmia.modalities.image.targets import evaluator
from jaxmia.sections import Section, check_numbers, within

__all__ = ["MODALITY"]


def check(inputs: Inputs) -> None:
    """Refuse what contradicts itself in the sections of image audits; evaluators and prior are put together on zeros."""
    config, scene = inputs.config, inputs.data
    for name in ("candidates", "public_batch"):
        check_numbers("", {name: config[name]}, least=1)
    if len(scene.names) < 2:
        raise ValueError(
            f"data: {', '.join(scene.names)} alone is private; legal is 2 or more, which an interval needs"
        )
    if len(np.unique(scene.split.test.labels)) < 2:  # the accuracy on them would have no interval
        raise ValueError("data: the division leaves test pictures to 1 class; legal is 2 or more")
    if not 0 <= config["attacked_classes"] <= len(scene.names):
        legal = f"legal is 1 to the {len(scene.names)} private classes, or 0 for all"
        raise ValueError(f"attacked_classes: {config['attacked_classes']}; {legal}")
    for section in listed(config["evaluators"]):
        check_numbers(f"evaluators ({section['name']}): ", section, least=1)
        with within(f"evaluators ({section['name']})"):
            evaluator(inputs, "", section, blank)
    # What is written must be right, whether an attack asks for it or not.
    for name in ("decoder", "surrogates", *(["prior"] if config["prior"] else [])):
        inputs[name]


def others(inputs: Inputs) -> dict[str, Any]:
    """The evaluators, and a prior that is trained."""
    found: dict[str, Any] = {
        f"evaluator {name}": (section, lambda fit, name=name, section=section: evaluator(inputs, name, section, fit))
        for name, section in named(listed(inputs.config["evaluators"]))
    }
    prior = inputs.config["prior"] or {}
    if prior.get("name") == "wgan":

        def train(fit: Any) -> Any:
            once = lambda process, batches, name: fit(process, jax.random.key(0), batches)[0]  # noqa: E731
            return Inputs(inputs.modality, inputs.config, inputs.data, once)["prior"]

        found["prior"] = prior, train
    return found


def truth(scene: Scene) -> Arrays:
    """One private picture of each class, and its name."""
    private = scene.split.train
    first = np.array([np.flatnonzero(private.labels == c)[0] for c in range(len(scene.names))])
    return {"private": to_float(private.images)[first], "names": np.array(scene.names, dtype=str)}


def nearest_public(inputs: Inputs) -> Arrays:
    """For each class the public picture nearest in pixels to any private one.

    Chosen by no evaluator, since the one that chose would favor its own choice.
    """
    private, labels = to_float(inputs.data.split.train.images), inputs.data.split.train.labels
    public, classes = inputs["public"], attacked(inputs)
    flat = public.reshape(len(public), -1)
    squares, nearest = np.sum(flat**2, 1), np.empty((len(classes), *public.shape[1:]), np.float32)
    for c in classes:
        of_class = private[labels == c].reshape(-1, flat.shape[1])
        gaps = squares[:, None] - 2 * flat @ of_class.T + np.sum(of_class**2, 1)  # squared
        nearest[c] = public[gaps.min(1).argmin()]
    found = {"candidates": nearest, "targets": classes, "case_ids": classes}
    return found | {"failed": np.zeros(len(classes), bool)}


def keep(output: Any, seen: Observed) -> Arrays:
    """The candidates; those that were made as a batch one by one."""
    images = np.asarray(output, np.float32)
    return {"candidates": images.reshape(len(seen.groups), *images.shape[-3:])}


MODALITY = Modality(
    data=data.DATA,
    targets=zoo.TARGETS | OWN,
    fit=targets.fit,
    accuracy=targets.accuracy,
    inputs=INPUTS,
    target_inputs=TARGET_INPUTS,
    observe=OBSERVE,
    shown=shown,
    keep=keep,
    judges=targets.evaluators,
    judge=judging.judge,
    baselines={
        "nearest_public": without_model(
            "Nearest public image",
            "image",
            recovers="nothing",
            knows="public images, and the private ones to choose by",
            guess=nearest_public,
            paper="no attack: chosen by pixel distance with the private images in hand",
        )
    },
    controls=("shuffled", "untrained", "constant", "permuted"),
    truth=truth,
    check=check,
    others=others,
    made_up=data.made_up,
    sections={
        "evaluators": Section(zoo.EVALUATORS, role="judge"),
        "prior": Section(PRIORS, None, role="adversary", trained=True),
        "decoder": Section(decoder_width, role="adversary"),
        "networks": Section(networks, role="adversary"),
        "split": Section(str, "block1", trained=False),
        "candidates": Section(int, 1, role="adversary"),
        "attacked_classes": Section(int, 0, role="adversary"),
        "public_batch": Section(int, 32, role="adversary"),
    },
)
"""`candidates`: reconstructions per class. `attacked_classes`: so many, the first ones, are attacked; 0 for all.
`public_batch`: public images in a minibatch of attacks that train on them. `split`: the layer of the targets whose
features a client would send to a server, for attacks that observe features."""
