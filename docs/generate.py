"""Writes the pages of docs/ that are made of something else: `make pages`.

A page of docs/results is written by hand but for its tables. A table stands between `<!-- table NAME -->` and
`<!-- end -->`, and is made of a file in experiments/results. The pages of docs/methods are made whole, of the CARDs and
docstrings.
`tests/test_docs.py` fails where a page is not what this script would write.
"""

import csv
import functools
import inspect
import json
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from jaxmia import attacks, defenses
from jaxmia.discovery import Method

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
MODALITIES = {"image": "Images", "text": "Text", "graph": "Graphs", "tabular": "Records"}
ACCESS = {"WEIGHTS": "weights", "SCORES": "scores", "LABELS": "labels", "NONE": "none"}


@functools.cache
def read(name: str) -> Any:
    """What a file of experiments/results holds."""
    file = RESULTS / name
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))
    return json.loads(file.read_text(encoding="utf-8"))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def percent(value: Any, low: Any, high: Any) -> str:
    return f"{100 * float(value):.0f} [{100 * float(low):.0f}, {100 * float(high):.0f}]".replace("-0", "0")


def number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def ranged(interval: list[float], digits: int = 3, sign: bool = False) -> str:
    value, low, high = interval
    lead = "+" if sign and value > 0 else ""
    return f"{lead}{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def image_attacks() -> str:
    judges = {"orl": ("group_norm_cnn", "vgg_hard", "face_embedding"), "mnist": ("group_norm_cnn", "vgg_hard")}
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in read("image_attacks.csv"):
        found.setdefault((row["target"], row["attack"]), {})[row["dataset"]] = row

    def cell(row: dict[str, str] | None, judge: str) -> str:
        if row is None or not row[f"accuracy [{judge}]"]:
            return "–"
        text = percent(*(row[f"{part} [{judge}]"] for part in ("accuracy", "low", "high")))
        if row[f"control [{judge}]"]:
            apart = row[f"beats_control [{judge}]"] == "True"
            text += f" / {100 * float(row[f'control [{judge}]']):.0f}" + ("" if apart else " =")
        return text

    rows = []
    for (target, attack), by_data in found.items():
        row = next(iter(by_data.values()))
        name = f"`{attack}`" + (", transformer" if target == "vit" else "")
        queries = ", ".join(
            f"{float(by_data[d]['queries_per_case']):,.0f}"
            for d in judges
            if d in by_data and by_data[d]["queries_per_case"]
        )
        cells = [cell(by_data.get(data), judge) for data in judges for judge in judges[data]]
        rows.append([name, ACCESS[row["access"]] if target else "–", *cells, queries or "–"])
    head = ["attack", "access"]
    head += [f"{data.upper()}, `{judge}`" for data in judges for judge in judges[data]]
    return table([*head, "queries a case: ORL, MNIST"], rows)


def orderings() -> str:
    report = read("image_attacks.json")
    columns = [(data, judge) for data in ("orl", "mnist") for judge in next(iter(report[data].values()))]

    def cell(entry: list[Any]) -> str:
        value, low, high, verdict = entry
        return f"{100 * value:+.0f} [{100 * low:.0f}, {100 * high:.0f}] {verdict}".replace("-0 ", "0 ")

    rows = [[claim, *(cell(report[data][claim][judge]) for data, judge in columns)] for claim in report["orl"]]
    return table(["claim"] + [f"{data.upper()}, `{judge}`" for data, judge in columns], rows)


def particular_images() -> str:
    by_attack: dict[str, dict[str, dict[str, str]]] = {}
    for row in read("particular_images.csv"):
        by_attack.setdefault(row["attack"], {})[row["dataset"]] = row

    def ssim(row: dict[str, str]) -> str:
        interval = [float(row[key]) for key in ("ssim", "ssim_low", "ssim_high")]
        return f"{ranged(interval, 2)} / {float(row['control_ssim']):.2f}"

    def named(row: dict[str, str]) -> str:
        return f"{percent(row['named'], row['named_low'], row['named_high'])} / {100 * float(row['control_named']):.0f}"

    rows = []
    for attack, data in by_attack.items():
        orl, mnist = data["orl"], data["mnist"]
        cells = [ssim(orl), named(orl), ssim(mnist), named(mnist), f"{orl['images']}, {mnist['images']}"]
        rows.append([f"`{attack}`", ACCESS[orl["access"]], *cells])
    return table(["attack", "access", "ORL, SSIM", "ORL, named", "MNIST, SSIM", "MNIST, named", "images"], rows)


