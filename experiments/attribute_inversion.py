"""Attribute inversion (Fredrikson et al. 2014) on two surveys: does a model tell more than public records do?

    python experiments/attribute_inversion.py

Five minutes of one CPU core, no accelerator; writes results/attribute_inversion.json.

Who knows what. The target predicts the label from all other attributes (`fair`: how a woman rates her marriage; Adult:
income). The adversary has a person's non-sensitive attributes and label, and wants the sensitive attribute (an affair;
being married). In Adult it does not know `relationship` either. It may also have public records: people of the same
survey, disjoint from those attacked. Duplicate records are removed before splitting.

Baselines without the target: `prior` (the marginal), `imputation` (logistic regression from the known attributes,
fitted on the public records), `imputation_label` (the same with the label). Attacks: `none`, `confusion`, `confidence`
are the attack with its three weightings and the marginal as its prior, as published; `informed_confusion` and
`informed_confidence` put `imputation` in place of the marginal, after Jayaraman and Evans, "Are Attribute Inference
Attacks Just Imputation?" (CCS 2022). The confusion matrix is that of the training records.

What is reported, on training records and on as many held-out ones: AUC and accuracy; `gain` over what the attack starts
from (`prior` or `imputation`); `excess` over `imputation_label`, and only that is leakage; `memorized`, the excess on
training less that on held-out records. Three controls must gain nothing: the network trained on shuffled labels, the
network trained with the sensitive attribute shuffled, and a constant model.

Intervals are 95 %. Accuracy: bootstrap of records, those drawn in several seeds kept together. AUC and everything
`by_seed`: bootstrap of seeds, each with its own split and training, so both count; with few seeds it is rather short
(see `jaxmia.metrics.estimate`). Splits of different seeds overlap. Nothing is corrected for the number of comparisons.

Expected, AUC on training records. fair: `imputation_label` 0.73; the published attack 0.93 on the network (confidence)
and 0.95 on the tree (confusion), so an excess of 0.20 and 0.22, all of it memorized: on held-out records it is far below
`imputation_label`. Adult: `imputation_label` 0.82, and the published attack stays below it on all targets; the informed
one exceeds it by 0.04 on the network and 0.08 on the tree, again on training records only. Softmax regression, which
hardly memorizes, gives at most 0.005. The controls gain nothing. Those that memorize something else mislead: with shuffled
labels the attack falls below one half on the training records of fair, since the complete record goes with another label.
"""

import argparse
import json
import pathlib
import platform
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from jaxmia import Access, Plan, Scenario, Status, Target, fit, from_callable, from_function, from_linen, run, train
from jaxmia.attacks.tabular.attribute_inversion import attribute_inversion
from jaxmia.data import adult, fair
from jaxmia.data.batches import minibatches
from jaxmia.metrics.estimate import Estimate, bootstrap, difference
from jaxmia.metrics.ranking import roc_auc
from jaxmia.models.classifiers import MLP, SoftmaxRegression

WEIGHTINGS = {"none": Access.LABELS, "confusion": Access.LABELS, "confidence": Access.SCORES}
INFORMED = ("confusion", "confidence")
START = {name: "prior" for name in WEIGHTINGS} | {f"informed_{name}": "imputation" for name in INFORMED}
REFERENCE = "imputation_label"
GROUPS = ("training", "held_out")
PLAN = Plan(progress=False, chunk=512)
RESAMPLES = 1000  # of thousands of records; of the few seeds the default number


class Problem(NamedTuple):
    """One survey without duplicates, and what the adversary wants of it."""

    name: str
    codes: np.ndarray  # int32 [n, d], what the target reads; the sensitive attribute is 0 or 1
    labels: np.ndarray  # int32 [n], what it predicts
    columns: tuple[int, ...]
    classes: int
    sensitive: int
    unknown: tuple[int, ...]  # further attributes the adversary lacks
    members: int  # training records per seed; as many are held out
    public: int


class Split(NamedTuple):
    training: np.ndarray
    held_out: np.ndarray
    public: np.ndarray


def load_fair() -> Problem:
    table = fair.load()
    return _problem("fair", table, fair.SENSITIVE, fair.TARGET, (), members=1200, public=2700)


