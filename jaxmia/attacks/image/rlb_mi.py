"""RLB-MI: an agent learns where in latent space a class lies, from the confidences that the target serves.

Han, Choi, Lee, Kim, "Reinforcement Learning-Based Black-Box Model Inversion Attacks", CVPR 2023
(https://arxiv.org/abs/2304.04625), algorithm 1. Every case trains an agent of its own by soft actor-critic (Haarnoja et
al., 2018). An episode starts at a state s ~ p(z); the action is a = tanh(policy(s)), the next state
s' = alpha * s + (1 - alpha) * a, and the reward (equations 3-6)

    r = w1 log p_y(G(s')) + w2 log p_y(G(a)) + w3 log max(1e-7, p_y(G(s')) - max_{j != y} p_j(G(s'))).

After every episode the policy makes one image for a test; the one of highest confidence so far is the result. With the
paper's alpha = 0 and length = 1 the next state is the action: a bandit, whose two first terms are one.

What differs. In the released code (`released=True`) one noise serves all dimensions and the whole minibatch,
log-probabilities are averaged over dimensions, not summed, both critics start alike (and stay twins), with kernels uniform
in +-1 / sqrt(outputs) and, in the last layer, +-3e-3; the actor starts as PyTorch's layers do and sees the first critic
alone, after its update. (There the critics' temperature is one update old.) Here all episodes are remembered, they do not
fill the paper's 1,000,000, and minibatches are drawn with replacement. An episode asks 2 * length + 1 queries.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.models import Perceptron
from jaxmia.oracle import Access, Oracle, Scores, lower

__all__ = ["CARD", "reward", "rlb_mi"]

CARD = Card(
    title="RLB-MI",
    paper="Han, Choi, Lee, Kim. Reinforcement Learning-Based Black-Box Model Inversion Attacks. CVPR 2023",
    url="https://arxiv.org/abs/2304.04625",
    year=2023,
    modality="image",
    access=Access.SCORES,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people",
)


class Memory(NamedTuple):
    state: Float[Array, "capacity d"]
    action: Float[Array, "capacity d"]
    reward: Float[Array, " capacity"]
    last: Float[Array, " capacity"]  # 1 at the end of an episode
    count: Int[Array, ""]  # written so far


class State(NamedTuple):
    learned: Any  # parameters: "actor", "critics" (two, stacked) and "temperature" (its logarithm)
    aims: Any  # of the critics, trailing
    optimizer: Any
    memory: Memory
    best: Float[Array, " d"]
    confidence: Float[Array, ""]  # of the best
    queries: Int[Array, ""]


def reward(state: Array, action: Array, label: Int[Array, ""], weights: tuple) -> Float[Array, ""]:
    """Equations 3-6, from the scores `[classes]` of the images of the next state and of the action."""
    others = jnp.max(jnp.where(jnp.arange(state.shape[0]) == label, -jnp.inf, state))
    own, done = (jnp.log(jnp.maximum(scores[label], 1e-30)) for scores in (state, action))
    return weights[0] * own + weights[1] * done + weights[2] * jnp.log(jnp.maximum(state[label] - others, 1e-7))


def rlb_mi(
    oracle: Oracle,
    prior: Prior,
    *,
    steps: int = 40_000,
    length: int = 1,
    alpha: Scalar = 0.0,
    weights: tuple[float, float, float] = (2.0, 2.0, 8.0),
    width: int = 256,
    batch: int = 256,
    rate: Scalar = 5e-4,
    discount: Scalar = 0.99,
    trail: Scalar = 0.01,
    released: bool = False,
    budget: int = 120_000,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: score access.
      prior: vector latents; actions are latents in (-1, 1).
      steps: episodes.
      length: steps of the agent in an episode.
      alpha: share of the old state in the next, for diversity.
      weights: w1, w2, w3.
      width: of the hidden layers of actor and critics.
      batch: of an update; the agent learns once more than that is remembered.
      rate: Adam's learning rate, of all networks and the temperature.
      discount: gamma.
      trail: tau, of the trailing critics.
      released: noise, log-probabilities and critics as in the released code, see above.
      budget: most queries per case.

    Raises:
      ThreatModelError: without score access.
      ValueError: for a length, width, batch or steps below 1, a budget below one episode.
    """
    view: Scores = lower(oracle, CARD.access, "image/rlb_mi")
    each = 2 * length + 1
    if min(length, width, batch, steps) < 1:
        raise ValueError(f"length, width, batch, steps: {length, width, batch, steps}; legal is 1 or more of each")
    if budget < each:
        raise ValueError(f"budget: {budget}; legal is at least one episode, {each} queries")
    (d,) = jax.eval_shape(prior.init, jax.random.key(0)).shape
    actor, critic, adam = Perceptron(width, 2 * d), Perceptron(width, 1), optax.adam(rate)

    def act(params: Any, key: Any, states: Any) -> tuple[Any, Any]:
        """Actions `[..., d]` and their log-probabilities `[...]`."""
        out: Any = actor.apply(params, states)
        mean, log_deviation = out[..., :d], jnp.clip(out[..., d:], -20.0, 2.0)
        noise = jax.random.normal(key, () if released else mean.shape)
        action = jnp.tanh(mean + noise * jnp.exp(log_deviation))
        log_density = -0.5 * noise**2 - log_deviation - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(1 - action**2 + 1e-6)
        return action, log_density.mean(-1) if released else log_density.sum(-1)

    def values(params: Any, states: Any, actions: Any) -> Any:
        """Of both critics, `[2, ...]`."""
        out: Any = jax.vmap(critic.apply, in_axes=(0, None))(params, jnp.concatenate([states, actions], -1))
        return out[..., 0]

    def learn(key: Any, learned: Any, aims: Any, optimizer: Any, memory: Memory) -> tuple[Any, Any, Any]:
        pick, ahead, now = jax.random.split(key, 3)
        rows = jax.random.randint(pick, (batch,), 0, memory.count)
        states, actions = memory.state[rows], memory.action[rows]
        following = alpha * states + (1 - alpha) * actions
        next_action, next_density = act(learned["actor"], ahead, following)
        hoped = values(aims, following, next_action).min(0) - jnp.exp(learned["temperature"]) * next_density
        aim = jax.lax.stop_gradient(memory.reward[rows] + discount * (1 - memory.last[rows]) * hoped)

        def criticism(params: Any) -> Any:
            return 0.5 * jnp.mean((values(params["critics"], states, actions) - aim) ** 2, 1).sum()

        def policy(params: Any, critics: Any) -> Any:
            wanted, density = act(params["actor"], now, states)
            judged = values(critics, states, wanted)[: 1 if released else 2].min(0)
            judged -= jnp.exp(jax.lax.stop_gradient(params["temperature"])) * density
            return -jnp.mean(judged + params["temperature"] * jax.lax.stop_gradient(density - d))

        gradient, critics = jax.grad(criticism)(learned), learned["critics"]
        if released:
            ahead_of_actor: Any = adam.update(gradient, optimizer)[0]
            critics = optax.apply_updates(critics, ahead_of_actor["critics"])
        updates, optimizer = adam.update(jax.tree.map(jnp.add, gradient, jax.grad(policy)(learned, critics)), optimizer)
        learned = optax.apply_updates(learned, updates)
        return learned, optax.incremental_update(learned["critics"], aims, trail), optimizer

    def begin(key: Any, network: Perceptron, inputs: int) -> Any:
        """Variables; the released networks' are uniform in +-1 / sqrt(inputs) but for the kernels of critics."""
        variables: Any = network.init(key, jnp.zeros(inputs))
        layers: Any = variables["params"].items() if released else ()
        for k, (name, layer) in zip(jax.random.split(key, 3), layers):
            fan_in, fan_out = layer["kernel"].shape
            bound = fan_in**-0.5 if network is actor else 3e-3 if name == "Dense_2" else fan_out**-0.5
            noise = jax.random.uniform(k, (fan_in + 1, fan_out), minval=-1.0)
            layer |= {"kernel": bound * noise[1:], "bias": fan_in**-0.5 * noise[0]}
        return variables

    def init(key: Any, _: Any) -> State:
        one, two = jax.random.split(key)
        twins = jnp.stack([two, two]) if released else jax.random.split(two)
        critics = jax.vmap(lambda k: begin(k, critic, 2 * d))(twins)
        learned = {"actor": begin(one, actor, d), "critics": critics, "temperature": jnp.zeros(())}
        zero, blank, rows = jnp.zeros((), jnp.int32), jnp.zeros(steps * length), jnp.zeros((steps * length, d))
        memory = Memory(rows, rows, blank, blank, zero)
        return State(learned, critics, adam.init(learned), memory, jnp.zeros(d), jnp.asarray(-1.0, jnp.float32), zero)

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        learned, aims, optimizer, memory = state[:4]
        start, test, *keys = jax.random.split(key, 2 + length)
        s, earned = prior.init(start), jnp.zeros(())
        for t, k in enumerate(keys):
            move, first, second, update = jax.random.split(k, 4)
            a, _ = act(learned["actor"], move, s)
            following = alpha * s + (1 - alpha) * a
            seen, tried = view.answer(first, prior.decode(following)), view.answer(second, prior.decode(a))
            r, at = reward(seen, tried, label, weights), memory.count
            row = [old.at[at].set(new) for old, new in zip(memory[:4], (s, a, r, float(t == length - 1)))]
            memory, before = Memory(row[0], row[1], row[2], row[3], at + 1), (learned, aims, optimizer)
            after, ready = learn(update, learned, aims, optimizer, memory), memory.count > batch
            learned, aims, optimizer = jax.tree.map(lambda new, old: jnp.where(ready, new, old), after, before)
            s, earned = following, earned + r
        z = prior.init(jax.random.fold_in(test, 0))
        for t in range(length):
            a, _ = act(learned["actor"], jax.random.fold_in(test, t + 1), z)
            z = alpha * z + (1 - alpha) * a
        confidence = view.answer(jax.random.fold_in(test, length + 1), prior.decode(z))[label]
        queries, most = state.queries + each, jnp.maximum(confidence, state.confidence)
        new = State(learned, aims, optimizer, memory, jnp.where(most > state.confidence, z, state.best), most, queries)
        return new, info(-most, queries=queries, done=queries + each > budget, reward=earned)

    return Attack(
        lambda fitted: Process(init, step, lambda state: prior.decode(state.best), steps),
        observes=CARD.observes,
    )