def orl(part: str = "orl") -> str:
    report, rows = read("orl.json")[part], []
    judges = list(report["evaluators"])
    for name, cell in report["cells"].items():
        target, _, attack = name.partition("--")
        accuracy = [percent(*cell[judge]["attack_accuracy@1"]) for judge in judges]
        queries = cell["queries_per_case"]
        tested = report["targets"].get(target)
        shown = (
            f"{target}, {100 * sum(tested['test_accuracy']) / len(tested['test_accuracy']):.0f} %" if tested else "–"
        )
        rows.append([shown, f"`{attack}`", *accuracy, f"{queries:,.0f}" if queries else "–"])
    head = ["target, test accuracy", "attack", *(f"`{judge}`" for judge in judges), "queries a case"]
    return table(head, rows)


def attribute_inversion() -> str:
    rows = []
    for survey, found in read("attribute_inversion.json")["surveys"].items():
        imputed = found["baselines"]["training"]["imputation_label"]["auc"][0]
        for target in ("decision_tree", "mlp"):
            training, held_out = (found["targets"][target][part]["confidence"] for part in ("training", "held_out"))
            excess = ranged(training["excess_auc"], sign=True)
            cells = [number(imputed), number(training["auc"][0]), excess, number(held_out["auc"][0])]
            rows.append([survey, target, *cells])
    head = ["survey", "target", "imputation with the label", "attack", "excess", "attack, held-out records"]
    return table(head, rows)


def graph_mi() -> str:
    report = read("graph_mi.json")["all"]
    names = {
        "features": "no network: cosine of the features",
        "features_labels": "no network: features and labels",
        "released": "GraphMI, released rule",
        "paper": "GraphMI, as the paper prints it",
        "informed": "GraphMI added to features and labels",
        "shuffled_labels": "control: shuffled labels",
        "untrained": "control: untrained network",
        "constant": "control: constant network",
    }
    rows = [
        [words, ranged(report[key]["auc"]), ranged(report[key]["excess"], sign=True)] for key, words in names.items()
    ]
    return table(["what ranks the pairs", "AUC", "over features and labels"], rows)


def secret_sharer() -> str:
    names = {"plain": "no defense", "dp": "DP-SGD", "short": "stopped early"}
    rows = []
    for name, model in read("secret_sharer.json")["models"].items():
        epsilon = f", epsilon {sum(model['epsilon']) / len(model['epsilon']):.2g}" if model["epsilon"] else ""
        exposure = [ranged(found["exact"], 1) for found in model["exposure"].values()]
        words = names[name.partition("_")[0]] + epsilon
        rows.append([words, number(model["perplexity"], 1), ranged(model["control"], 2), *exposure])
    times = read("secret_sharer.json")["models"]["plain"]["exposure"]
    head = ["model", "perplexity", "never planted", *(f"planted {n} times" for n in times)]
    return table(head, rows)


def speed() -> str:
    rows = []
    for script, key in (
        ("against_art", "art_over_jaxmia"),
        ("against_torch", "jaxmia_over_torch"),
        ("sweep", "jits_over_jaxmia"),
        ("engine_overhead", "engine_over_bare"),
    ):
        for name, entry in read(f"{script}.json").items():
            if not isinstance(entry, dict) or key not in entry:
                continue
            ratio = entry[key] if isinstance(entry[key], dict) else {**entry, "ratio": entry[key]}
            low, high = ratio["quartiles"]
            goal = ratio.get("goal", "") + ("" if ratio.get("met", True) else ": missed")
            words = key.replace("_over_", " over ").replace("_", " ")
            measured = f"{ratio['ratio']:.2f} [{low:.2f}, {high:.2f}]"
            rows.append([name, words, measured, goal or "–", f"`{script}.py`"])
    return table(["what", "ratio", "measured [quartiles]", "goal", "command"], rows)