def load_adult() -> Problem:
    table = adult.load()
    place = table.position(adult.SENSITIVE)
    levels = table.columns[place].levels
    married = np.isin(np.arange(len(levels)), [levels.index("Married-civ-spouse"), levels.index("Married-AF-spouse")])
    codes = table.codes.copy()
    codes[:, place] = married[codes[:, place]]
    columns = list(table.columns)
    columns[place] = columns[place]._replace(levels=("no", "yes"))
    table = table._replace(columns=tuple(columns), codes=codes)
    return _problem("adult", table, adult.SENSITIVE, adult.TARGET, ("relationship",), members=2000, public=10_000)


def _problem(name: str, table: Any, sensitive: str, label: str, unknown: tuple[str, ...], **sizes: int) -> Problem:
    records = np.unique(table.codes, axis=0)
    target = table.position(label)
    kept = [j for j in range(len(table.columns)) if j != target]
    return Problem(
        name,
        records[:, kept],
        records[:, target],
        tuple(len(table.columns[j].levels) for j in kept),
        len(table.columns[target].levels),
        kept.index(table.position(sensitive)),
        tuple(kept.index(table.position(other)) for other in unknown),
        **sizes,
    )


def one_hot(codes: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.eye(size, dtype=np.float32)[codes[:, j]] for j, size in enumerate(columns)], axis=1)


def split_of(problem: Problem, seed: int) -> Split:
    order = np.random.default_rng((seed, 1)).permutation(len(problem.codes))
    m = problem.members
    return Split(order[:m], order[m : 2 * m], order[2 * m : 2 * m + problem.public])


def targets(problem: Problem, split: Split, seed: int) -> Iterator[tuple[str, Target, str]]:
    """Name, target and the encoding it reads: three models of the training records and the controls."""
    codes, labels, classes = problem.codes[split.training], problem.labels[split.training], problem.classes
    shuffle = np.random.default_rng((seed, 2)).permutation(len(codes))
    scrambled = codes.copy()
    scrambled[:, problem.sensitive] = codes[shuffle, problem.sensitive]
    network, regression = MLP(classes, width=256), SoftmaxRegression(classes)
    x, scrambled_x = one_hot(codes, problem.columns), one_hot(scrambled, problem.columns)
    for name, module, records, y, steps in (
        ("mlp", network, x, labels, 2000),
        ("softmax_regression", regression, x, labels, 500),
        ("control_shuffled_labels", network, x, labels[shuffle], 2000),
        ("control_shuffled_attribute", network, scrambled_x, labels, 2000),
    ):
        process = train.supervised(module, optax.adam(1e-2), steps=steps)
        variables, _ = fit(process, jax.random.key(seed), minibatches({"x": records, "y": y}, 128, seed), plan=PLAN)
        yield name, from_linen(module, variables, classes=classes), "one_hot"
    tree = DecisionTreeClassifier(random_state=seed).fit(codes, labels)
    yield "decision_tree", from_callable(_answers(tree, classes), classes=classes), "codes"
    shares = np.bincount(labels, minlength=classes) / len(labels)
    always = np.log(shares).astype(np.float32)
    constant = from_function(lambda logits, batch: np.zeros((len(batch), 1)) + logits, always, classes=classes)
    yield "control_constant", constant, "one_hot"


def _answers(tree: DecisionTreeClassifier, classes: int):
    def predict(codes: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(codes), classes), np.float32)
        scores[:, tree.classes_] = tree.predict_proba(codes)
        return scores

    return predict


def answer_classes(target: Target, codes: np.ndarray, problem: Problem, encoding: str) -> np.ndarray:
    """The target's label of every complete record."""
    x = one_hot(codes, problem.columns) if encoding == "one_hot" else codes.astype(np.float32)
    view = target.view(Access.LABELS)
    return np.asarray(jax.jit(jax.vmap(lambda one: view.answer(jax.random.key(0), one)))(x))


