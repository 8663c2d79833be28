"""The Secret Sharer (Carlini et al. 2019): what a character model gives away of numbers in its training text.

    python experiments/secret_sharer.py

A small LSTM reads one genre of the Brown corpus. Sentences "the random number is ddddd" are planted in it, five numbers
each 1, 4, 16 and 64 times, in rows of 65 characters; each copy overwrites a part of another row. The adversary knows the
sentence, sees log-probabilities of the next character, and scores all 10^5 numbers. Exposure is log2(10^5) - log2(rank),
exact here since the whole space is scored; beside it stand the paper's estimates from a sample of 2000 numbers. 1000
numbers that are planted nowhere are the control: 1.44 bits is chance. Five numbers share the sentence, so at best
they rank 1 to 5, a mean exposure of 15.2.

Models, all with the same rows:
  plain     Adam, no defense.
  dp_0.6    DP-SGD with noise multiplier 0.6, the same number of epochs.
  dp_2      DP-SGD with noise multiplier 2.
  short_6   plain, but 6 epochs: fits held-out text about as well as dp_0.6.
  short_3   plain, but 3 epochs: fits held-out text about as well as dp_2.
The last two tell what privacy does from what a worse fit does. Epsilon (delta 1e-5) is for one row, that is one copy:
64 copies are protected by far less.

Held-out text is a tenth of the documents. Intervals are 95 % and bootstrap numbers (exposure) or documents (bits per
character); numbers of one training count as independent, and there are few trainings: see `per_seed`.
"""

import argparse
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import record

from jaxmia import Access, Plan, Scenario, Status, fit, from_linen, run, train
from jaxmia.attacks.text.secret_sharer import secret_sharer
from jaxmia.data import brown
from jaxmia.data.batches import minibatches
from jaxmia.defenses.dp_sgd import dp_sgd, epsilon, poisson_batches
from jaxmia.metrics.estimate import bootstrap, difference
from jaxmia.metrics.privacy import exposure_by_sampling, exposure_exact
from jaxmia.models.language import LSTMLanguageModel

GENRE, WIDTH = "lore", 64
PREFIX, SUFFIX, DIGITS = "\nthe random number is ", "\n", 5
SPACE = 10**DIGITS
TIMES = (1, 4, 16, 64)
CANARIES, CONTROLS, SAMPLE = 5, 1000, 2000
LENGTH = 64  # characters that a row predicts
DELTA = 1e-5
PLAN = Plan(progress=False)
BEST = float(np.mean(np.log2(SPACE / np.arange(1, CANARIES + 1))))


class Training(NamedTuple):
    """Epochs, and the noise multiplier of DP-SGD (None: no defense)."""

    epochs: int
    noise: float | None = None


MODELS = {
    "plain": Training(20),
    "dp_0.6": Training(20, 0.6),
    "short_6": Training(6),
    "dp_2": Training(20, 2.0),
    "short_3": Training(3),
}
# a model with DP-SGD has the color of the one that fits held-out text about as well
COLORS = {"plain": "black", "dp_0.6": "tab:blue", "short_6": "tab:blue", "dp_2": "tab:red", "short_3": "tab:red"}
PAIRS = (("plain", "dp_0.6"), ("short_6", "dp_0.6"), ("plain", "dp_2"), ("short_3", "dp_2"))


class Corpus(NamedTuple):
    """One genre, by document, as character codes."""

    documents: list[np.ndarray]
    characters: str

    def encode(self, text: str) -> np.ndarray:
        return np.array([self.characters.index(c) for c in text], np.int32)


class Numbers(NamedTuple):
    """Of one seed, all different: planted `[times, canaries]`, and never planted."""

    planted: np.ndarray
    controls: np.ndarray
    sample: np.ndarray


class Found(NamedTuple):
    """What one model of one seed gives: utility per held-out row, exposures, and what was extracted."""

    bits: np.ndarray  # [rows], bits per character
    exact: np.ndarray  # [times, canaries]
    by_rank: np.ndarray
    by_skew_normal: np.ndarray
    fit_p_value: float
    controls: np.ndarray  # [controls], exact
    extracted: int  # how many times the likeliest number was planted
    epsilon: float | None


def load() -> Corpus:
    texts = brown.load()
    # all of Brown, so that the vocabulary tells nothing about the genre
    characters = "".join(sorted(set("".join(texts.documents))))
    code = {c: i for i, c in enumerate(characters)}
    documents = [d for d, genre in zip(texts.documents, texts.genres, strict=True) if genre == GENRE]
    return Corpus([np.array([code[c] for c in d], np.int32) for d in documents], characters)


