"""The nouns of jaxmia: Process, Attack, Prior, Objective, Defense, Card, Scenario.

The field's formula is: find x that minimizes L_id(f(x), y) + lambda * R_prior(x; K), given access to a model f and
prior knowledge K. An objective, a prior, an oracle (access to f) and iteration. Everything that iterates is a
`Process`; an `Attack` is a short chain of them. This module imports nothing of jaxmia.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

__all__ = [
    "WORST",
    "Attack",
    "Card",
    "Cases",
    "Defense",
    "Fitted",
    "Guard",
    "Info",
    "Objective",
    "Prior",
    "Process",
    "Scalar",
    "Scenario",
    "info",
    "tree_where",
]

Key = PRNGKeyArray
Scalar = float | Float[Array, ""]
"""A hyperparameter that may be swept: a number, or a traced one."""
State = Any
Output = Any
Latent = Any
Candidate = Any
Answer = Any
Case = Any
Fitted = tuple[Any, ...]


class Info(NamedTuple):
    """What one step tells about one case; it dies after the step, the engine keeps the last one of every case.

    Attributes:
      loss: the loss of the step, lower is better.
      queries: target queries spent on this case so far, initialization included.
      done: the case asks to stop; the engine freezes it after this step.
      extra: the attack's own scalars by name.
    """

    loss: Float[Array, ""]
    queries: Int[Array, ""]
    done: Bool[Array, ""]
    extra: dict[str, Array]


def info(loss: Any, *, queries: Any = 0, done: Any = False, **extra: Any) -> Info:
    """An `Info` of strongly typed scalars (float32 loss, int32 queries, bool done)."""
    return Info(
        jnp.asarray(loss, jnp.float32),
        jnp.asarray(queries, jnp.int32),
        jnp.asarray(done, bool),
        {name: jnp.asarray(value) for name, value in extra.items()},
    )


def _queries(state: Any) -> Any:
    return getattr(state, "queries", 0)


class Process(NamedTuple):
    """Anything that iterates, as three pure functions of ONE case (the engine vmaps) or of one training run.

    Attributes:
      init: `(key, data) -> state`; the key is consumed.
      step: `(key, state, data) -> (state, Info)`; state keeps its shapes and (strong) dtypes; the key is consumed.
      read: `state -> output`.
      steps: the budget the paper gives, used when the caller names none. Zero steps is a score: init does the work.
      asked: `state -> int`, the target queries that init spent; by default the state's field `queries`, if it has one.
    """

    init: Callable[[Key, Any], State]
    step: Callable[[Key, State, Any], tuple[State, Info]]
    read: Callable[[State], Output]
    steps: int = 0
    asked: Callable[[State], Any] = _queries


class Cases(NamedTuple):
    """A training stage of many parts: a process that runs once for each of its own cases, as `solve` does.

    What it reads out has the case axis first, `[n, ...]`, in numpy arrays: it need not fit a device.

    Attributes:
      process: of one case.
      cases: pytree of arrays with a leading case axis.
    """

    process: Process
    cases: Any


class Attack(NamedTuple):
    """A chain of processes: `train` stages run once on public data, `solve` runs once per case.

    Attributes:
      solve: takes what the training stages read out (a tuple, empty without stages) and gives the per-case process.
      train: stage i takes the outputs of the stages before it and gives a process over public minibatches, or `Cases`.
      observes: what a case is, as in its `Card`; "" where nobody said.
      check: `(cases, classes) -> None`, called before anything runs; raises a ValueError for cases, as numpy arrays, that
        the attack can tell are wrong. None: there is nothing else to check.
    """

    solve: Callable[[Fitted], Process]
    train: tuple[Callable[[Fitted], Process | Cases], ...] = ()
    observes: str = ""
    check: Callable[[Any, int | None], None] | None = None


class Prior(NamedTuple):
    """Where candidates live and what is believed about them, for one candidate.

    Attributes:
      init: `key -> latent`; the key is consumed.
      decode: `latent -> candidate` (image, soft tokens, adjacency, record).
      penalty: `(latent, candidate) -> scalar`, R_prior; zero when nothing is believed.
      project: `latent -> latent`, onto the feasible set.
      blocks: of a generator that can be entered between them, see `priors.chain`; `decode` is all of them, one after the
        other. Empty for a generator that is a whole.
    """

    init: Callable[[Key], Latent]
    decode: Callable[[Latent], Candidate]
    penalty: Callable[[Latent, Candidate], Float[Array, ""]]
    project: Callable[[Latent], Latent]
    blocks: tuple[Callable[[Any, Latent], Any], ...] = ()


WORST = float(np.finfo(np.float32).max)
"""The loss of a candidate not yet judged: finite, since a state with infinities counts as failed."""

Objective = Callable[[Answer, Case], Float[Array, ""]]
"""L_id of ONE candidate: the oracle's answer and the case (often a class index) give a scalar; batched by vmap."""


def _same(value: Any) -> Any:
    return value


def _same_second(_: Any, value: Any) -> Any:
    return value


def _same_edges(_: Any, edges: Any, nodes: int) -> Any:
    return edges


def _value_and_grad(loss: Callable) -> Callable:
    return jax.value_and_grad(loss, has_aux=True)


