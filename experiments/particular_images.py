"""Image attacks that are after particular images, not classes, and whose victim is no trained classifier to be asked.

    python experiments/particular_images.py     # 40 minutes on a core; what was finished before is found again

The rows that image_attacks.py cannot have: what the adversary sees is a network's parameters beside the rest of its
training set, an update, or what a client sends in split learning. ORL faces and MNIST digits at 32 pixels, all classes; a
seed draws which half of the images is private and which the adversary's own, the networks and the attacks. Settings:
configs/particular_images.yaml, in sizes for a CPU, so a row tells of the attack at that size and not of the numbers of its
paper.

Each reconstruction is compared with the very image that it is of. `named` is the share of reconstructions to which, in
pixels, this image is the nearest of all attacked ones of the seed. The control is the reconstruction made for another of
the attacked images; that of `kkt`, which tells not which image is which and of which the candidate nearest to an image
counts, is what the attack finds in a network trained on other images. Means over seeds with a 95 % bootstrap interval over
images; `beats_control`: the intervals of `ssim` are apart. Writes results/particular_images.csv and a picture for each data
set.
"""

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
import yaml
from orl import HERE
from PIL import Image, ImageDraw

from jaxmia import Access, Plan, Scenario, attacks, config, fit, from_function, from_linen, models, run, train
from jaxmia.attacks.image.fsha import Victim, fsha
from jaxmia.attacks.image.informed_adversary import informed_adversary
from jaxmia.attacks.image.kkt import kkt, softened
from jaxmia.attacks.image.query_free import query_free
from jaxmia.attacks.image.unsplit import unsplit
from jaxmia.attacks.image.updates_leak import updates_leak
from jaxmia.audit import folder
from jaxmia.data import minibatches, mnist, orl
from jaxmia.metrics.estimate import bootstrap
from jaxmia.metrics.image import psnr, ssim
from jaxmia.models.convolution import Conv
from jaxmia.models.pooling import max_pool

SHAPE = (32, 32, 1)


class Data(NamedTuple):
    """What a seed draws; rows in random order."""

    private: dict[str, np.ndarray]  # "x" [n, 32, 32, 1] in [0, 1], "y" [n]
    own: dict[str, np.ndarray]  # the adversary's, of the same classes
    classes: int
    seed: int

    @property
    def key(self) -> Any:
        """Of the attack."""
        return jax.random.key(self.seed)

    @property
    def batches(self) -> Callable[[int], Any]:
        """Minibatches of the adversary's images."""
        return minibatches(self.own, 32, self.seed)


class Found(NamedTuple):
    """Reconstructions, the images that they are of, and what a control reconstructs for these: [n, 32, 32, 1] each."""

    images: Any
    truth: Any
    control: Any


class Client(nn.Module):
    """The first layers of the network of split learning: one convolution."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return max_pool(nn.relu(Conv(16, (3, 3))(x)), (2, 2))


class Server(nn.Module):
    """Its last layers, features to logits."""

    classes: int

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = max_pool(nn.relu(Conv(32, (3, 3))(x)), (2, 2))
        return nn.Dense(self.classes)(nn.relu(nn.Dense(64)(x.reshape(len(x), -1))))


class Network(nn.Module):
    """Both."""

    classes: int

    def setup(self) -> None:
        self.client, self.server = Client(), Server(self.classes)

    def __call__(self, x: Any, train: bool = False) -> Any:
        return self.server(self.client(x))


class Critic(nn.Module):
    """What tells the features of two clients apart."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        for width in (32, 64):
            x = nn.relu(Conv(width, (3, 3), strides=2)(x))
        return nn.Dense(1)(x.reshape(len(x), -1))


def draw(dataset: str, seed: int) -> Data:
    """At most 4,000 images, half of them private."""
    images = mnist.load(SHAPE[0]) if dataset == "mnist" else orl.load(*SHAPE[:2])
    rows = np.random.default_rng(seed).permutation(len(images.labels))[:4000]
    both = [
        {"x": images.images[half].astype(np.float32) / 255, "y": images.labels[half]}
        for half in np.array_split(rows, 2)
    ]
    return Data(*both, len(images.names), seed)


