"""TL-DMI: begin with a network of public data and hold its first layers there.

Ho, Koh, Chandrasegaran, Nguyen, Cheung, "Model Inversion Robustness: Can Transfer Learning Help?",
CVPR 2024 (https://arxiv.org/abs/2405.05588). The network is pre-trained on public classes; then its
first layers stay as they are, and only the rest learns the private classes. The paper finds that
inversion needs the first layers most and classification the last ones, so that private features
which are only in the last layers are hard to invert.

    optim    update of a frozen parameter  <-  early_rate * update,   the paper's 0
    model    BatchNorm of frozen layers normalizes in training by the statistics it already has

The start is the target's, not this defense's. In an audit name a target that begins with a file,
`targets: {name: ir152, weights: ...}`, and here the parts; elsewhere give
`train.supervised(start=...)` the variables of a public training. From random weights this trains on
frozen random features: that is a control and not the paper's defense. Its undefended twin has the
same start and trains all.

What differs. The released code (hosytuyen/TL-DMI) never freezes a BatchNorm, so that its frozen
layers still collect private means and variances; here these stay public, to the bit, whatever
`early_rate` is. It freezes the first 27 layers of VGG16 (here "feature_[0-9]", "feature_1?",
"feature_2[0-6]") and the first 47 blocks of IR-152 ("input_layer_*", "body_[0-9]", "body_[1-3]?",
"body_4[0-6]"), with SGD at 0.08 and 0.01. A rate between 0 and 1 is ours, for a curve of strengths:
it scales what the optimizer made of a gradient, weight decay and momentum included. By default the
first half of the parts is frozen; a later comparison of others freezes 40 to 50 %.

What it costs and does not do. Training gets cheaper; accuracy falls as more is frozen. The paper
reports attack accuracies of PPA from 58 % down to 25 %; an attack that averages over augmentations
(AlignMI) is reported to come back to 48 %. That the weights of the first layers are public is not
hidden. What an attack reads from the last layers, or from scores alone, is not touched.
"""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import optax
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import fraction

__all__ = ["CARD", "PublicStatistics", "frozen_parts", "tl_dmi"]

CARD = Card(
    title="TL-DMI",
    paper="Ho, Koh, Chandrasegaran, Nguyen, Cheung. Can Transfer Learning Help? CVPR 2024",
    url="https://arxiv.org/abs/2405.05588",
    year=2024,
    modality="any",
    hook="model, optim",
)


class PublicStatistics(nn.Module):
    """A network whose frozen parts train in inference mode of their BatchNorm.

    It is the outermost module: `init` and `apply` are those of the network, so that a public start
    fits and every layer keeps its path.

    Attributes:
      inner: the network, `(x, train) -> logits`.
      frozen: as in `tl_dmi`.
    """

    inner: nn.Module
    frozen: tuple[str, ...] | None = None

    def __call__(self, x: Float[Array, "n ..."], train: bool = False) -> Any:
        """Returns what the network does."""
        network: Any = self.inner
        return network(x, train)

    @nn.nowrap
    def init(self, *args: Any, **keywords: Any) -> Any:
        """The network's variables."""
        return self.inner.init(*args, **keywords)

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, **keywords: Any) -> Any:
        """The network's answer, with its frozen statistics used and not collected."""
        parts = frozen_parts(variables["params"], self.frozen)

        def held(call: Any, arguments: Any, named: Any, context: Any) -> Any:
            norm = context.module
            collects = isinstance(norm, nn.BatchNorm) and not norm.use_running_average
            if collects and any(norm.path[: len(part)] == part for part in parts):
                return norm.clone(use_running_average=True, parent=None).apply(norm.variables, *arguments)
            return call(*arguments, **named)

        with nn.intercept_methods(held):
            return self.inner.apply(variables, *args, **keywords)


