"""Images: a linear classifier whose classes are orthogonal prototypes. Candidates are `image` or the output itself.

Class c owns six pixels: 0.9 there, 0.1 elsewhere. A candidate counts if the prototype it is likest to is that of its
class, so a blind guess hits one in six.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Target, from_function
from jaxmia.attacks.image.fsha import Victim
from jaxmia.attacks.image.gmi import gmi
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.oracle import Outputs
from jaxmia.priors import Feature, chain, eigen
from jaxmia.testing.benches import Bench, linear, networks

CLASSES, SHAPE = 6, (6, 6, 1)
WANTED = np.arange(CLASSES)


class DenseDecoder(nn.Module):
    """Scores or features to an image, one hidden layer."""

    @nn.compact
    def __call__(self, scores, train: bool = False):
        hidden = nn.relu(nn.Dense(64)(scores.reshape(len(scores), -1)))
        return nn.sigmoid(nn.Dense(int(np.prod(SHAPE)))(hidden)).reshape(-1, *SHAPE)


def prototypes() -> np.ndarray:
    """`[classes, pixels]`; less their mean and scaled, they are orthogonal."""
    flat = np.full((CLASSES, int(np.prod(SHAPE))), 0.1, np.float32)
    for c in range(CLASSES):
        flat[c, c::CLASSES] = 0.9
    return flat


def images(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy prototypes `[n, pixels]` and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    return np.clip(prototypes()[labels] + 0.15 * rng.standard_normal((n, 36)), 0, 1).astype(np.float32), labels


def cases(target: Target, card: Card) -> Any:
    if card.observes == "label":
        return WANTED.astype(np.int32)
    if card.observes == "labels":  # batches of them
        return WANTED.reshape(2, -1).astype(np.int32)
    if card.observes == "sent_features":
        return prototypes().reshape(-1, *SHAPE)[:, :, ::-1]
    shown = jnp.asarray(prototypes().reshape(-1, *SHAPE))
    if card.observes == "client_index":  # asked for by what the target calls each prototype
        return np.asarray(jax.vmap(lambda x: target.apply(target.params, x).logits)(shown)).argmax(1).astype(np.int32)  # type: ignore[misc]
    # For "features" the target is the client's part: its answer is what the server sees.
    answer = target.view(min(card.access, target.granted)).answer
    return np.asarray(jax.vmap(lambda x: answer(jax.random.key(0), x))(shown))


def victim(copies: int = 10) -> Victim:
    """A client of split learning whose image c is of class c, as are c + 6, c + 12, ...; all are noisy prototypes.

    Classes are alike but for where they are bright, so that a client who could move pixels might as well be led to send
    one class for another. This one cannot, since it sees each pixel by itself (convolutions can but a little); what it
    makes of a pixel, and with which sign, it has to be taught. Untaught it shows one class of six with the key of a trial,
    and up to four with others, as its signs happen to be.
    """
    noise = 0.05 * np.random.default_rng(6).standard_normal((copies * CLASSES, 36))
    private = jnp.asarray(np.clip(np.tile(prototypes(), (copies, 1)) + noise, 0, 1), jnp.float32).reshape(-1, *SHAPE)
    client = networks.Unshared()
    return Victim(
        init=lambda key: client.init(key, private[:1]),
        send=lambda params, index: client.apply(params, private[index][None])[0],
        images=len(private),
    )


def labels_of(x: np.ndarray) -> np.ndarray:
    """Where the target is the server's part of a network whose client mirrors images: the class of each image."""
    return (x.reshape(len(x), -1) @ prototypes()[::-1].T).argmax(1).astype(np.int32)


def judge(output: Any) -> Estimate:
    flat = np.asarray(getattr(output, "image", output)).reshape(CLASSES, -1)
    flat = flat - flat.mean(1, keepdims=True)
    likeness = flat @ (prototypes() - prototypes().mean(1, keepdims=True)).T
    return wilson(int((likeness.argmax(1) == WANTED).sum()), CLASSES)


def outputs(params: Any, batch: Any) -> Outputs:
    """Logits, and the pixels as the feature before them."""
    return Outputs(linear.logits(params, batch), {"penultimate": batch.reshape(batch.shape[0], -1)})


