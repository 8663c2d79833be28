"""An audit: from a checked configuration to a run folder that `jaxmia.report` reads.

`image` audits classifiers of images (train targets and evaluators, attack, judge), `tabular` audits classifiers of
records. Both are resumable: what is finished is found in the run folder and not done again.
"""