def trained(data: Data, steps: int = 500) -> Any:
    """Variables of a `Network` that learned the private images."""
    process = train.supervised(Network(data.classes), optax.adam(1e-3), steps=steps)
    return fit(process, data.key, minibatches(data.private, 32, data.seed), plan=Plan(progress=False))[0]


def part(variables: Any, name: str) -> Any:
    """Of the client's or the server's half."""
    return {"params": variables["params"][name]}


def recover(attack: Any, data: Data, target: Any, cases: Any, chunk: int | None = None) -> Any:
    """What the attack puts out for all cases."""
    scenario = Scenario(target, cases, public=data.batches)
    return run(attack, data.key, scenario, plan=Plan(chunk=chunk, progress=False)).output


def swapped(images: Any, truth: Any) -> Found:
    """The control is the reconstruction of another image."""
    return Found(images, truth, np.roll(images, 1, 0))


def attack_informed(data: Data, *, records: int, attacked: int, decay: float) -> Found:
    """Of logistic regression at its minimum, found by L-BFGS; every one of the records is the missing one in turn."""
    x, y = (data.private[name][:records] for name in ("x", "y"))

    def logits(params: Any, x: Any) -> Any:
        return x.reshape(len(x), -1) @ params["w"] + params["b"]

    def total(params: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
        return jnp.sum(losses) + decay * jnp.sum(params["w"] ** 2) / 2

    optimizer, slope = optax.lbfgs(), optax.value_and_grad_from_state(total)

    def step(_: Any, state: Any) -> Any:
        params, opt = state
        value, gradient = slope(params, state=opt)
        updates, opt = optimizer.update(gradient, opt, params, value=value, grad=gradient, value_fn=total)
        return optax.apply_updates(params, updates), opt

    params = {"w": jnp.zeros((x[0].size, data.classes)), "b": jnp.zeros(data.classes)}
    params, _ = jax.jit(lambda: jax.lax.fori_loop(0, 300, step, (params, optimizer.init(params))))()
    target = from_function(logits, params, classes=data.classes)
    others = [np.delete(np.arange(records), i) for i in range(attacked)]
    cases = {"x": np.stack([x[rows] for rows in others]), "y": np.stack([y[rows] for rows in others])}
    attack = informed_adversary(target.view(Access.WEIGHTS), decay=decay)
    return swapped(recover(attack, data, target, cases), x[:attacked])


def attack_kkt(data: Data, *, records: int, width: int, decay: float, train_steps: int, **settings: Any) -> Found:
    """Of two networks without biases but in the first layer, each of which told odd from even labels of few images."""
    mean = data.own["x"].mean(0)
    labels = np.repeat(np.arange(2, dtype=np.int32), records // 2)
    odd = data.private["y"] % 2
    by_class = [data.private["x"][odd == label] for label in (0, 1)]
    sets = [np.concatenate([x[i * records // 2 : (i + 1) * records // 2] for x in by_class]) for i in (0, 1)]

    def logits(params: Any, x: Any, activation: Any = nn.relu) -> Any:
        return activation((x - mean).reshape(len(x), -1) @ params["hidden"] + params["bias"]) @ params["top"]

    def network(params: Any, image: Any) -> Any:
        return logits(params, image[None], softened(150.0))[0]

    @jax.jit
    def minimum(x: Any) -> Any:
        def loss(params: Any) -> Any:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), labels)
            return jnp.sum(losses) + decay * optax.tree.norm(params, squared=True) / 2

        def step(_: Any, state: Any) -> Any:
            updates, opt = adam.update(jax.grad(loss)(state[0]), state[1])
            return optax.apply_updates(state[0], updates), opt

        adam = optax.adam(optax.cosine_decay_schedule(3e-3, train_steps))
        one, two = jax.random.split(data.key)
        start = {
            "hidden": 0.01 * jax.random.normal(one, (mean.size, width)),
            "bias": jnp.zeros(width),
            "top": 0.1 * jax.random.normal(two, (width, 2)),
        }
        return jax.lax.fori_loop(0, train_steps, step, (start, adam.init(start)))[0]

    found = []
    for x in sets:
        target = from_function(logits, minimum(x), classes=2)
        attack = kkt(target.view(Access.WEIGHTS), SHAPE, mean, network=network, **settings)
        found.append(recover(attack, data, target, np.repeat(np.arange(2, dtype=np.int32), records)[None]).image[0])

    def nearest(candidates: Any, x: Any) -> Any:
        return candidates[np.sum((candidates[None] - x[:, None]) ** 2, (2, 3, 4)).argmin(1)]

    pairs = [(nearest(found[i], sets[i]), sets[i], nearest(found[1 - i], sets[i])) for i in (0, 1)]
    return Found(*(np.concatenate(three) for three in zip(*pairs)))


def attack_updates_leak(
    data: Data, *, attacked: int, train_steps: int, rate: float, width: int, **settings: Any
) -> Found:
    """Of a network updated with one private image after another, each time anew, that it did not learn before."""
    fresh = {name: rows[:attacked] for name, rows in data.private.items()}
    network = models.MLP(data.classes, width=64)
    others = {name: rows[attacked:] for name, rows in data.private.items()}
    process = train.supervised(network, optax.adam(1e-3), steps=train_steps)
    params = fit(process, data.key, minibatches(others, 32, data.seed), plan=Plan(progress=False))[0]["params"]
    target = from_linen(network, {"params": params}, classes=data.classes)
    gallery = jnp.asarray(data.own["x"])

    def after(x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = network.apply({"params": params}, x[None])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[None])[0]

        updated = jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, jax.grad(loss)(params))
        return jax.nn.softmax(network.apply({"params": updated}, gallery[:100]))  # so many probes are the default

    cases = np.asarray(jax.vmap(after)(fresh["x"], fresh["y"]))
    attack = updates_leak(
        target.view(Access.SCORES), network, models.InversionDecoder(SHAPE, width), gallery,
        update_rate=rate, shadow_steps=train_steps, **settings,
    )  # fmt: skip
    return swapped(recover(attack, data, target, cases).image, fresh["x"])


def sent(data: Data, attacked: int) -> tuple[Any, Any, Any]:
    """A trained network's variables, private images and what its client sends of them."""
    variables, x = trained(data), data.private["x"][:attacked]
    return variables, x, np.asarray(Client().apply(part(variables, "client"), x))


def attack_query_free(data: Data, *, attacked: int, **settings: Any) -> Found:
    """By the server, with images of its own that have labels."""
    variables, x, features = sent(data, attacked)
    target = from_linen(Server(data.classes), part(variables, "server"), classes=data.classes)
    attack = query_free(target.view(Access.WEIGHTS), Client(), SHAPE, **settings)
    return swapped(recover(attack, data, target, features), x)


def attack_unsplit(data: Data, *, attacked: int, **settings: Any) -> Found:
    """By a server that knows the client's architecture alone."""
    variables, x, features = sent(data, attacked)
    target = from_linen(Client(), part(variables, "client"), classes=data.classes)
    attack = unsplit(target.view(Access.NONE), Client(), SHAPE, **settings)
    return swapped(recover(attack, data, target, features, chunk=1), x)


def attack_fsha(data: Data, *, attacked: int, width: int, **settings: Any) -> Found:
    """By a server with images of its own that trains a client on the private ones from its first step."""
    private = jnp.asarray(data.private["x"])
    victim = Victim(
        init=lambda key: Client().init(key, private[:1]),
        send=lambda params, index: Client().apply(params, private[index][None])[0],
        images=len(private),
    )
    # Of the target nothing is used but that a case is the number of an image, where others have that of a class.
    target = from_function(lambda params, x: x, {}, classes=len(private))
    attack = fsha(target.view(Access.NONE), victim, Client(), models.MapDecoder(SHAPE, width), Critic(), **settings)
    return swapped(recover(attack, data, target, np.arange(attacked, dtype=np.int32)), data.private["x"][:attacked])


ATTACKS: dict[str, Callable[..., Found]] = {
    "informed_adversary": attack_informed,
    "kkt": attack_kkt,
    "updates_leak": attack_updates_leak,
    "query_free": attack_query_free,
    "unsplit": attack_unsplit,
    "fsha": attack_fsha,
}
SETTINGS = yaml.safe_load((HERE.parent / "configs" / "particular_images.yaml").read_text())


def cell(dataset: str, name: str, seed: int, runs: pathlib.Path) -> dict[str, np.ndarray]:
    """One attack of one seed, run or found."""
    settings = SETTINGS[name]
    file = runs / f"{dataset}-{name}-{seed}-{config.digest({'attack': settings})[:12]}.npz"
    if not file.exists():
        began, found = time.perf_counter(), ATTACKS[name](draw(dataset, seed), **settings)
        arrays = {field: np.clip(np.asarray(images), 0, 1) for field, images in found._asdict().items()}
        folder.write_npz(file, **arrays, seconds=np.asarray(time.perf_counter() - began))
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def judged(images: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Of each image."""
    far = np.sum((images[:, None] - truth[None]) ** 2, (2, 3, 4))
    return {
        "ssim": ssim(images, truth),
        "psnr": psnr(images, truth),
        "named": (far.argmin(1) == np.arange(len(truth))).astype(float),
    }


def row(dataset: str, name: str, found: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """What the table says of one attack."""
    card = attacks.get(f"image/{name}").card
    out = {
        "dataset": dataset,
        "attack": name,
        "title": card.title,
        "access": card.access.name,
        "knows": card.knows,
        "observes": card.observes,
        "settings": "; ".join(f"{key}={value}" for key, value in SETTINGS[name].items()),
        "images": sum(len(one["truth"]) for one in found),
        "seconds_per_image": round(min(float(one["seconds"]) / len(one["truth"]) for one in found), 2),
    }
    for metric in ("ssim", "psnr", "named"):
        both = [
            bootstrap(np.concatenate([judged(one[kind], one["truth"])[metric] for one in found]))
            for kind in ("images", "control")
        ]
        for kind, estimate in zip(("", "control_"), both):
            for end, value in zip(("", "_low", "_high"), record.interval(estimate)):
                out[f"{kind}{metric}{end}"] = value
        if metric == "ssim":
            out["beats_control"] = both[0].low > both[1].high
    return out


def sheet(found: dict[str, dict[str, np.ndarray]], columns: int = 10) -> Image.Image:
    """For each attack the private images, and below them what it made of them."""
    tall, left = SHAPE[0], 130
    picture = Image.new("L", (left + columns * SHAPE[1], (2 * tall + 6) * len(found)), 255)
    for line, (name, arrays) in enumerate(found.items()):
        top = line * (2 * tall + 6)
        ImageDraw.Draw(picture).text((2, top + tall - 6), name, fill=0)
        for below, kind in enumerate(("truth", "images")):
            strip = np.concatenate(list(arrays[kind][:columns, ..., 0]), 1)
            picture.paste(Image.fromarray((255 * strip).round().astype(np.uint8)), (left, top + below * tall))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description="Attacks on particular images of ORL and MNIST, beside a control.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of halves, trainings and attacks")
    parser.add_argument("--datasets", nargs="+", default=["orl", "mnist"], choices=["orl", "mnist"])
    parser.add_argument("--runs", type=pathlib.Path, default=HERE.parent / "runs" / "particular_images")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds: {min(options.seeds)}; legal is 0 or more")
    options.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    options.output.mkdir(parents=True, exist_ok=True)
    began, rows = time.perf_counter(), []
    for dataset in options.datasets:
        first = {}
        for name in ATTACKS:
            found = [cell(dataset, name, seed, options.runs) for seed in options.seeds]
            first[name] = found[0]
            rows.append(row(dataset, name, found))
            shown = ("ssim", "control_ssim", "psnr", "control_psnr", "named", "control_named", "beats_control")
            print(dataset, name, *(f"{key} {rows[-1][key]}" for key in shown), flush=True)
        sheet(first).save(options.output / f"particular_images_{dataset}.png")
    record.write_rows(rows, options.output, "particular_images")
    record.write(record.header(__file__, options.seeds), began, options.output, "particular_images")


if __name__ == "__main__":
    main()