def tl_dmi(*, frozen: tuple[str, ...] | None = None, early_rate: Scalar = 0.0) -> Defense:
    """The defense: the first parts get smaller updates or none, and keep their statistics.

    Args:
      frozen: names of the parts that are held, such as "Conv_0", or patterns such as "body_1?";
        None takes the first half of the parts, see `frozen_parts`.
      early_rate: share of their updates that is taken, 0 to 1; the paper's 0 holds them to the bit.

    Raises:
      ValueError: for a rate outside of 0 to 1 or no name at all; at the first step, for a name that
        no part has, or where None cannot tell which parts come first.

    >>> step = tl_dmi(frozen=("Dense_0",)).optim(optax.sgd(1.0))
    >>> params = {"Dense_0": {"kernel": 1.0}, "Dense_1": {"kernel": 1.0}}
    >>> step.update(params, step.init(params), params)[0]
    {'Dense_0': {'kernel': -0.0}, 'Dense_1': {'kernel': -1.0}}
    """
    fraction(early_rate=early_rate)
    if frozen == ():
        raise ValueError("frozen: (); legal is None or at least one name")

    def model(module: nn.Module) -> nn.Module:
        return PublicStatistics(module, frozen)

    def optim(transform: optax.GradientTransformation) -> optax.GradientTransformation:
        def update(updates: Any, state: Any, params: Any = None) -> Any:
            made: Any = transform.update(updates, state, params)
            updates, state = made
            parts = frozen_parts(updates, frozen)

            def scaled(path: Any, leaf: Any) -> Any:
                names = tuple(entry.key for entry in path)
                early = any(names[: len(part)] == part for part in parts)
                return early_rate * leaf if early else leaf

            return jax.tree_util.tree_map_with_path(scaled, updates), state

        return optax.GradientTransformation(transform.init, update)

    return Defense(model=model, optim=optim)


def frozen_parts(params: Mapping[str, Any], frozen: tuple[str, ...] | None) -> list[tuple[str, ...]]:
    """Paths of the parts that `frozen` names: of what parameters hold below wrappers.

    None is for networks whose parts have Flax's own names, a kind and a number. Of every kind that
    comes more than once it takes the first half by number, rounded down; of a kind that comes once,
    if it is no affine layer, that one. In a network with convolutions no affine layer is taken.

    Raises:
      ValueError: for a name without a part, or names that tell no order.

    >>> affine, convolution, norm = ({"kernel": jax.ShapeDtypeStruct((3,) * n, "float32")} for n in (2, 4, 1))
    >>> frozen_parts({f"Dense_{i}": affine for i in range(5)}, None)
    [('Dense_0',), ('Dense_1',)]
    >>> frozen_parts({"inner": {"Conv_0": convolution, "Dense_0": affine, "Norm_0": norm}}, None)
    [('inner', 'Conv_0'), ('inner', 'Norm_0')]
    """
    above: tuple[str, ...] = ()
    while len(params) == 1 and all(isinstance(leaf, Mapping) for leaf in next(iter(params.values())).values()):
        ((name, params),) = params.items()
        above = (*above, name)
    names = _first_half(params) if frozen is None else []
    for pattern in frozen or ():
        found = fnmatch.filter(sorted(params), pattern)
        if not found:
            raise ValueError(f"frozen: {pattern!r}; legal is one or a pattern of {', '.join(sorted(params))}")
        names += found
    return [(*above, name) for name in dict.fromkeys(names)]


def _first_half(params: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name in sorted(params):
        numbered = re.fullmatch(r"(_?[A-Z]\w*)_(\d+)", name)
        if numbered is None:
            legal = f"a tuple of names or patterns of {', '.join(sorted(params))}"
            raise ValueError(f"frozen: None, but {name!r} does not tell its place in the network; legal is {legal}")
        kinds.setdefault(numbered[1], []).append((int(numbered[2]), name))
    convolutions = any(leaf.ndim == 4 for leaf in jax.tree.leaves(params))
    names = []
    for members in kinds.values():
        affine = any(getattr(params[name].get("kernel"), "ndim", 0) == 2 for _, name in members)
        if not (affine and (convolutions or len(members) == 1)):
            names += [name for _, name in sorted(members)[: max(1, len(members) // 2)]]
    if not names:
        raise ValueError(
            f"frozen: None, and nothing comes before {', '.join(sorted(params))}; legal is a deeper network"
        )
    return names
