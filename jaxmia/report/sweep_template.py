# ruff: noqa: E501 (markup)
"""The page of a sweep: its Jinja template, behind the macros of every page."""

__all__ = ["SWEEP_PAGE"]

SWEEP_PAGE = """{%- macro named(values) %}{% for value in values %}<td>{{ value }}</td>{% endfor %}{% endmacro -%}
{%- macro tradeoff_rows(rows, numbered) %}
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr>{% if numbered %}<th scope="col">front</th>{% endif %}<th scope="col">target</th><th scope="col">test accuracy</th>
<th scope="col">strongest attack reaches</th><th scope="col">strongest attack</th></tr></thead>
<tbody>
{% for row in rows %}
<tr>{% if numbered %}<td class="number"><b>{{ loop.index }}</b></td>{% endif %}<th scope="row">{{ row.target }}
<small class="wrap">{{ row.about }}</small></th><td class="number">{{ measured(row.accuracy) }}</td>
<td class="number">{{ measured(row.risk) }}</td><td>{{ row.attack }}<small class="wrap">{{ row.attack_about }}</small></td></tr>
{% endfor %}
</tbody></table></div>{% endmacro -%}
{{ head(title, style) }}
<h1>{{ title }}</h1>
<p class="meta">{{ summary }}</p>
{% for text in strongest %}
<p class="verdict">{{ text }}</p>
{% else %}
<p class="verdict">No cell has finished with a metric, so nothing can be said yet.</p>
{% endfor %}
{{ warned(warnings) }}{% if unfinished %}
<div class="warning" role="note"><p><strong>{{ unfinished|length }} of {{ unfinished|length + finished }} cells
{{ "is" if unfinished|length == 1 else "are" }} unfinished</strong> and not in the numbers below:
{% for name in unfinished %}<code>{{ name }}</code>{{ ", " if not loop.last else "." }}{% endfor %}</p></div>
{% endif %}
{% if left_out %}
<div class="warning" role="note"><p><strong>Left out:</strong> finished cells that results.csv does not have, as of a sweep
over other values: {% for name in left_out %}<code>{{ name }}</code>{{ ", " if not loop.last else "." }}{% endfor %}</p></div>
{% endif %}
</header>

{% if threats %}{{ threat_model(threats) }}{% endif %}

{% if tradeoffs %}
<h2>Privacy and utility</h2>
{% for one in tradeoffs %}
{% if tradeoffs|length > 1 %}<h3>{{ one.metric }}</h3>{% endif %}
{{ drawing(one.drawing, one.caption) }}
{{ tradeoff_rows(one.front, true) }}
{% if one.rest %}<details><summary>{{ one.rest|length }} behind the front</summary>
{{ tradeoff_rows(one.rest, false) }}
</details>{% endif %}
{% endfor %}
{% endif %}

{% if curves %}
<h2>By setting</h2>
{% for figure in curves %}
<h3>{{ figure.title }}</h3>
{{ drawing(figure.drawing, figure.caption) }}
{% endfor %}
{% endif %}

{% if heats %}
<h2>By two settings</h2>
{% for figure in heats %}
<h3>{{ figure.title }}</h3>
{{ drawing(figure.drawing, figure.caption) }}
{% endfor %}
{% endif %}

{% if rungs %}
<h2>Rungs</h2>
<p class="note">Successive halving: what went on to the next rung got a larger budget. {{ rungs.told }} Each value is the
strongest attack of its cell on any target, in its headline metric; settings by the last rung reached, then by that value.</p>
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr><th scope="col">setting</th>{% for name in rungs.columns %}<th scope="col">{{ name }}</th>{% endfor %}<th scope="col">reached</th></tr></thead>
<tbody>
{% for row in rungs.rows %}
<tr{% if not row.last %} class="control"{% endif %}><th scope="row">{{ row.setting }}</th>
{% for m in row.entries %}<td class="number">{{ measured(m) }}</td>{% endfor %}<td>{{ row.reached }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

<h2>All cells</h2>
<p class="note">{{ table.metrics }} A cell's name leads to its own page.</p>
<div class="scroll" tabindex="0"><table class="wide pinned">
<thead><tr><th scope="col">cell</th>{% for path in table.paths %}<th scope="col">{{ path }}</th>{% endfor %}
<th scope="col">target</th><th scope="col">test accuracy</th>
{% for column in table.columns %}<th scope="col">{{ column.label }}{{ badge(column.control) }}<small>{{ column.metric }}</small></th>{% endfor %}</tr></thead>
{% for cell in table.cells %}
<tbody>
{% for row in cell.rows %}
<tr{% if row.control %} class="control"{% endif %}>{% if loop.first %}<th scope="rowgroup" rowspan="{{ cell.rows|length }}"><a href="{{ cell.name }}/report.html">{{ cell.name }}</a></th>
{% for value in cell.paths %}<td rowspan="{{ cell.rows|length }}">{{ value }}</td>{% endfor %}{% endif %}
<td>{{ row.target }}</td><td class="number">{{ measured(row.accuracy) }}</td>
{% for m in row.entries %}<td class="number">{{ measured(m) }}</td>{% endfor %}</tr>
{% else %}
<tr class="control"><th scope="row">{{ cell.name }} <span class="badge failed">unfinished</span></th>
{{ named(cell.paths) }}<td>–</td><td>–</td>{% for column in table.columns %}<td></td>{% endfor %}</tr>
{% endfor %}
</tbody>
{% endfor %}
</table></div>
{% if intervals %}<p class="note">Value, interval in brackets, number of cases. {{ intervals }} Columns marked control show what is
reached where there is nothing to recover.</p>{% endif %}

<h2>Reproduce</h2>
{% for command in commands %}
<pre><code>{{ command }}</code></pre>
{% endfor %}
<h3>Environment</h3>
<dl>{% for name, value in environment %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
<p class="note">All metrics of all cells are in results.csv beside this page.</p>
</main>
</body>
</html>
"""
