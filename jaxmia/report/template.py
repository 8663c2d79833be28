# ruff: noqa: E501 (markup)
"""The page of a run, and the macros and style sheet of every page. No script, nothing loaded from anywhere."""

__all__ = ["PAGE", "PARTS", "STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfbf8; --ink: #1f2529; --muted: #626b72; --line: #dfdfd9; --wash: #f3f1eb;
  --alarm: #a8321f; --calm: #2f6b4a; --link: #1f5f7a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15191c; --ink: #e6e3dc; --muted: #98a1a8; --line: #30373c; --wash: #1d2327;
    --alarm: #ef7d62; --calm: #7fc09a; --link: #7fc4dd;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1, h2, h3 { font-family: Charter, "Iowan Old Style", "Bitstream Charter", Georgia, serif; line-height: 1.2; }
h1 { font-size: 2.1rem; font-weight: 600; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; font-weight: 600; margin: 3.2rem 0 .4rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; font-weight: 600; margin: 1.8rem 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
a { color: var(--link); text-underline-offset: .15em; }
.meta, .note, small, figcaption { color: var(--muted); font-size: .875rem; }
.meta { margin: .4rem 0 0; }
.verdict {
  margin: 1.5rem 0 0; padding: .1rem 0 .1rem 1rem; border-left: 4px solid var(--muted); font-size: 1.2rem; line-height: 1.45;
}
.verdict.leaks { border-color: var(--alarm); }
.verdict.tight { border-color: var(--calm); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .75rem; margin: 1.6rem 0 0; padding: 0; }
.tile { list-style: none; background: var(--wash); border-radius: .5rem; padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.7rem; font-weight: 600; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile b span { font-size: .9rem; font-weight: 400; color: var(--muted); white-space: nowrap; }
.tile .name { display: block; font-weight: 600; overflow-wrap: anywhere; }
.warning { border: 1px solid var(--alarm); border-radius: .5rem; padding: .7rem 1rem; margin: 1.5rem 0 0; }
.warning p { margin: 0; } .warning code { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
.wide { width: 100%; }
th { text-align: left; font-weight: 500; color: var(--muted); font-size: .8rem; vertical-align: bottom; }
tbody th { color: var(--ink); font-size: .9rem; font-weight: 600; vertical-align: top; min-width: 8rem; }
th, td { padding: .5rem .9rem .5rem 0; border-bottom: 1px solid var(--line); }
td { vertical-align: top; }
thead th { border-bottom-color: var(--muted); }
.interval { color: var(--muted); }
td small, th small, .tile small { display: block; font-weight: 400; white-space: nowrap; }
.tile small { white-space: normal; }
td small.wrap, th small.wrap { white-space: normal; }
td.number { white-space: nowrap; }
tr.control th, tr.control td { color: var(--muted); }
.badge {
  display: inline-block; border: 1px dashed currentColor; border-radius: .7rem; padding: 0 .5rem;
  font-size: .72rem; font-weight: 500; line-height: 1.35rem; vertical-align: .08em; white-space: nowrap; color: var(--muted);
}
.badge.failed { border-style: solid; color: var(--alarm); }
.steps { letter-spacing: .12em; white-space: nowrap; }
.pictures td, .pictures th { border: 0; padding: .3rem .45rem; text-align: center; vertical-align: bottom; }
.pictures thead th { color: var(--ink); font-size: .8rem; line-height: 1.25; font-weight: 600; max-width: 7rem; min-width: 0; }
.pictures tbody th { text-align: left; vertical-align: middle; font-weight: 500; min-width: 5rem; max-width: 9rem; overflow-wrap: anywhere; }
.pictures td { vertical-align: top; }
.pictures img { display: block; width: 5.6rem; height: auto; margin: 0 auto; border-radius: .2rem; }
.pictures img.coarse { image-rendering: pixelated; }
.pictures .private { background: var(--wash); }
.pictures .control img { opacity: .75; outline: 1px dashed var(--muted); outline-offset: 2px; }
.bar { display: block; height: .3rem; margin: .35rem auto .1rem; width: 5.6rem; border-radius: .15rem; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--alarm); }
.control .bar i { background: var(--muted); }
.count { font-size: .75rem; color: var(--muted); }
figure { margin: 1rem 0; }
figure .scroll { margin: 0 0 .3rem; }
figure img { display: block; width: 100%; min-width: 34rem; max-width: 52rem; height: auto; }
pre { background: var(--wash); border-radius: .5rem; padding: .9rem 1rem; overflow-x: auto; font-size: .82rem; line-height: 1.5; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--link); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .9rem; margin: .8rem 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.6rem; } .verdict { font-size: 1.05rem; }
  .pictures img, .bar { width: 4.6rem; }
  .pictures tbody th { position: sticky; left: 0; background: var(--paper); min-width: 4rem; font-size: .8rem; }
  .pinned tbody th, .pinned thead th:first-child { position: sticky; left: 0; background: var(--paper); min-width: 7rem; }
}
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""

PARTS = """{%- macro badge(control) %}{% if control %} <span class="badge">control</span>{% endif %}{% endmacro -%}
{%- macro measured(m) %}{% if m is mapping %}<span title="{{ m.how }}">{{ m.value }}
<span class="interval">{{ m.interval }}</span></span><small>{{ m.n }}</small>{% else %}{{ m }}{% endif %}{% endmacro -%}
{%- macro access(s) %}<span class="steps" role="img" aria-label="{{ s.steps }} of 3">
{{- "●" * s.steps }}{{ "○" * (3 - s.steps) }}</span> {{ s.words }}<small>{{ s.box }}</small>{% endmacro -%}
{%- macro drawing(d, caption) %}<figure><div class="scroll" tabindex="0"><picture>
<source srcset="{{ d.dark }}" media="(prefers-color-scheme: dark)"><img src="{{ d.light }}" alt="{{ d.text }}">
</picture></div><figcaption>{{ caption }}</figcaption></figure>{% endmacro %}
{%- macro trained(row) %}{% if row.training %}<small class="wrap">and {{ row.training }} in training, once for all cases
</small>{% endif %}{% endmacro %}
{%- macro threat_model(threats) %}<h2>Threat model</h2>
<p class="note">What each adversary is granted. An attack is given no more than its row says.</p>
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr><th scope="col">attack</th><th scope="col">sees of the model</th><th scope="col">knows beforehand</th>
<th scope="col">recovers</th><th scope="col">queries per case</th></tr></thead>
<tbody>
{% for row in threats %}
<tr{% if row.control %} class="control"{% endif %}><th scope="row">{{ row.label }}{{ badge(row.control) }}
<small class="wrap">{% if row.link %}<a href="{{ row.link }}" title="{{ row.card.paper }}" rel="noreferrer">{{ row.card.title }}</a>
{%- else %}{{ row.card.title }}{% endif %}{% if row.card.year %}, {{ row.card.year }}{% endif %}</small></th>
<td>{{ access(row.sees) }}</td><td>{{ row.card.knows or "nothing" }}</td><td>{{ row.card.recovers }}</td>
<td class="number">{{ row.mean }}{% if row.max %}<small>at most {{ row.max }}</small>{% endif %}{{ trained(row) }}</td></tr>
{% endfor %}
</tbody></table></div>{% endmacro %}
{%- macro warned(warnings) %}{% for text in warnings %}
<div class="warning" role="note"><p><strong>Beware:</strong> {{ text }}</p></div>
{% endfor %}{% endmacro %}
{%- macro head(title, style) %}<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="jaxmia">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<header>{% endmacro -%}
"""
"""Macros of every page, in front of its template."""

PAGE = """{{ head(title, style) }}
<h1>{{ title }}</h1>
<p class="meta">{{ summary }}</p>
{% for verdict in verdicts %}
<p class="verdict{{ {True: " leaks", False: " tight"}.get(verdict.leaks, "") }}">{{ verdict.text }}</p>
{% else %}
<p class="verdict">No attack has finished with a metric, so nothing can be said yet.</p>
{% endfor %}
{{ warned(warnings) }}{% if unfinished %}
<div class="warning" role="note"><p><strong>{{ unfinished|length }} of {{ unfinished|length + finished }} cells
{{ "is" if unfinished|length == 1 else "are" }} unfinished</strong> and not in the numbers below:
{% for name in unfinished %}<code>{{ name }}</code>{{ ", " if not loop.last else "." }}{% endfor %}</p></div>
{% endif %}
{% if tiles %}
<ul class="tiles">
{% for tile in tiles %}
<li class="tile"><span class="name">{{ tile.name }}</span>
<small>{{ tile.about }}</small>
<b>{{ tile.value }} <span>{{ tile.interval }}</span></b>
<small>{{ tile.metric }}, strongest attack: {{ tile.label }}</small></li>
{% endfor %}
</ul>
{% endif %}
</header>

{{ threat_model(threats) }}

{% if grids %}
<h2>Pictures</h2>
<p class="note">The first candidate of each class, not the best one, for the first {{ pictured }} classes at most. The bar
counts the candidates of that class in which the first evaluator finds it. Reconstructions are shown at full contrast
(their 1st to 99th percentile); the run folder holds them as they are.</p>
{% for grid in grids %}
{% if grids|length > 1 %}<h3>{{ grid.title }}</h3>{% endif %}
<div class="scroll" tabindex="0"><table class="pictures">
<thead><tr><td></td>{% if grid.private %}<th scope="col">private</th>{% endif %}
{% for column in grid.columns %}<th scope="col">{{ column.label }}{{ badge(column.control) }}</th>{% endfor %}
{% if grid.nearest %}<th scope="col">{{ grid.nearest }}</th>{% endif %}</tr></thead>
<tbody>
{% for row in grid.rows %}
<tr><th scope="row">{{ row.name }}</th>
{% if grid.private %}<td class="private"><img src="{{ row.private.uri }}" alt="private image of {{ row.name }}"
{%- if row.private.coarse %} class="coarse"{% endif %}></td>{% endif %}
{% for entry in row.entries %}<td{% if entry.control %} class="control"{% endif %}>{% if entry.uri %}
<img src="{{ entry.uri }}" alt="{{ entry.label }}: {{ row.name }}"{% if entry.coarse %} class="coarse"{% endif %}>
<span class="bar" aria-hidden="true"><i style="width: {{ entry.percent }}%"></i></span>
<span class="count">{{ entry.hits }} of {{ entry.tries }}</span>{% else %}<span class="count">not attacked</span>
{% endif %}</td>{% endfor %}
{% if grid.nearest %}<td>{% if row.nearest %}<img src="{{ row.nearest.uri }}" alt="nearest public image"
{%- if row.nearest.coarse %} class="coarse"{% endif %}>{% endif %}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% endif %}

{% if heat %}
<h2>Success by class</h2>
{{ drawing(heat, "Share of candidates in which the evaluator finds the class, in percent. Seeds are pooled.") }}
{% endif %}

{% if overviews or metrics %}
<h2>How much is recovered</h2>
{% for overview in overviews %}
{{ drawing(overview.drawing, overview.caption) }}
{% endfor %}
{% for block in metrics %}
{% if metrics|length > 1 %}<h3>{{ block.title }}</h3>{% endif %}
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr><th scope="col">attack</th>{% for name in block.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in block.rows %}
<tr{% if row.control %} class="control"{% endif %}><th scope="row">{{ row.label }}{{ badge(row.control) }}
{% if row.about %}<small>{{ row.about }}</small>{% endif %}</th>
{% for m in row.entries %}<td class="number">{{ measured(m) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% if metrics %}<p class="note">Value, interval in brackets, number of cases. {{ intervals }} Rows marked control show what is
reached where there is nothing to recover.</p>{% endif %}
{% endif %}

{% if curves %}
<h2>Over the steps</h2>
{% for curve in curves %}{{ drawing(curve.drawing, curve.caption) }}{% endfor %}
{% endif %}

{% for table in tables %}
<h2>{{ table.title }}</h2>
{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr>{% for name in table.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if row.control %} class="control"{% endif %}>{% for m in row.entries %}
{%- if loop.first %}<th scope="row">{{ measured(m) }}{{ badge(row.control) }}</th>
{%- else %}<td class="number">{{ measured(m) }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}

<h2>Targets</h2>
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr><th scope="col">model</th><th scope="col">data</th><th scope="col">test accuracy</th><th scope="col">defense</th>
<th scope="col">grants at most</th><th scope="col">parameters</th><th scope="col">training time</th></tr></thead>
<tbody>
{% for row in targets %}
<tr><th scope="row">{{ row.name }}<small class="wrap">{{ row.architecture }}</small></th><td>{{ row.dataset }}</td>
<td class="number">{{ measured(row.accuracy) }}</td><td>{{ row.defense or "none" }}</td><td>{{ access(row.granted) }}</td>
<td class="number">{{ row.parameters }}</td><td class="number">{{ row.seconds }}</td></tr>
{% endfor %}
</tbody></table></div>

<h2>Cost</h2>
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr><th scope="col">cell</th><th scope="col">candidates</th><th scope="col">how they ended</th>
<th scope="col">queries per case</th><th scope="col">time</th><th scope="col">per candidate</th></tr></thead>
<tbody>
{% for row in costs %}
<tr{% if row.control %} class="control"{% endif %}><th scope="row">{{ row.label }}{{ badge(row.control) }}
<small class="wrap">{{ row.about }}</small></th><td class="number">{{ row.n }}</td>
<td>{% for name, count, failed in row.status %}{% if failed %}<span class="badge failed">{{ count }} {{ name }}</span>
{%- else %}{{ count }} {{ name }}{% endif %}{{ ", " if not loop.last }}{% endfor %}</td>
<td class="number">{{ row.queries }}{{ trained(row) }}</td><td class="number">{{ row.seconds }}</td><td class="number">{{ row.each }}</td></tr>
{% endfor %}
{% for name in unfinished %}
<tr class="control"><th scope="row">{{ name }} <span class="badge failed">unfinished</span></th>
<td>–</td><td>–</td><td>–</td><td>–</td><td>–</td></tr>
{% endfor %}
</tbody></table></div>
<details><summary>Hyperparameters of every cell</summary>
{% for row in costs %}<h3>{{ row.label }}{{ badge(row.control) }} <small>{{ row.about }}, {{ row.name }}</small></h3>
<dl>{% for name, value in row.hyperparameters %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% else %}<dt>none</dt><dd></dd>
{% endfor %}</dl>{% endfor %}
</details>

<h2>Reproduce</h2>
<pre><code>{{ command }}</code></pre>
<details><summary>config.yaml</summary><pre><code>{{ config }}</code></pre></details>
<h3>Environment</h3>
<dl>{% for name, value in environment %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
<p class="note">All numbers of this page are in results.csv beside it.</p>
</main>
</body>
</html>
"""