def gpu() -> str:
    rows = []

    def row(what: str, found: dict[str, Any]) -> None:
        share = f"{100 * found['share_of_peak']:.0f} %" if "share_of_peak" in found else "–"
        memory = f"{found['mebibytes'] / 1024:.1f}" if "mebibytes" in found else "–"
        rows.append([what, f"{found['case_steps_per_second']:,.0f}", share, memory])

    for name, entry in read("gpu.json").items():
        if name.startswith("cases,"):
            row(name.removeprefix("cases, ") + " cases, float32", entry)
        elif name.startswith("precision,"):
            for program, found in entry.items():
                row(f"{program}, {name.removeprefix('precision, ')}", found)
        elif name.startswith(("torch,", "loop,")):
            for way, rate in entry.items():
                row(f"{name}, {way}", {"case_steps_per_second": rate})
    return table(["what", "steps a second times cases", "share of the peak", "GiB"], rows)


def paper_memory() -> str:
    """By configuration, of each part the program that needs most."""
    out = []
    for file in sorted((RESULTS / "paper_memory").glob("*.json")):
        stored = read(f"paper_memory/{file.name}")
        assert stored["backend"] == "cpu" and not stored["timed"]
        rows = []
        for part in stored["parts"].values():
            most = max(part, key=lambda row: row["bytes"])
            slices, fits = max(row["slices"] for row in part), most["bytes"] <= stored["limit"]
            chunks = [row["chunk"] for row in part if row["chunk"]]
            rows.append(
                [most["part"], most["program"], f"{most['bytes'] / 1e9:.3g}", "yes" if fits else "**no**", str(slices),
                 str(min(chunks)) if chunks else "–", f"{most['flops'] / 1e9:.3g}", str(most["steps"])]
            )  # fmt: skip
        head = ["part", "program that needs most", "GB", "fits", "slices", "chunk", "GFLOP of it", "run so often"]
        out.append(f"## {file.stem}.yaml\n\n" + table(head, rows))
    return "\n".join(out)