def baselines(problem: Problem, split: Split) -> dict[str, np.ndarray]:
    """Posterior of the sensitive value being 1 for training, then held-out records, from public records alone."""
    victims = np.concatenate([split.training, split.held_out])
    hidden = {problem.sensitive, *problem.unknown}
    known = [j for j in range(len(problem.columns)) if j not in hidden]
    features = one_hot(problem.codes[:, known], tuple(problem.columns[j] for j in known))
    labels = np.eye(problem.classes, dtype=np.float32)[problem.labels]
    wanted = problem.codes[:, problem.sensitive]
    found = {"prior": np.full(len(victims), wanted[split.public].mean())}
    for name, x in (("imputation", features), (REFERENCE, np.concatenate([features, labels], axis=1))):
        model = LogisticRegression(max_iter=1000).fit(x[split.public], wanted[split.public])
        found[name] = model.predict_proba(x[victims])[:, 1]
    return found


def attack(problem: Problem, split: Split, target: Target, encoding: str, seed: int) -> dict[str, np.ndarray]:
    """Posterior of the sensitive value being 1 for training, then held-out records, for every weighting."""
    victims = np.concatenate([split.training, split.held_out])
    record = problem.codes[victims].copy()
    record[:, [problem.sensitive, *problem.unknown]] = 0  # not the adversary's to see
    cases = {"record": record, "label": problem.labels[victims]}

    def marginal(j: int) -> np.ndarray:
        return np.bincount(problem.codes[split.public, j], minlength=problem.columns[j]) / len(split.public)

    confusion = np.zeros((problem.classes, problem.classes))
    answers = answer_classes(target, problem.codes[split.training], problem, encoding)
    np.add.at(confusion, (problem.labels[split.training], answers), 1)
    found = {}
    for weighting, access in WEIGHTINGS.items():
        inversion = attribute_inversion(
            target.view(access),
            problem.columns,
            problem.sensitive,
            marginal(problem.sensitive),
            confusion,
            weighting=weighting,
            unknown={j: marginal(j).tolist() for j in problem.unknown},
            encoding=encoding,
        )
        result = run(inversion, jax.random.key(seed), Scenario(target, cases), plan=PLAN)
        if (result.status != Status.RUNNING).any():
            raise FloatingPointError(
                f"{problem.name}, {weighting}: {(result.status != Status.RUNNING).sum()} cases failed"
            )
        found[weighting] = np.asarray(result.output.posterior[:, 1], np.float64)
    return found


def informed(posterior: np.ndarray, prior: np.ndarray, better: np.ndarray) -> np.ndarray:
    """The posterior with `better` in place of `prior`; both and the result are of the value 1."""
    one = posterior / prior * better
    zero = (1 - posterior) / (1 - prior) * (1 - better)
    return one / (one + zero)


def run_seed(problem: Problem, seed: int) -> dict[str, Any]:
    split = split_of(problem, seed)
    without = baselines(problem, split)
    per_target, accuracies = {}, {}
    for name, target, encoding in targets(problem, split, seed):
        found = attack(problem, split, target, encoding, seed)
        for weighting in INFORMED:
            found[f"informed_{weighting}"] = informed(found[weighting], without["prior"], without["imputation"])
        per_target[name] = found
        accuracies[name] = {
            group: float(
                np.mean(answer_classes(target, problem.codes[rows], problem, encoding) == problem.labels[rows])
            )
            for group, rows in zip(GROUPS, (split.training, split.held_out), strict=True)
        }
    victims = np.concatenate([split.training, split.held_out])
    truth = problem.codes[victims, problem.sensitive]
    return {"victims": victims, "truth": truth, "without": without, "targets": per_target, "accuracy": accuracies}


class Judged(NamedTuple):
    """One adversary on one group of records over all seeds."""

    auc: np.ndarray  # [seeds]
    accuracy: np.ndarray  # [seeds]
    correct: np.ndarray  # [seeds * members]
    records: np.ndarray  # [seeds * members], which record


def judge(problem: Problem, rounds: list[dict[str, Any]], posteriors: list[np.ndarray], group: str) -> Judged:
    rows = slice(0, problem.members) if group == GROUPS[0] else slice(problem.members, None)
    auc = [roc_auc(p[rows], one["truth"][rows]) for p, one in zip(posteriors, rounds, strict=True)]
    correct = [(p[rows] > 0.5) == one["truth"][rows] for p, one in zip(posteriors, rounds, strict=True)]
    records = [one["victims"][rows] for one in rounds]
    accuracy = np.array([c.mean() for c in correct])
    return Judged(np.array(auc), accuracy, np.concatenate(correct).astype(float), np.concatenate(records))


