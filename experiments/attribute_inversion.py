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

Intervals are 95 %. Accuracy: bootstrap of records, those drawn in several seeds kept together. AUC and all
differences: bootstrap of seeds, each with its own split and training, so both count; with few seeds it is rather short
(see `jaxmia.metrics.estimate`). Splits of different seeds overlap. Nothing is corrected for the number of comparisons.

Expected, AUC on training records. fair: `imputation_label` 0.73; the published attack 0.93 on the network (confidence)
and 0.95 on the tree (confusion), so an excess of 0.20 and 0.22, all of it memorized: on held-out records it is far below
`imputation_label`. Adult: `imputation_label` 0.82, and the published attack stays below it on all targets; the informed
one exceeds it by 0.04 on the network and 0.08 on the tree, again on training records only. Softmax regression, which
hardly memorizes, gives at most 0.005. The controls gain nothing. Those that memorize something else mislead: with shuffled
labels the attack falls below one half on the training records of fair, since the complete record goes with another label.
"""

import argparse
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import record
from sklearn.tree import DecisionTreeClassifier

from jaxmia import Access, Plan, Scenario, Status, Target, fit, from_callable, from_function, from_linen, run, train
from jaxmia.attacks.tabular.attribute_inversion import attribute_inversion
from jaxmia.data.batches import minibatches
from jaxmia.metrics.estimate import bootstrap, difference
from jaxmia.metrics.ranking import roc_auc
from jaxmia.modalities.tabular.data import Survey, adult, fair, imputations, one_hot
from jaxmia.models.classifiers import MLP, SoftmaxRegression

WEIGHTINGS = {"none": Access.LABELS, "confusion": Access.LABELS, "confidence": Access.SCORES}
INFORMED = ("confusion", "confidence")
START = {name: "prior" for name in WEIGHTINGS} | {f"informed_{name}": "imputation" for name in INFORMED}
REFERENCE = "imputation_label"
GROUPS = ("training", "held_out")
PLAN = Plan(progress=False, chunk=512)
RESAMPLES = 1000  # of thousands of records; of the few seeds the default number


def targets(problem: Survey, seed: int) -> Iterator[tuple[str, Target, str]]:
    """Name, target and the encoding it reads: three models of the training records and the controls."""
    rows, classes = problem.parts.training, problem.classes
    codes, labels = problem.codes[rows], problem.labels[rows]
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


def answer_classes(target: Target, codes: np.ndarray, problem: Survey, encoding: str) -> np.ndarray:
    """The target's label of every complete record."""
    x = one_hot(codes, problem.columns) if encoding == "one_hot" else codes.astype(np.float32)
    view = target.view(Access.LABELS)
    return np.asarray(jax.jit(jax.vmap(lambda one: view.answer(jax.random.key(0), one)))(x))


def attack(problem: Survey, target: Target, encoding: str, seed: int) -> dict[str, np.ndarray]:
    """Posterior of the sensitive value being 1 for training, then held-out records, for every weighting."""
    victims, split = problem.victims, problem.parts
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


def run_seed(problem: Survey, seed: int) -> dict[str, Any]:
    without = imputations(problem)
    per_target, accuracies = {}, {}
    for name, target, encoding in targets(problem, seed):
        found = attack(problem, target, encoding, seed)
        for weighting in INFORMED:
            found[f"informed_{weighting}"] = informed(found[weighting], without["prior"], without["imputation"])
        per_target[name] = found
        accuracies[name] = {
            group: float(
                np.mean(answer_classes(target, problem.codes[rows], problem, encoding) == problem.labels[rows])
            )
            for group, rows in zip(GROUPS, (problem.parts.training, problem.parts.held_out), strict=True)
        }
    victims = problem.victims
    truth = problem.codes[victims, problem.sensitive]
    return {"victims": victims, "truth": truth, "without": without, "targets": per_target, "accuracy": accuracies}


class Judged(NamedTuple):
    """One adversary on one group of records over all seeds."""

    auc: np.ndarray  # [seeds]
    accuracy: np.ndarray  # [seeds]
    correct: np.ndarray  # [seeds * members]
    records: np.ndarray  # [seeds * members], which record


