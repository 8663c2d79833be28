"""One self-contained HTML page and one table from a run folder; needs neither JAX nor any attack.

The run folder, all JSON in UTF-8, all arrays in `.npz` without pickles:

    run/
      config.yaml          the resolved configuration, shown as it is (config.sha256 tells whether it was edited)
      identity.json        what the results depend on, for whoever goes on with the run; its report does not read it,
                           an export and a comparison tell its "data" (sha256 by part) and "versions"
      environment.json     object of name: text, number or null. "command" is required: what was typed to make the run.
                           "title" and "date" head the page where given, and "warning", what a reader must know first.
                           Everything else (jaxmia, python, jax, flax, device, cpus, seconds ...) is listed in its order.
      targets.json         list of objects, one per target model:
                             name             text, distinct
                             dataset          text
                             architecture     text
                             test_accuracy    an estimate (below), or null
                             defense          text, "" for none
                             granted          "NONE", "LABELS", "SCORES" or "WEIGHTS"
                             parameters       number of parameters, or null
                             seconds          to train it, or null
                             digest           optional: sha256 of its parameters
      truth.npz            (image runs) row i is class i:
                             private          float [k, h, w, c] in [0, 1], c 1 or 3: one private image of each class
                             names            text [k]
                             nearest_public   float [k, h, w, c], optional: the public image nearest to `private`
      tables.json          (optional) list of objects, further tables:
                             title            text
                             columns          list of texts
                             rows             list of lists as long as columns: text, number, boolean, null or estimate
                             note             text, optional
                             controls         list of row numbers that are controls or baselines, optional
                             verdict          optional: {"leaks": true, false or null for undecided, "text": the sentence
                                              that heads the page}
      cells/<cell>/        one per attack x target x seed. The runner makes all these folders before it starts; a cell
                           without done.json is listed on the page as unfinished.
        cell.json
          attack           text, "image/gmi"
          label            text, what the page calls it; cells that differ in seed only share it
          target           name of a target
          seed             integer
          control          boolean: true where nothing can be recovered (shuffled labels, random public images ...)
          card             object: title, paper, url, year, modality, access (text as `granted`), recovers, knows
          hyperparameters  object of name: JSON value
          n                number of things attacked: candidates, records, nodes, secrets
          seconds          wall clock
          environment      optional: object, what the cell was made with (as in environment.json, whose entries it replaces)
          queries          {"mean": number, "max": number, "training": number}: the first two per case, on top of what
                           the attack asked in training, once for all cases; null where nothing is queried
          status           object of status: count, adding up to n
          metrics          object of name: estimate, in the order to show
          headline         optional: the metric that tells how much is recovered; default is the first
          curve            optional: {"loss": [numbers], ...}, equally long; "step" holds the x axis, default 1, 2, ...
          exhibits         list of objects, each with its "kind": what a page shows of the cell beside its metrics.
                           {"kind": "pictures"} are the candidates of candidates.npz
        candidates.npz     what the attack put out and the truth of it; where there are pictures, n rows each:
          candidates       float [n, h, w, c] in [0, 1] (image runs)
          targets          integer [n], class index
          case_ids         integer [n], distinct
          success          bool [n], the evaluator finds the class in the candidate
          nearest_public   float [n, h, w, c], optional: the public image nearest to the candidate
          anything else    per-case metrics, not shown
        done.json          written last; its presence means that the cell is complete

An estimate is `{"value", "low", "high", "n", "confidence", "method"}`, optionally with "groups", "unit" ("share" is
shown in percent, anything else behind the number) and "stronger" ("higher", the default, or "lower": the direction in
which the attack does better).

`build` writes `report.html` and `results.csv` beside them, the latter with one row per cell and metric.

A sweep's folder, of which `build_sweep` makes a page, holds run folders, each with its `done.json`, and

    sweep/
      results.csv          the rows of the runs' results.csv, led by `run` (name of the run folder), by `rung` where the
                           sweep halves, and by a column `sweep.<path>` for each swept path
      sweep.json           object with "roles": object of swept path: "target" where a defender chooses the value,
                           "adversary", "judge" or "speed" where it leaves the target as it is
      tables.json          (optional) further tables, as in a run folder
      report.html          what `build_sweep` writes; where pyarrow is installed also results.parquet, typed
"""

from jaxmia.report.compare import build_comparison, listed
from jaxmia.report.export import export
from jaxmia.report.limit import above
from jaxmia.report.page import build
from jaxmia.report.sweep_folder import is_sweep
from jaxmia.report.sweep_page import build_any, build_sweep

__all__ = ["above", "build", "build_any", "build_comparison", "build_sweep", "export", "is_sweep", "listed"]
