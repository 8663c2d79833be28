"""FSHA: a server of split learning that trains a client, not for its task, but into a code which the server can decode.

Pasquini, Ateniese, Bernaschi, "Unleashing the Tiger: Inference Attacks on Split Learning", ACM CCS 2021
(https://arxiv.org/abs/2012.02670), the Feature-Space Hijacking Attack. A client sends features f(x_priv) of its images and
updates f by the gradient that comes back. In the setup phase the server, who has public images, at every iteration

    1. trains a pilot f~ and its inverse f~^-1, an autoencoder:   L = d(f~^-1(f~(x_pub)), x_pub),
    2. trains D to tell the features of both apart:   L_D = log(1 - D(f~(x_pub))) + log D(f(x_priv)),
    3. sends, for the gradient of the task, that by f(x_priv) of   L_f = log(1 - D(f(x_priv))),

until f sends what f~ would. In the inference phase x~ = f~^-1(f(x_priv)), clipped. d is the mean square.
As in what was released, D is a Wasserstein critic with gradient penalty, z^ being between a feature of either:

    L_D = E D(f(x_priv)) - E D(f~(x_pub)) + weight * E (|grad D(z^)| - 1)^2,   L_f = -E D(f(x_priv)).

Distributions are aligned, not images: only what networks of their kinds make of pixels keeps f from sending one image as f~
would another. The client must be there to be trained, so it is simulated: the attack calls `Victim.send` and never sees an
image behind it; pulling the gradient through it stands for sending the client that gradient.

What differs. The sign of D is that of the losses above, high on what is public; the released one is low there, which is the
same game. Its penalty takes norms over height and width, for each channel apart; here the norm is over all features. Images
are in [0, 1], there in [-1, 1]. A private minibatch is drawn with replacement, as large as the public one (64 as released);
the client sends image by image, so that BatchNorm in it knows no batch. Rates, weight and iterations are the released ones.
The paper's inference of properties, its style loss and its answer to a client's distance correlation are not here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, lower
from jaxmia.recipes import score

__all__ = ["CARD", "Victim", "fsha"]

CARD = Card(
    title="FSHA",
    paper="Pasquini, Ateniese, Bernaschi. Unleashing the Tiger: Inference Attacks on Split Learning. ACM CCS 2021",
    url="https://arxiv.org/abs/2012.02670",
    year=2021,
    modality="image",
    access=Access.NONE,
    recovers="the private image that a client trains on",
    knows="public images; the client updates itself by the gradients that it is sent",
    observes="client_index",
)


class Victim(NamedTuple):
    """The client of split learning, as its server meets it.

    Attributes:
      init: `key -> parameters` of its network, a pytree of floats.
      send: `(parameters, index) -> features [...]` of the private image of that index, int32 in [0, images);
        differentiable by the parameters, by which the client updates itself.
      images: how many private images it has.
    """

    init: Callable[[Any], Any]
    send: Callable[[Any, Any], Any]
    images: int


class State(NamedTuple):
    client: Any  # parameters
    encoder: Any  # variables, as the two below
    decoder: Any
    critic: Any
    client_optimizer: Any
    optimizer: Any  # of encoder and decoder
    critic_optimizer: Any


def fsha(
    oracle: Oracle,
    victim: Victim,
    encoder: Any,
    decoder: Any,
    critic: Any,
    *,
    steps: int = 10_000,
    client_rate: Scalar = 1e-5,
    rate: Scalar = 1e-5,
    critic_rate: Scalar = 1e-4,
    gradient_weight: Scalar = 500.0,
) -> Attack:
    """The attack; a case is the index of an image of the client, the output an image in [0, 1].

    Args:
      oracle: any; nothing of it is used.
      victim: the client.
      encoder: f~, a Linen module from images `[n, h, w, c]` to features `[n, ...]` of the shape that the client sends.
      decoder: f~^-1, a Linen module from features `[n, ...]` to images `[n, h, w, c]`.
      critic: D, a Linen module from features to one unbounded score each, `[n]` or `[n, 1]`, without batch statistics
        (they break the penalty of each feature).
      steps: iterations, in each of which all four networks are updated once.
      client_rate: Adam's learning rate of the client.
      rate: Adam's learning rate of f~ and f~^-1.
      critic_rate: Adam's learning rate of D.
      gradient_weight: of the gradient penalty.

    Raises:
      ValueError: for a client without images; when training, for an encoder or decoder of another shape than what the
        client sends and what is public.
    """
    lower(oracle, CARD.access, "image/fsha")
    if victim.images < 1:
        raise ValueError(f"victim: {victim.images} images; legal is 1 or more")
    client_adam, adam, critic_adam = optax.adam(client_rate), optax.adam(rate), optax.adam(critic_rate)

    def judge(variables: Any, features: Any) -> Any:
        return critic.apply(variables, features, train=True).reshape(len(features))

    def rebuild(params: tuple[Any, Any], state: State, x: Any) -> tuple[Any, Any]:
        """Loss 1; with it the features and new batch statistics of both networks."""
        mutable = ["batch_stats"]
        features, coded = encoder.apply({**state.encoder, "params": params[0]}, x, train=True, mutable=mutable)
        guess, decoded = decoder.apply({**state.decoder, "params": params[1]}, features, train=True, mutable=mutable)
        return jnp.mean((guess - x) ** 2), (features, coded, decoded)

    def tell(params: Any, state: State, private: Any, public: Any, mix: Any) -> Any:
        """Loss 2, of a Wasserstein critic."""
        variables = {**state.critic, "params": params}
        slopes = jax.grad(lambda z: jnp.sum(judge(variables, z)))(mix * private + (1 - mix) * public)
        norms = jnp.sqrt(jnp.sum(slopes.reshape(len(slopes), -1) ** 2, 1) + 1e-12)
        apart = jnp.mean(judge(variables, private)) - jnp.mean(judge(variables, public))
        return apart + gradient_weight * jnp.mean((norms - 1) ** 2)

    def hijack(fitted: Any) -> Process:
        """The setup phase; reads out the client's parameters and the variables of f~^-1."""
        del fitted

        def init(key: Any, batch: Any) -> State:
            keys, x = jax.random.split(key, 4), batch["x"]
            client = victim.init(keys[0])
            features, coder = encoder.init_with_output(keys[1], x, train=False)
            sent = jax.eval_shape(victim.send, client, jnp.zeros((), jnp.int32)).shape
            if features.shape[1:] != sent:
                raise ValueError(f"encoder: features {features.shape[1:]}; the client sends {sent}")
            guess, inverse = decoder.init_with_output(keys[2], features, train=False)
            if guess.shape != x.shape:
                raise ValueError(f"decoder: images {guess.shape[1:]}; the public ones are {x.shape[1:]}")
            told = critic.init(keys[3], features, train=False)
            optimizers = (
                client_adam.init(client),
                adam.init((coder["params"], inverse["params"])),
                critic_adam.init(told["params"]),
            )
            return State(client, coder, inverse, told, *optimizers)

        def step(key: Any, state: State, batch: Any) -> tuple[State, Any]:
            pick, between = jax.random.split(key)
            x = batch["x"]
            rows = jax.random.randint(pick, (len(x),), 0, victim.images)
            # The client sends, and keeps how to pull a gradient by what it sent back to its own parameters.
            private, pull = jax.vjp(lambda client: jax.vmap(victim.send, (None, 0))(client, rows), state.client)
            params = (state.encoder["params"], state.decoder["params"])
            (error, aux), by_coder = jax.value_and_grad(rebuild, has_aux=True)(params, state, x)
            public, coded, decoded = aux
            mix = jax.random.uniform(between, (len(x),) + (1,) * (public.ndim - 1))
            apart, by_critic = jax.value_and_grad(tell)(state.critic["params"], state, private, public, mix)
            # Loss 3: what the server sends as if it were the gradient of the task.
            hidden, sent = jax.value_and_grad(lambda z: -jnp.mean(judge(state.critic, z)))(private)
            (by_client,) = pull(sent)

            updates, client_optimizer = client_adam.update(by_client, state.client_optimizer)
            client = optax.apply_updates(state.client, updates)
            updates, optimizer = adam.update(by_coder, state.optimizer)
            coder, inverse = cast(tuple[Any, Any], optax.apply_updates(params, updates))
            updates, critic_optimizer = critic_adam.update(by_critic, state.critic_optimizer)
            told = {**state.critic, "params": optax.apply_updates(state.critic["params"], updates)}
            new = State(
                client,
                {**state.encoder, **coded, "params": coder},
                {**state.decoder, **decoded, "params": inverse},
                told,
                client_optimizer,
                optimizer,
                critic_optimizer,
            )
            return new, info(error, critic=apart, client=hidden)

        return Process(init, step, lambda state: (state.client, state.decoder), steps)

    def solve(fitted: Any) -> Process:
        ((client, inverse),) = fitted

        def decode(key: Any, index: Any) -> Any:
            del key
            features = victim.send(client, index)[None]
            return jnp.clip(decoder.apply(inverse, features, train=False)[0], 0.0, 1.0)

        return score(decode)

    return Attack(solve, (hijack,), observes=CARD.observes)