def judge(problem: Survey, rounds: list[dict[str, Any]], posteriors: list[np.ndarray], group: str) -> Judged:
    members = len(problem.parts.training)
    rows = slice(0, members) if group == GROUPS[0] else slice(members, None)
    auc = [roc_auc(p[rows], one["truth"][rows]) for p, one in zip(posteriors, rounds, strict=True)]
    correct = [(p[rows] > 0.5) == one["truth"][rows] for p, one in zip(posteriors, rounds, strict=True)]
    records = [one["victims"][rows] for one in rounds]
    accuracy = np.array([c.mean() for c in correct])
    return Judged(np.array(auc), accuracy, np.concatenate(correct).astype(float), np.concatenate(records))


def level(one: Judged) -> dict[str, Any]:
    return {
        "auc": record.interval(bootstrap(one.auc)),
        "accuracy": record.interval(bootstrap(one.correct, one.records, resamples=RESAMPLES)),
    }


def summarize(problem: Survey, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    base = {
        (name, group): judge(problem, rounds, [one["without"][name] for one in rounds], group)
        for name in rounds[0]["without"]
        for group in GROUPS
    }
    report: dict[str, Any] = {
        "records": len(problem.codes),
        "training": len(problem.parts.training),
        "held_out": len(problem.parts.held_out),
        "public": len(problem.parts.public),
        "share_sensitive": round(float(problem.codes[:, problem.sensitive].mean()), 4),
        "baselines": {group: {name: level(base[name, group]) for name in rounds[0]["without"]} for group in GROUPS},
        "targets": {},
    }
    for target in rounds[0]["targets"]:
        entry: dict[str, Any] = {
            "accuracy": {
                group: record.interval(bootstrap(np.array([one["accuracy"][target][group] for one in rounds])))
                for group in GROUPS
            },
            **{group: {} for group in GROUPS},
        }
        for name, start in START.items():
            found = [one["targets"][target][name] for one in rounds]
            judged = {group: judge(problem, rounds, found, group) for group in GROUPS}
            excess = {group: judged[group].auc - base[REFERENCE, group].auc for group in GROUPS}
            for group in GROUPS:
                entry[group][name] = {
                    **level(judged[group]),
                    "gain_auc": record.interval(difference(judged[group].auc, base[start, group].auc)),
                    "excess_auc": record.interval(bootstrap(excess[group])),
                    "excess_accuracy": record.interval(
                        difference(judged[group].accuracy, base[REFERENCE, group].accuracy)
                    ),
                }
            entry[GROUPS[0]][name]["memorized_auc"] = record.interval(difference(*excess.values()))
        report["targets"][target] = entry
    return report


def table(report: dict[str, Any]) -> Iterator[str]:
    """One line per baseline, then per target and attack: AUC, excess AUC with its interval, training then held-out."""
    for name in report["baselines"][GROUPS[0]]:
        cells = [f"{report['baselines'][group][name]['auc'][0]:.3f} {'':23}" for group in GROUPS]
        yield f"  {'-':27} {name:19} " + "   ".join(cells)
    for target, entry in report["targets"].items():
        for name in entry[GROUPS[0]]:
            cells = []
            for group in GROUPS:
                value, low, high = entry[group][name]["excess_auc"]
                cells.append(f"{entry[group][name]['auc'][0]:.3f} {value:+.3f} [{low:+.3f}, {high:+.3f}]")
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
        **record.header(__file__, range(options.seeds)),
        "intervals": "[value, low, high]; 95 %, bootstrap over seeds, accuracy: over records",
        "surveys": {},
    }
    for load in (fair, adult):
        problems = [load(seed) for seed in range(options.seeds)]  # the same records, divided otherwise
        rounds = [run_seed(problem, seed) for seed, problem in enumerate(problems)]
        problem = problems[0]
        report["surveys"][problem.name] = summarize(problem, rounds)
        print(f"{problem.name}: AUC, excess over {REFERENCE}; training records, then held-out ones")
        print("\n".join(table(report["surveys"][problem.name])), flush=True)
    record.write(report, began, options.output, "attribute_inversion")


if __name__ == "__main__":
    main()