def level(one: Judged) -> dict[str, Any]:
    return {
        "auc": show(bootstrap(one.auc)),
        "accuracy": show(bootstrap(one.correct, one.records, resamples=RESAMPLES)),
    }


def versus(one: Judged, other: Judged) -> dict[str, Any]:
    return {
        "auc_by_seed": show(difference(one.auc, other.auc)),
        "accuracy": show(difference(one.correct, other.correct, one.records, resamples=RESAMPLES)),
        "accuracy_by_seed": show(difference(one.accuracy, other.accuracy)),
    }


def show(estimate: Estimate) -> dict[str, Any]:
    kept = {name: value for name, value in estimate._asdict().items() if name != "confidence"}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in kept.items()}


def summarize(problem: Problem, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    base = {
        (name, group): judge(problem, rounds, [one["without"][name] for one in rounds], group)
        for name in rounds[0]["without"]
        for group in GROUPS
    }
    report: dict[str, Any] = {
        "records": len(problem.codes),
        "training": problem.members,
        "held_out": problem.members,
        "public": problem.public,
        "share_sensitive": round(float(problem.codes[:, problem.sensitive].mean()), 5),
        "baselines": {n: {g: level(base[n, g]) for g in GROUPS} for n in rounds[0]["without"]},
        "targets": {},
    }
    for target in rounds[0]["targets"]:
        accuracy = {g: show(bootstrap(np.array([one["accuracy"][target][g] for one in rounds]))) for g in GROUPS}
        entry: dict[str, Any] = {"accuracy": accuracy, "attacks": {}}
        for name, start in START.items():
            found = [one["targets"][target][name] for one in rounds]
            judged = {group: judge(problem, rounds, found, group) for group in GROUPS}
            apart = {g: judged[g].auc - base[REFERENCE, g].auc for g in GROUPS}
            apart_accuracy = {g: judged[g].accuracy - base[REFERENCE, g].accuracy for g in GROUPS}
            entry["attacks"][name] = {
                g: {
                    **level(judged[g]),
                    "gain": {"auc_by_seed": show(difference(judged[g].auc, base[start, g].auc))},
                    "excess": versus(judged[g], base[REFERENCE, g]),
                }
                for g in GROUPS
            } | {
                "memorized": {
                    "auc_by_seed": show(difference(apart["training"], apart["held_out"])),
                    "accuracy_by_seed": show(difference(apart_accuracy["training"], apart_accuracy["held_out"])),
                }
            }
        report["targets"][target] = entry
    return report


def table(report: dict[str, Any]) -> Iterator[str]:
    """One line per target and attack: AUC, excess AUC with its interval, on training and held-out records."""
    for name, entry in report["baselines"].items():
        yield f"  {'-':27} {name:19} " + "   ".join(f"{entry[g]['auc']['value']:.3f} {'':25}" for g in GROUPS)
    for target, entry in report["targets"].items():
        for name, one in entry["attacks"].items():
            cells = []
            for group in GROUPS:
                e = one[group]["excess"]["auc_by_seed"]
                cells.append(f"{one[group]['auc']['value']:.3f} {e['value']:+.3f} [{e['low']:+.3f}, {e['high']:+.3f}]")
            yield f"  {target:27} {name:19} " + "   ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attribute inversion beside imputation, on fair and Adult.")
    parser.add_argument("--seeds", type=int, default=5, help="splits and trainings per survey, at least 2")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds: {options.seeds}; legal is 2 or more")
    began = time.perf_counter()
    report: dict[str, Any] = {
        "command": " ".join(["python", "experiments/attribute_inversion.py", *sys.argv[1:]]),
        "seeds": list(range(options.seeds)),
        "confidence": 0.95,
        "environment": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
            "device": jax.devices()[0].device_kind,
        },
        "surveys": {},
    }
    for load in (load_fair, load_adult):
        problem = load()
        rounds = [run_seed(problem, seed) for seed in range(options.seeds)]
        report["surveys"][problem.name] = summarize(problem, rounds)
        print(f"{problem.name}: AUC, excess over {REFERENCE}; training records, then held-out ones")
        print("\n".join(table(report["surveys"][problem.name])), flush=True)
    report["seconds"] = round(time.perf_counter() - began, 1)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "attribute_inversion.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