def of_sweep(name: str, metrics: dict[str, str], digits: int = 2) -> str:
    """The results.csv of a sweep over seeds: the mean over seeds, and in brackets the least and the most of one."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in read(f"{name}.csv"):
        if row["state"] == "finished" and row["metric"] in metrics:
            about = f"{row['target']} ({row['defense']})" if row["defense"] else row["target"]
            place = rows.setdefault((about, row["label"]), {})
            place.setdefault(row["metric"], []).append(float(row["value"]))

    def told(values: list[float]) -> str:
        mean = sum(values) / len(values)
        return f"{mean:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]".replace("-0.00", "0.00")

    found = [[*place, *(told(of[m]) if m in of else "–" for m in metrics)] for place, of in rows.items()]
    return table(["target", "attack", *metrics.values()], found)


def brown() -> str:
    times = {f"exposure_planted_{n}_times": f"planted {n} times" for n in (1, 4, 16, 64)}
    return of_sweep("brown", {"exposure_never_planted": "never planted", **times}, 1)


TABLES: dict[str, Callable[[], str]] = {
    "image_attacks": image_attacks,
    "orderings": orderings,
    "particular_images": particular_images,
    "orl": orl,
    "orl_defenses": functools.partial(orl, "orl_defenses"),
    "attribute_inversion": attribute_inversion,
    "graph_mi": graph_mi,
    "secret_sharer": secret_sharer,
    "brown": brown,
    "paper_memory": paper_memory,
    "speed": speed,
    "gpu": gpu,
}


def families() -> str:
    """How many attacks there are, by modality and least access."""
    cards = [attacks.get(name).card for name in attacks.names()]
    rows = []
    for modality, words in MODALITIES.items():
        counts = [
            str(sum(card.modality == modality and card.access.name == access for card in cards) or "–")
            for access in ACCESS
        ]
        rows.append([f"[{words}](docs/methods/README.md#{words.lower()})", *counts])
    return table(["attacks on", *(f"needs {words}" for words in ACCESS.values())], rows)


def defense_families() -> str:
    """How many defenses there are, by where they act."""
    kinds = {"training": 0, "what is served": 0, "what a client sends": 0}
    for name in defenses.names():
        hooks = set(defenses.get(name).card.hook.split(", "))
        served = "what is served" if hooks & {"answer", "guard"} else "training"
        kinds["what a client sends" if "send" in hooks else served] += 1
    return table([f"defenses of {words}" for words in kinds], [[str(count) for count in kinds.values()]])


def method_index() -> str:
    text = "# Attacks and defenses\n\nMade by `make pages` of the cards in the code.\n"
    methods = [attacks.get(name) for name in attacks.names()]
    for modality, words in MODALITIES.items():
        text += f"\n## {words}\n\n"
        rows = [
            [f"[`{m.name}`]({page_name(m)})", f"{m.card.title}, {m.card.year}", ACCESS[m.card.access.name],
             m.card.knows, m.card.recovers]
            for m in methods
            if m.card.modality == modality
        ]  # fmt: skip
        text += table(["attack", "paper", "needs at least", "knows beforehand", "recovers"], rows)
    text += "\n## Defenses\n\n"
    found = [defenses.get(name) for name in defenses.names()]
    rows = [[f"[`{m.name}`]({page_name(m)})", f"{m.card.title}, {m.card.year}", m.card.hook] for m in found]
    return text + table(["defense", "paper", "hooks"], rows)


def page_name(method: Method) -> str:
    return f"{method.name.replace('/', '-')}.md" if "/" in method.name else f"defense-{method.name}.md"


def method_page(method: Method) -> str:
    """One attack or defense: what it is, what its docstring says, its keywords, and how to ask for it."""
    card, module = method.card, inspect.getmodule(method.factory)
    assert module and module.__doc__ and method.factory.__doc__
    lines = [f"# {card.title}: `{method.name}`\n", f"[{card.paper}]({card.url}), {card.year}.\n"]
    if card.access is not None:
        lines.append(
            table(
                ["needs at least", "observes", "knows beforehand", "recovers"],
                [[ACCESS[card.access.name], card.observes, card.knows, card.recovers]],
            )
        )
        lines.append(f"```yaml\nattacks: [{{name: {method.name}}}]\n```\n")
    else:
        lines.append(f"Hooks: {card.hook}.\n\n```yaml\ndefenses: [{{name: {method.name}}}]\n```\n")
    lines.append(f"## What it does\n\n```text\n{module.__doc__.strip()}\n```\n")
    described = dict(arguments(method.factory.__doc__))
    rows = [[f"`{name}`", "supplied by the audit", described.get(name, "")] for name in method.inputs]
    rows += [[f"`{name}`", f"`{shown(default)}`", described.get(name, "")]
             for name, default in method.hyperparameters.items()]  # fmt: skip
    lines.append("## Inputs and keywords\n\n" + table(["name", "default", "what"], rows))
    if used := [row for row in read("image_attacks.csv") if method.name == f"image/{row['attack']}"]:
        lines.append(f"Measured on: {', '.join(sorted({row['dataset'].upper() for row in used}))}; see "
                     "[image attacks](../results/image_attacks.md).\n")  # fmt: skip
    return "\n".join(lines)


def shown(default: Any) -> str:
    """A default as one writes it; a function by its name."""
    return getattr(default, "__name__", None) or repr(default)


def arguments(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and descriptions in the section "Args:" of a docstring."""
    _, _, rest = inspect.cleandoc(docstring).partition("Args:\n")
    block = re.split(r"\n(?=\S)", rest)[0]
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(block)):
        name, _, words = entry.partition(":")
        yield name.strip(), " ".join(words.split()).replace("|", "\\|")


def pages() -> dict[pathlib.Path, str]:
    """Every made page with its whole text."""
    out = {ROOT / "docs" / "methods" / "README.md": method_index()}
    registries = (attacks, defenses)
    for method in (registry.get(name) for registry in registries for name in registry.names()):
        out[ROOT / "docs" / "methods" / page_name(method)] = method_page(method)
    made = TABLES | {"families": families, "defense_families": defense_families}
    written = (ROOT / "README.md", ROOT / "docs" / "paper_memory.md", *sorted((ROOT / "docs" / "results").glob("*.md")))
    for page in written:
        text = page.read_text(encoding="utf-8")
        out[page] = BLOCK.sub(lambda found: found[1] + made[found[2]]() + found[3], text)
    return out


def main() -> None:
    for page, text in pages().items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