class Defense(NamedTuple):
    """Hooks, each the identity by default, or None where there is none; a defense sets the ones it needs.

    Attributes:
      model: `module -> module` (bottlenecks, skip removal).
      data: `(key, batch) -> batch`, on training minibatches, traced.
      graph: `(key, edges [m, 2], nodes) -> edges [k, 2]`, int32, of an undirected graph: nodes i < j, each pair once, in
        order, before and after. Called once, before the training, on the host and never traced, since the number of edges
        changes; the graph that comes out is trained on and answered from. Noise that is drawn anew with every minibatch or
        query would average out, and spend its epsilon as often. The key is as secret as the edges.
      loss: `loss -> loss`, where a loss is `(outputs, batch) -> scalar`; outputs has `logits [n, classes]` and
        `features`, a dict of named hidden features `[n, ...]`.
      grads: `loss -> value_and_grad`, how gradients are taken (DP-SGD clips and adds noise here). The loss is
        `(params, key, batch) -> (scalar, aux)`, the result `(params, key, batch) -> ((scalar, aux), gradients)`.
      optim: `optax transformation -> optax transformation` (freezing).
      trainer: `Process -> Process`, for defenses with an adversary of their own.
      answer: `(key, answer) -> answer`, at serving time, of scores and of the labels made of them (rounding, noise).
      send: `(key, feature) -> feature`, of what a client sends in split inference. The key of both is the target's, which
        draws it from a secret and from the query: equal queries meet equal noise, whatever key the adversary has.
      guard: an answer that must be fitted after the training; None where `answer` is known before.
      batches: `(arrays, size, seed) -> (step -> minibatch)` of `size` examples, expected; None draws them in epochs. A
        defense whose guarantee needs it is void without, and guards nothing that was trained before.
      spent: `(size, examples, steps) -> ` what its guarantee came to, in words; None where there is none.
      couples: whether its loss or data tie the examples of a minibatch together, so that no example has a gradient of its
        own, and a defense that takes gradients example by example is no partner.
      keeps_label: the promise that `answer` never moves the largest score. Then the labels that are served are those of
        the undefended model, to the bit, also where scores become equal.
    """

    model: Callable[[Any], Any] = _same
    data: Callable[[Key, Any], Any] = _same_second
    graph: Callable[[Key, Any, int], Any] = _same_edges
    loss: Callable[[Callable], Callable] = _same
    grads: Callable[[Callable], Callable] = _value_and_grad
    optim: Callable[[Any], Any] = _same
    trainer: Callable[[Process], Process] = _same
    answer: Callable[[Key, Answer], Answer] = _same_second
    send: Callable[[Key, Answer], Answer] = _same_second
    guard: "Guard | None" = None
    batches: Callable[[dict[str, Any], int, int], Callable[[int], Any]] | None = None
    spent: Callable[[int, int, int], str] | None = None
    couples: bool = False
    keeps_label: bool = False

    def guarded(self, fitted: Any) -> "Defense":
        """The same defense with the answer that its guard makes of what the guard's process read out."""
        return self if self.guard is None else self._replace(answer=self.guard.answer(fitted), guard=None)


class Guard(NamedTuple):
    """An answer that is fitted once the target is trained, on held-out validation data.

    Attributes:
      fit: `scores -> Process`, whose data are minibatches {"x" `[n, ...]`, "y" `[n]`} and where `scores`, `(key, x) ->` the
        answer to one candidate, is what the target would serve without it.
      answer: `what the process read out -> (key, answer) -> answer`.
    """

    fit: Callable[[Callable[[Key, Any], Answer]], Process]
    answer: Callable[[Any], Callable[[Key, Answer], Answer]]


class Card(NamedTuple):
    """What a method is, read by the README table, reports and contract tests; one per attack or defense module.

    Attributes:
      title: the method's name in the literature.
      paper: authors, title, venue.
      url: where the paper is.
      year: of publication.
      modality: "image", "text", "graph" or "tabular"; "any" for a defense that does not care.
      access: the least `oracle.Access` an attack works with; None for a defense.
      recovers: what an attack gives back; "" for a defense.
      knows: the prior knowledge K an attack is given; "" for a defense.
      observes: what a case holds: "label" (a class index), "scores" (a served score vector) or the attack's own.
      hook: the `Defense` fields a defense sets; "" for an attack.
    """

    title: str
    paper: str
    url: str
    year: int
    modality: str
    access: Any = None
    recovers: str = ""
    knows: str = ""
    observes: str = "label"
    hook: str = ""


class Scenario(NamedTuple):
    """One experiment's setting, built outside the attack.

    Attributes:
      target: a `target.Target`; an attack gets one lowered view of it, never the object.
      cases: pytree with a leading case axis: what the adversary observes (labels, scores, partial records).
      truth: what is to be recovered; it goes to metrics and nowhere else.
      public: `step -> minibatch` of auxiliary data for training stages; None without.
    """

    target: Any
    cases: Any
    truth: Any = None
    public: Callable[[int], Any] | None = None


def tree_where(condition: Bool[Array | np.ndarray, " n"], new: Any, old: Any) -> Any:
    """Choose whole cases: leaf `[n, ...]` of `new` where `condition[n]`, else of `old` (typed keys included)."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