@functools.cache
def make() -> Bench:
    x, labels = images(0, 600)
    public = np.random.default_rng(2).dirichlet(np.full(CLASSES, 0.5), 400) @ prototypes()
    public = np.clip(public + 0.05 * np.random.default_rng(3).standard_normal(public.shape), 0, 1)
    public = public.astype(np.float32).reshape(-1, *SHAPE)
    projection = jnp.asarray(np.random.default_rng(4).standard_normal((36, 12)) / 6, jnp.float32)
    leaks = linear.ridge(x, labels, CLASSES)
    named = labels_of(public)

    def batch(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": public[rows], "y": named[rows]}

    prior = eigen(public, 5)
    turn = jnp.linalg.qr(jnp.asarray(np.random.default_rng(5).standard_normal((5, 5)), jnp.float32))[0]
    return Bench(
        build=functools.partial(from_function, outputs, classes=CLASSES),
        params={
            "leaks": leaks,
            "shuffled": linear.ridge(x, np.random.default_rng(1).permutation(labels), CLASSES),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={
            "shape": SHAPE,
            "classes": CLASSES,
            "prior": prior,
            "decoder": DenseDecoder(),
            "client": networks.Client(),
            "victim": victim(),
            "encoder": networks.Pixelwise(),
            "critic": networks.Discriminator(1),
            "layers": ("penultimate",),
            "inverses": (DenseDecoder(), networks.Surrogate(36, 64)),
            "gallery": jnp.asarray(public[:32]),
            "embedding": lambda image: image.reshape(-1) @ projection,
            "base": functools.partial(gmi, prior=prior, restarts=2, steps=400),
            "blocks": chain(
                prior.init,
                (lambda feature, w: Feature(w @ turn), lambda feature, w: prior.decode(prior.project(feature.map))),
            ),
            "surrogate": networks.Surrogate(CLASSES),
            "surrogates": (networks.Surrogate(CLASSES), networks.Surrogate(CLASSES, 16)),
            "generator": networks.Generator(SHAPE),
            "discriminator": networks.Discriminator(CLASSES),
            "denoiser": networks.Denoiser(CLASSES),
            "classifying_discriminator": networks.Discriminator(CLASSES + 1),
            "conditional_generator": networks.ConditionalGenerator(CLASSES, SHAPE),
            "conditional_discriminator": networks.ProjectionDiscriminator(CLASSES),
        },
        cases=cases,
        judge=judge,
        chance=1 / CLASSES,
        candidate=jnp.full(SHAPE, 0.5),
        public=lambda step: batch(np.random.default_rng(step).integers(0, len(public), 32)),
        settings={
            "image/align_mi": {"neighbors": 6, "average": "perturbation"},
            "image/c2fmi": {"train_steps": 300, "width": 64},
            "image/cdm_mi": {"steps": 50, "train_steps": 1500, "train_rate": 0.002, "average": 0.99},
            "image/data_free_split": {"steps": 400, "batch": 32, "rate": 0.005},
            # A class is a column of pixels here, so that neither rolling nor mirroring leaves it what it is.
            "image/deep_inversion": {"steps": 400, "jitter": 0, "flip": 0.0, "clip": True},
            "image/distilled": {"steps": 300, "rate": 0.01},
            "image/ensemble_inversion": {"dimensions": 8, "steps": 300, "batch": 16, "rate": 0.01},
            "image/fsha": {
                "steps": 1000,
                "client_rate": 0.01,
                "rate": 0.002,
                "critic_rate": 0.01,
                "gradient_weight": 10.0,
            },
            "image/if_gmi": {
                "steps": (12, 60),
                "radii": (10.0, 10.0),
                "rate": 0.1,
                "pool": 10,
                "starts": 2,
                "mirror": False,
            },
            "image/gamin": {"dimensions": 8, "steps": 400, "batch": 32, "rate": 0.01, "surrogate_rate": 0.01},
            "image/inverse_network": {"steps": 1500, "rate": 0.005},
            "image/ked_mi": {"dimensions": 8, "gan_steps": 300, "critic_steps": 1, "gan_rate": 0.002},
            "image/label_error_rate": {"steps": 1500, "rate": 0.005},
            "image/lokt": {
                "dimensions": 8,
                "steps": 100,
                "gan_steps": 300,
                "gan_batch": 64,
                "gan_rate": 0.002,
                "critic_steps": 1,
                "labels": 100,
                "surrogate_steps": 600,
                "surrogate_batch": 64,
                "augment": False,
            },
            "image/lomma": {"distill_steps": 150, "moments_steps": 10, "rate": 0.1},
            "image/mirror": {
                "steps": 100,
                "rate": 0.2,
                "starts": 2,
                "pool_steps": 3,
                "pool_draws": 100,
                "slope": 1.0,
                "bound": 3.0,
                "flip": 0.0,
            },
            "image/mirror_genetic": {"members": 100, "pool_steps": 10},
            "image/plg_mi": {
                "dimensions": 8,
                "top": 4,
                "gan_steps": 300,
                "critic_steps": 1,
                "gan_rate": 0.002,
                "steps": 100,
                "smallest": 0.95,
                "flip": 0.0,
                "rotation": 0.0,
            },
            "image/plug_in_inversion": {"stages": 2, "stage_steps": 200, "ensemble": 4, "jitter": 0},
            "image/ppa": {"rate": 0.1, "views": 5, "view_crop": (0.9, 1.0), "view_ratio": (1.0, 1.0), "mirror": False},
            "image/ppdg_mi": {
                "dimensions": 8,
                "gan_steps": 300,
                "critic_steps": 1,
                "gan_rate": 0.002,
                "candidates": 8,
                "kept": 2,
                "views": 0,
                "seek_steps": 60,
                "seek_rate": 0.05,
                "tune_steps": 50,
                "tune_rate": 0.003,
            },
            "image/query_free": {"shadow_steps": 600, "shadow_rate": 0.01, "variation": 0.1, "steps": 200},
            "image/rlb_mi": {"width": 32, "batch": 64},
            "image/vmi": {"steps": 400, "rate": 0.02, "draws": 16, "levels": 2, "layers": 3, "hidden": 8},
            "image/rmle": {"rate": 0.1, "variation": 0.1},
        },
    )
