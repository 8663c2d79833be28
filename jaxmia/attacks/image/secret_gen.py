"""SecretGen: what is hidden in a masked image, painted so that the target is sure of a class that it named itself.

Yuan, Wu, Long, Xiao, Li, "SecretGen: Privacy Recovery on Pre-Trained Models via Distribution Discrimination", ECCV 2022
(https://arxiv.org/abs/2207.12263). Nobody tells the label. x_ns is the image without its masked pixels. Section 3.3: an
inpainting generator x^ = G(z, x_ns) learns from public images with two WGAN-GP critics, of the whole image and of masked
pixels, and L_G - diversity * |f(x^_1) - f(x^_2)| / |z_1 - z_2|, f features of the target (equations 1 to 3). Section 3.4,
pseudo-label, equations 4 and 5: of n latents and m cutouts t_j, t_0 none,

    c = argmax_c M(c),   M(c) = sum_ij F_c(t_j(G(z_i, x_ns))) / (n (m + 1)).

Section 3.5, latent: of those z_i whose image the target takes for c, that of which it is surest, or any, if there is
none. Section 3.6: from there, min over z of -identity_weight * log F_c(x^) - D(x^) by momentum descent, equations 6 to 8.

What differs. The search is as released: rate 0.01, Nesterov momentum, latents in [-1, 1], hidden pixels of the mean public
color. That steps by the mean loss of 64 images; here the gradient of one case is divided by `reference_batch`. The released
pseudo-label is one that at least one latent is taken for. Its local critic sees a random square, here the masked pixels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.priors.unit import check_images
from jaxmia.recipes import adversarial

__all__ = ["CARD", "secret_gen"]

CARD = Card(
    title="SecretGen",
    paper="Yuan, Wu, Long, Xiao, Li. SecretGen: Privacy Recovery on Pre-Trained Models. ECCV 2022",
    url="https://arxiv.org/abs/2207.12263",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the masked part of a training image",
    knows="the rest of the image, public images of other people",
    observes="masked_image",
)


class State(NamedTuple):
    z: Float[Array, " d"]
    optimizer: Any
    label: Int[Array, ""]  # c
    visible: Float[Array, "h w c"]


def secret_gen(
    oracle: Oracle,
    gallery: Float[Array, "n h w c"],
    mask: Bool[Array, "rows columns"],
    inpainter: Any,
    critic: Any,
    *,
    steps: int = 1500,
    rate: Scalar = 0.01,
    momentum: Scalar = 0.9,
    reference_batch: int = 64,
    identity_weight: Scalar = 100.0,
    latents: int = 200,
    patches: int = 4,
    dimensions: int = 100,
    feature: str = "penultimate",
    gan_steps: int = 78_000,
    gan_batch: int = 64,
    gan_rate: Scalar = 4e-3,
    gradient_weight: Scalar = 10.0,
    diversity: Scalar = 0.5,
) -> Attack:
    """The attack; a case is an image whose masked pixels do not count, the output the image with them painted.

    Args:
      oracle: white-box access, with the named feature.
      gallery: public images in [0, 1].
      mask: true where pixels are hidden, the same in all images.
      inpainter: Linen module `(images, mask [n, h, w, 1], z [n, d], train) -> images`, shown a color where it is hidden.
      critic: Linen module `(images, train) -> [n]` without BatchNorm; there will be two of it.
      steps: of the search.
      rate: SGD's.
      momentum: SGD's, in [0, 1), in Nesterov's form.
      reference_batch: the batch that the rate was set for.
      identity_weight: of -log F_c.
      latents: n.
      patches: cutouts are the cells of a grid of so many rows and columns, so that m is its square; 0 for none.
      dimensions: of z.
      feature: the target's name of f.
      gan_steps: updates of both critics, then of the generator (100 epochs of 50,000 images).
      gan_batch: examples of an update.
      gan_rate: Adam's learning rate, for all networks; its betas are 0.5 and 0.999.
      gradient_weight: of the critics' gradient penalty.
      diversity: weight of the diversity.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a gallery outside of [0, 1]; for numbers out of range, a mask that hides nothing or is not the
        images'; where the target does not show the feature.
    """
    view: Weights = lower(oracle, CARD.access, "image/secret_gen")
    check_images("gallery", gallery)
    shape = gallery.shape[1:]
    if np.shape(mask) != shape[:2] or not np.any(np.asarray(mask)):
        raise ValueError(f"mask: shape {np.shape(mask)}; legal is {shape[:2]} with some pixels hidden")
    if min(latents, reference_batch) < 1 or not 0 <= patches <= min(shape[:2]):
        given = f"latents, reference_batch, patches: {latents}, {reference_batch}, {patches}"
        raise ValueError(f"{given}; legal is 1 or more, 1 or more, 0 to {min(shape[:2])}")

    def seen(x: Any) -> Any:
        return shown_feature(view.apply(view.params, x).features, feature)

    jax.eval_shape(seen, jnp.zeros(shape))  # refused now, not in training
    public, hidden = jnp.asarray(gallery), jnp.asarray(mask, jnp.float32)[..., None]
    color = jnp.mean(public, (0, 1, 2))
    rows, columns = (np.arange(size) * patches // size for size in shape[:2])
    cell = np.add.outer(rows * patches, columns)  # of every pixel

    def compose(variables: Any, x: Any, z: Any, train: bool = False) -> Any:
        """x^, `[n, h, w, c]`, and what changed of the generator's statistics."""
        shown, masks = jnp.where(hidden > 0, color, x), jnp.broadcast_to(hidden, (*x.shape[:3], 1))
        painted, changed = inpainter.apply(variables, shown, masks, z, train=train, mutable=["batch_stats"])
        return jnp.where(hidden > 0, painted, x), changed

    def realism(d: Any, x: Any) -> tuple[Any, Any]:
        """Scores of the whole image and of what is hidden."""
        whole = critic.apply({"params": d["params"]["whole"]}, x, train=True)
        return whole, critic.apply({"params": d["params"]["hole"]}, x * hidden, train=True)

    def backbone(fitted: Any) -> Process:
        def some(key: Any) -> tuple[Any, Any]:
            which, draw = jax.random.split(key)
            rows = jax.random.randint(which, (gan_batch,), 0, len(public))
            return public[rows], jax.random.normal(draw, (2, gan_batch, dimensions))

        def start(key: Any) -> Any:
            keys, masks = jax.random.split(key, 3), jnp.broadcast_to(hidden, (2, *shape[:2], 1))
            g = inpainter.init(keys[0], public[:2], masks, jnp.zeros((2, dimensions)), train=True)
            whole, hole = (critic.init(key, public[:2], train=True)["params"] for key in keys[1:])
            return g, {"params": {"whole": whole, "hole": hole}}

        def tell(key: Any, g: Any, d: Any) -> Any:
            """Equation 1, for both critics."""
            draw, mix = jax.random.split(key)
            x, z = some(draw)
            fake = compose(g, x, z[0], train=True)[0]
            between = x + jax.random.uniform(mix, (gan_batch, 1, 1, 1)) * (fake - x)
            loss = jnp.zeros(())
            for part in range(2):
                slope = jax.grad(lambda x, part=part: jnp.sum(realism(d, x)[part]))(between)
                steep = jnp.sqrt(jnp.sum(slope.reshape(gan_batch, -1) ** 2, 1) + 1e-12)
                loss += jnp.mean(realism(d, fake)[part]) - jnp.mean(realism(d, x)[part])
                loss += gradient_weight * jnp.mean((steep - 1) ** 2)
            return loss, {}

        def paint(key: Any, g: Any, d: Any) -> Any:
            """Equations 2 and 3."""
            x, z = some(key)
            one, changed = compose(g, x, z[0], train=True)
            two, changed = compose({**g, **changed}, x, z[1], train=True)
            f, other = jax.vmap(seen)(one), jax.vmap(seen)(two)
            apart = jnp.mean(jnp.abs(f - other)) / jnp.mean(jnp.abs(z[0] - z[1]))
            scores = sum((jnp.mean(score) for score in realism(d, one)), jnp.zeros(()))
            return -scores / 2 - diversity * apart, changed

        return adversarial(start, tell, paint, optax.adam(gan_rate, 0.5, 0.999), steps=gan_steps, critic_steps=1)

    def solve(fitted: Any) -> Process:
        g, d = fitted[0]["generator"], fitted[0]["critic"]
        optimizer = optax.sgd(rate / reference_batch, momentum, nesterov=True)

        def show(visible: Any, z: Any) -> Any:
            return compose(g, visible[None], z[None])[0][0]

        def consistent(x: Any) -> tuple[Any, Any]:
            """F(x), and its mean over x and its cutouts."""
            shown = [x, *(jnp.where(cell[..., None] == j, color, x) for j in range(patches**2))]
            told = jnp.stack([jax.nn.softmax(view.answer(jax.random.key(0), one)) for one in shown])
            return told[0], jnp.mean(told, 0)

        def init(key: Any, visible: Any) -> State:
            z = jnp.clip(jax.random.normal(key, (latents, dimensions)), -1.0, 1.0)
            told, metric = jax.lax.map(lambda z: consistent(show(visible, z)), z)
            label = jnp.argmax(jnp.mean(metric, 0)).astype(jnp.int32)
            sure = jnp.where(jnp.argmax(told, 1) == label, told[:, label], 0.0)
            best = z[jnp.argmax(sure)]  # the first, if there is none
            return State(best, optimizer.init(best), label, jnp.asarray(visible, jnp.float32))

        def step(key: Any, state: State, visible: Any) -> tuple[State, Any]:
            def total(z: Any) -> Any:
                x = show(visible, z)
                identity = cross_entropy(view.answer(key, x), state.label)
                score = sum((jnp.sum(one) for one in realism(d, x[None])), jnp.zeros(()))
                return identity_weight * identity - score, identity

            (loss, identity), gradient = jax.value_and_grad(total, has_aux=True)(state.z)
            updates, opt = optimizer.update(gradient, state.optimizer)
            moved: Any = optax.apply_updates(state.z, updates)
            new = state._replace(z=jnp.clip(moved, -1, 1), optimizer=opt)
            return new, info(loss, identity=identity, label=state.label)

        return Process(init, step, lambda state: show(state.visible, state.z), steps)

    return Attack(solve, (backbone,), observes=CARD.observes)
