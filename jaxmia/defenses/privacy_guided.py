"""Privacy-guided training: a group lasso draws the weights of sensitive inputs to zero.

Goldsteen, Ezov, Farkash, "Reducing Risk of Model Inversion Using Privacy-Guided Training", 2020
(https://arxiv.org/abs/2006.15877). The abstract: tree-based models can be trained to lean less on
sensitive attributes and more on others, often without harm to accuracy, and attacks then infer
these attributes less well.

This is a reconstruction for networks; the abstract was read, the paper's rules were not. With W the
kernel of the first affine layer, `[inputs, units]`, and W_a the rows of attribute a (one-hot: one
row for each of its values), every step of the optimizer is followed by the proximal step of
shrinkage * |W_a|, where |.| is the root of the sum of squares over the whole block:

    W_a  <-  W_a * max(0, 1 - shrinkage / |W_a|)

It takes the same length off |W_a| in every step, and holds a block that the data does not pull on
at exactly zero. For plain gradient descent of rate eta this minimizes the loss plus shrinkage / eta
times the sum of |W_a|; after Adam it is the same step without that meaning.

What differs. The paper's models are decision trees, for which it discounts the gain of a split on
a sensitive attribute; trees are trained outside of this package, so that there is no hook for them.
The default shrinkage is our choice.

What it costs and does not do. Nothing at serving. An attribute with weight zero moves no answer, so
that an attack that tries all its values learns what the known attributes tell and no more: compare
with imputation. That much stays: what other attributes tell of the sensitive one is not hidden, and
neither is what the label itself tells.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "privacy_guided", "shrunk"]

CARD = Card(
    title="Privacy-guided training",
    paper="Goldsteen, Ezov, Farkash. Privacy-Guided Training. arXiv 2020",
    url="https://arxiv.org/abs/2006.15877",
    year=2020,
    modality="tabular",
    hook="optim",
)


def privacy_guided(
    *,
    attributes: tuple[tuple[int, ...], ...] = ((0,),),
    shrinkage: Scalar = 1e-3,
    layer: str = "Dense_0",
) -> Defense:
    """The defense: an optimizer that is followed by the proximal step.

    Args:
      attributes: for each sensitive attribute the inputs of the network that hold it, counted from
        0. A record of an audit is one-hot: an attribute with v values has v inputs, after those of
        the attributes before it.
      shrinkage: taken off the length of an attribute's weights in each step, 0 or more; 0 changes
        nothing.
      layer: the affine layer that reads the inputs, by its name among the parameters, such as
        "Dense_0" or "inner/Dense_0".

    Raises:
      ValueError: for a negative shrinkage, attributes that are empty, negative or overlap; at the
        first step, for inputs that the layer does not have, or where not exactly one affine layer
        has that name.

    >>> step = privacy_guided(attributes=((0, 1),), shrinkage=1.0).optim(optax.sgd(1.0))
    >>> params = {"Dense_0": {"kernel": jnp.array([[3.0], [4.0], [5.0]])}}
    >>> still = jax.tree.map(jnp.zeros_like, params)
    >>> updates, _ = step.update(still, step.init(params), params)
    >>> [round(float(u), 4) for u in updates["Dense_0"]["kernel"][:, 0]]
    [-0.6, -0.8, 0.0]
    """
    at_least_zero(shrinkage=shrinkage)
    inputs = [i for rows in attributes for i in rows]
    if not attributes or () in attributes or min(inputs) < 0 or len(set(inputs)) < len(inputs):
        raise ValueError(f"attributes: {attributes}; legal are tuples of inputs from 0 on, none empty, no input twice")

    def optim(transform: optax.GradientTransformation) -> optax.GradientTransformation:
        def update(updates: Any, state: Any, params: Any = None) -> Any:
            made: Any = transform.update(updates, state, params)
            updates, state = made
            found = _kernel(params, layer)
            if max(inputs) >= (rows := found[1].shape[0]):
                raise ValueError(f"attributes: {max(inputs)}; legal is 0 to {rows - 1}, the inputs of {layer!r}")

            def after(path: Any, leaf: Any, weights: Any) -> Any:
                return shrunk(weights + leaf, attributes, shrinkage) - weights if path == found[0] else leaf

            return jax.tree_util.tree_map_with_path(after, updates, params), state

        return optax.GradientTransformation(transform.init, update)

    return Defense(optim=optim)


def shrunk(
    kernel: Float[Array, "inputs units"], attributes: tuple[tuple[int, ...], ...], shrinkage: Scalar
) -> Float[Array, "inputs units"]:
    """The proximal step on the rows of every attribute; other rows stay.

    >>> shrunk(jnp.array([[3.0], [4.0], [1.0], [5.0]]), ((0, 1), (2,)), 2.5)[:, 0].tolist()
    [1.5, 2.0, 0.0, 5.0]
    """
    for rows in attributes:
        block = kernel[jnp.array(rows)]
        length = jnp.sqrt(jnp.sum(block**2))
        share = jnp.maximum(0.0, 1.0 - shrinkage / jnp.maximum(length, 1e-30))
        kernel = kernel.at[jnp.array(rows)].set(block * jnp.asarray(share, kernel.dtype))
    return kernel


def _kernel(params: Any, layer: str) -> tuple[Any, Any]:
    """Path and value of the affine layer's kernel; a name also counts behind a wrapper's."""
    kernels = {
        "/".join(entry.key for entry in path[:-1]): (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel" and leaf.ndim == 2
    }
    found = [at for name, at in kernels.items() if f"/{name}".endswith(f"/{layer}")]
    if len(found) != 1:
        legal = ", ".join(kernels) or "none, since the network has no affine layer"
        raise ValueError(f"layer: {layer!r}; legal is the name of one affine layer: {legal}")
    return found[0]