def rows_of(corpus: Corpus, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows `[n, LENGTH + 1]`, none of which crosses documents, and the document of each."""
    width = LENGTH + 1
    parts = [corpus.documents[d][: len(corpus.documents[d]) // width * width].reshape(-1, width) for d in documents]
    return np.concatenate(parts), np.repeat(documents, [len(part) for part in parts])


def draw(seed: int) -> Numbers:
    numbers = np.random.default_rng((seed, 1)).permutation(SPACE)
    planted, controls, rest = np.split(numbers, np.cumsum([len(TIMES) * CANARIES, CONTROLS]))
    return Numbers(planted.reshape(len(TIMES), CANARIES), controls, rest[:SAMPLE])


def plant(corpus: Corpus, rows: np.ndarray, numbers: Numbers, seed: int) -> np.ndarray:
    """The rows with a sentence written over a part of as many different ones as there are copies."""
    rng = np.random.default_rng((seed, 2))
    copies = np.concatenate([np.repeat(some, times) for some, times in zip(numbers.planted, TIMES, strict=True)])
    rows = rows.copy()
    for row, number in zip(rng.choice(len(rows), len(copies), replace=False), copies, strict=True):
        sentence = corpus.encode(f"{PREFIX}{number:0{DIGITS}}{SUFFIX}")
        start = rng.integers(0, LENGTH + 2 - len(sentence))
        rows[row, start : start + len(sentence)] = sentence
    return rows


def fit_model(module: LSTMLanguageModel, rows: np.ndarray, how: Training, seed: int) -> tuple[Any, float | None]:
    """Its variables and, with DP-SGD, the epsilon that was spent."""
    arrays, key = {"x": rows[:, :-1], "y": rows[:, 1:]}, jax.random.key(seed)
    batch = 64 if how.noise is None else 256
    steps = how.epochs * len(rows) // batch
    if how.noise is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))
        process = train.supervised(module, optimizer, steps=steps)
        return fit(process, key, minibatches(arrays, batch, seed), plan=PLAN)[0], None
    rate = batch / len(rows)
    # 8 gradients of this LSTM at a time: 24 ms for 64 rows, against 99 one by one and 46 all at once
    defense = dp_sgd(float(batch), clip_norm=1.0, noise_multiplier=how.noise, microbatch=8)
    process = train.supervised(module, optax.adam(1e-2), steps=steps, defense=defense)
    variables, _ = fit(process, key, poisson_batches(arrays, rate, seed=seed), plan=PLAN)
    return variables, epsilon(noise_multiplier=how.noise, rate=rate, steps=steps, delta=DELTA)


def log_perplexities(corpus: Corpus, module: LSTMLanguageModel, variables: Any) -> np.ndarray:
    """What the attack finds, of every number."""
    target = from_linen(
        module,
        variables,
        classes=len(corpus.characters),
        granted=Access.SCORES,
        serve=lambda outputs: jax.nn.log_softmax(outputs.logits),
    )
    attack = secret_sharer(target.view(Access.SCORES), [corpus.encode("0123456789")] * DIGITS)
    cases = {"prefix": corpus.encode(PREFIX)[None], "suffix": corpus.encode(SUFFIX)[None]}
    result = run(attack, jax.random.key(0), Scenario(target, cases), plan=PLAN)
    if result.status[0] != Status.RUNNING:
        raise FloatingPointError("the attack met log-probabilities that are not finite")
    return result.output.log_perplexity[0]


def judge(scores: np.ndarray, numbers: Numbers) -> dict[str, Any]:
    ordered = np.sort(scores)

    def exposure(some: np.ndarray) -> np.ndarray:
        # ties count against a number
        ranks = np.searchsorted(ordered, scores[some.ravel()], side="right")
        return exposure_exact(ranks, SPACE).reshape(some.shape)

    sampled = exposure_by_sampling(scores[numbers.planted.ravel()], scores[numbers.sample])
    planted = (numbers.planted == scores.argmin()).any(1)
    return {
        "exact": exposure(numbers.planted),
        "by_rank": sampled.by_rank.reshape(numbers.planted.shape),
        "by_skew_normal": sampled.by_skew_normal.reshape(numbers.planted.shape),
        "fit_p_value": sampled.fit_p_value,
        "controls": exposure(numbers.controls),
        "extracted": int(np.dot(planted, TIMES)),
    }


def bits_per_character(module: LSTMLanguageModel, variables: Any, rows: np.ndarray) -> np.ndarray:
    logits = train.predict(module, variables, rows[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:])
    return np.asarray(losses, np.float64).mean(1) / math.log(2)


def unigram_bits(rows: np.ndarray, held_out: np.ndarray, characters: int) -> float:
    """Bits per held-out character by the frequencies of the training rows: what a model that ignores context reaches."""
    counts = np.bincount(rows.ravel(), minlength=characters) + 1
    return float(-np.log2(counts / counts.sum())[held_out[:, 1:]].mean())


def run_seed(corpus: Corpus, seed: int) -> tuple[dict[str, Found], np.ndarray, dict[str, Any]]:
    """What every model gives, the document of each held-out row, and sizes."""
    order = np.random.default_rng((seed, 0)).permutation(len(corpus.documents))
    held = len(order) // 10
    held_out, documents = rows_of(corpus, order[:held])
    rows, _ = rows_of(corpus, order[held:])
    numbers = draw(seed)
    rows = plant(corpus, rows, numbers, seed)
    module = LSTMLanguageModel(len(corpus.characters), width=WIDTH, layers=1)
    found = {}
    for name, how in MODELS.items():
        began = time.perf_counter()
        variables, spent = fit_model(module, rows, how, seed)
        bits = bits_per_character(module, variables, held_out)
        found[name] = Found(bits=bits, epsilon=spent, **judge(log_perplexities(corpus, module, variables), numbers))
        print(
            f"seed {seed} {name:8} bits {bits.mean():.3f} exposure {np.round(found[name].exact.mean(1), 1)} "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )
    sizes = {
        "training_rows": len(rows),
        "held_out_rows": len(held_out),
        "unigram_bits_per_character": round(unigram_bits(rows, held_out, len(corpus.characters)), 4),
    }
    return found, documents, sizes


def summarize(rounds: list[dict[str, Found]], documents: np.ndarray) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for name, how in MODELS.items():
        seeds = [one[name] for one in rounds]
        bits = bootstrap(np.concatenate([one.bits for one in seeds]), documents)
        exposure = {
            str(times): {
                kind: record.interval(bootstrap(np.concatenate([getattr(one, kind)[i] for one in seeds])))
                for kind in ("exact", "by_rank", "by_skew_normal")
            }
            | {"per_seed": [round(float(one.exact[i].mean()), 2) for one in seeds]}
            for i, times in enumerate(TIMES)
        }
        models[name] = {
            **how._asdict(),
            "epsilon": [round(one.epsilon, 3) for one in seeds if one.epsilon is not None],
            "bits_per_character": record.interval(bits),
            "perplexity": round(2**bits.value, 4),
            "exposure": exposure,
            "control": record.interval(bootstrap(np.concatenate([one.controls for one in seeds]))),
            "extracted_was_planted_times": [one.extracted for one in seeds],
            "skew_normal_fit_p_value": [float(f"{one.fit_p_value:.3g}") for one in seeds],
        }
    differences = {}
    for first, second in PAIRS:
        pair = [(one[first].exact, one[second].exact) for one in rounds]
        differences[f"{first} - {second}"] = {
            str(times): record.interval(
                difference(np.concatenate([a[i] for a, _ in pair]), np.concatenate([b[i] for _, b in pair]))
            )
            for i, times in enumerate(TIMES)
        }
    return {"models": models, "exposure_differences": differences}


def table(report: dict[str, Any]) -> Iterator[str]:
    """One line per model: perplexity, epsilon, mean exposure of the control and of what was planted."""
    yield f"{'model':8} {'perplexity':>10} {'epsilon':>8} {'never':>6} " + "".join(f"{f'{t} times':>21}" for t in TIMES)
    for name, one in report["models"].items():
        spent = f"{max(one['epsilon']):.1f}" if one["epsilon"] else "-"
        cells = [one["exposure"][str(times)]["exact"] for times in TIMES]
        yield f"{name:8} {one['perplexity']:10.2f} {spent:>8} {one['control'][0]:6.2f} " + "".join(
            f"{value:7.2f} [{low:5.2f},{high:5.2f}]" for value, low, high in cells
        )


def draw_curve(report: dict[str, Any], file: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for place, (name, one) in enumerate(report["models"].items()):
        value, low, high = np.array([one["exposure"][str(times)]["exact"] for times in TIMES]).T
        label = f"{name}, perplexity {one['perplexity']:.1f}"
        if one["epsilon"]:
            label += f", epsilon {max(one['epsilon']):.1f}"
        axes.errorbar(
            np.array(TIMES) * 1.06 ** (place - 2),  # side by side, so that no interval hides another
            value,
            yerr=[value - low, high - value],
            color=COLORS[name],
            linestyle="--" if MODELS[name].noise is None else "-",
            marker="s" if MODELS[name].noise is None else "o",
            capsize=3,
            label=label,
        )
    axes.axhline(math.log2(math.e), color="gray", linestyle=":", label="never planted, expected: 1.44")
    axes.axhline(BEST, color="gray", linestyle="-.", label=f"five numbers at ranks 1 to 5: {BEST:.1f}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(TIMES, [str(times) for times in TIMES])
    axes.set_xlabel("times planted")
    axes.set_ylabel("exposure (bits)")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Exposure of planted numbers in a character model, with and without DP-SGD."
    )
    parser.add_argument("--seeds", type=int, default=3, help="splits, numbers and trainings, at least 1")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds: {options.seeds}; legal is 1 or more")
    began = time.perf_counter()
    corpus = load()
    results = [run_seed(corpus, seed) for seed in range(options.seeds)]
    report = {
        **record.header(__file__, range(options.seeds)),
        "genre": GENRE,
        "width": WIDTH,
        "format": f"{PREFIX}{'d' * DIGITS}{SUFFIX}",
        "candidates": SPACE,
        "intervals": "[value, low, high]; 95 %, bootstrap",
        "chance": round(math.log2(math.e), 4),
        "delta": DELTA,
        "sizes": [sizes for _, _, sizes in results],
        **summarize([found for found, _, _ in results], np.concatenate([documents for _, documents, _ in results])),
    }
    print("\n".join(table(report)))
    record.write(report, began, options.output, "secret_sharer")
    draw_curve(report, options.output / "secret_sharer.png")


if __name__ == "__main__":
    main()
