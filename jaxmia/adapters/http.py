"""A target behind HTTP: a service that answers JSON with scores or labels."""

import base64
import functools
import hashlib
import io
import json
import math
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmia.adapters.answer_store import AnswerStore, EndpointError
from jaxmia.adapters.endpoint import BATCH, ONE, PICTURE, VARIABLE, Endpoint
from jaxmia.adapters.function import standardizer
from jaxmia.adapters.host import from_callable
from jaxmia.answers import check_declaration
from jaxmia.core import Defense
from jaxmia.oracle import Access
from jaxmia.packages import require
from jaxmia.target import Target

__all__ = ["EndpointError", "from_http"]

PER_CALL = 32  # candidates of a request, unless somebody says


def from_http(
    url: str,
    *,
    classes: int,
    request: Any,
    answer: str,
    names: Sequence[str] | None = None,
    headers: Mapping[str, str] = {},
    version: str | None = None,
    per_call: int | None = None,
    per_second: int | float | None = None,
    attempts: int = 5,
    timeout: int | float = 30,
    budget: int | None = None,
    cache: str | os.PathLike | None = None,
    replay: bool = False,
    granted: Access = Access.SCORES,
    defense: Defense | None = None,
    answers: str = "probabilities",
    preprocess: Sequence[Any] | None = None,
    example: Any = None,
    secret: int = 0,
    noise: str = "memoized",
    grid: int | None = 255,
) -> Target:
    """A target behind HTTP, asked by POST with a JSON body.

        from_http(
            "https://models.example.org/v1/models/faces:predict",
            classes=40,
            request={"instances": "{candidates}"},
            answer="predictions",
            headers={"Authorization": "Bearer ${API_KEY}"},
            version="2026-03",
            cache="runs/answers",
            budget=20_000,
        )

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1]. Requests go one after another,
    whatever the plan. Status 429 or 5xx, no answer in time and a broken connection are tried again: after as long as the
    server's Retry-After says, up to 15 minutes, else after 1, 2, 4 ... 60 seconds, of which chance takes off up to half.
    Anything else that is no answer ends the run at once. Redirects are not followed; certificates are always verified;
    a proxy that the environment names is used.

    A run in a folder does not ask again what it was answered, but for the last call before an error; with a cache not even
    that.

    Args:
      url: http or https. No message shows its query; a secret belongs into `headers` all the same.
      classes: number of classes, 2 or more.
      request: the JSON body, in which one text stands for what is asked: "{candidates}" for a batch as nested lists;
        "{candidate}" for one candidate, which makes a request of each; "{png}" for one image, gray or RGB, as a PNG of 8
        bits a channel in base64, which may stand within a text: "data:image/png;base64,{png}". Numbers outside [0, 1] are
        clipped there, and gray levels rounded.
      answer: where in the JSON answer the scores `[n, classes]` or labels `[n]` are: names and places from 0 between
        dots, "*" for each of a list; "" for the whole. Such as "predictions", "outputs.0.data", "results.*.scores". Of a
        request for one candidate it may lead to scores `[classes]` or a label.
      names: of the classes, in their order, where an endpoint that grants LABELS answers these in place of numbers.
      headers: texts. "${NAME}" in one stands for the environment variable NAME, read at each request: its value is
        neither kept nor shown.
      version: text that names the model behind the URL. A run in a folder needs it, and what another version answered is
        never taken for its answers.
      per_call: the most candidates of a request, by default 32; with "{candidate}" and "{png}" 1.
      per_second: the most requests a second; None for no limit.
      attempts: how often a request is sent before the run ends, 1 or more.
      timeout: seconds that a connection, or the next part of an answer, may take.
      budget: the most candidates that may ever be asked, by this target or, with a cache, by all targets that share it. A
        candidate counts when it is sent, once for all attempts, whether or not it is answered; from the cache it is free.
        A call that would exceed it sends nothing. None for no limit.
      cache: folder (created 0700) in which answers are kept, so that nothing is asked twice, in this run or another.
        Equal candidates are one question there. Several processes may share it; a candidate that two of them ask at the
        same moment is asked twice.
      replay: take every answer from the cache and ask nothing; one that is missing ends the run.
      granted: LABELS or SCORES; an endpoint has no gradients to give.
      defense: its `answer` acts on scores and labels.
      answers: what the scores are, as in `from_callable`: "probabilities", "logits" or "anything".
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: (x - mean) / deviation is sent. Not with
        "{png}".
      example: candidates `[n, ...]`, such as held-out images, to ask about now.
      secret: what the defense's noise is drawn from, 0 to 2^32 - 1.
      noise: "memoized" or, to measure averaging, "fresh".
      grid: how finely queries are told apart where there is noise; None by every bit.

    Raises:
      ImportError: without httpx, unless it is a replay.
      ValueError: for options that cannot be meant.
      ThreatModelError: for a grant of weights.
      EndpointError: when asked: for an endpoint that does not answer, or not what was declared, an
        environment variable that is not set, an answer that a replay lacks.
      BudgetSpent: of `jaxmia.queries`, when asked for more than the budget allows.
    """
    check_declaration(classes, answers)
    standardizer(preprocess)
    if not replay:
        require("httpx")  # before a cache is made
    elif cache is None:
        raise ValueError("replay: True without a cache; legal is with cache=, the folder that holds the answers")
    _check_numbers(per_call=per_call, attempts=attempts, budget=budget)
    _check_numbers(whole=False, per_second=per_second, timeout=timeout)
    shown = _check_url(url)
    template, place = _template(request)
    if place != BATCH and per_call not in (None, 1):
        raise ValueError(f"per_call: {per_call}; legal is 1 where the request holds {place}")
    if place == PICTURE and preprocess is not None:
        raise ValueError(f"preprocess: {preprocess}; legal is None where the request holds {PICTURE}")
    if names is not None and (granted != Access.LABELS or len(set(names)) != classes or len(names) != classes):
        raise ValueError(f"names: {len(names)} texts; legal is {classes} different ones, with granted=Access.LABELS")
    if version is not None and not version:
        raise ValueError("version: ''; legal is a text that names the model, such as its date, or None")
    _check_headers(headers)
    form = json.dumps([template, answer, names and list(names), int(classes), Access(granted).name], sort_keys=True)
    endpoint = Endpoint(
        url=url, shown=shown, body=functools.partial(_body, template, place), place=place, path=answer,
        headers=dict(headers), attempts=attempts,
        numbers=None if names is None else {name: number for number, name in enumerate(names)},
        classes=classes, labels=granted == Access.LABELS, timeout=timeout, budget=budget,
        per_call=(per_call or PER_CALL) if place == BATCH else 1, pause=1 / per_second if per_second else 0.0,
        store=None if cache is None else AnswerStore(cache, replay), replay=replay,
        kind=hashlib.sha256(f"{url}\n{version}\n{form}".encode()).digest(),
    )  # fmt: skip
    how = [form, answers, None if preprocess is None else [np.asarray(part).tolist() for part in preprocess]]
    identity = f"{shown} {version} {hashlib.sha256(repr(how).encode()).hexdigest()}" if version else None
    return from_callable(
        endpoint, classes=classes, granted=granted, defense=defense, answers=answers, preprocess=preprocess,
        identity=identity, example=example, secret=secret, noise=noise, grid=grid,
    )  # fmt: skip


def _check_numbers(*, whole: bool = True, **given: int | float | None) -> None:
    for name, value in given.items():
        fits = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
        if value is not None and not (fits and math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: {value!r}; legal is {'1 or more' if whole else 'a number above 0'}")


def _check_url(url: str) -> str:
    """The URL as it may be shown: without its query."""
    legal = "legal is http:// or https://, a host and a path, percent-encoded"
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.hostname and re.fullmatch("[!-~]+", url) and (parts.port is None or parts.port)
    except ValueError:
        raise ValueError(f"url: cannot be read; {legal}") from None
    if parts.scheme not in ("http", "https") or not fits:
        raise ValueError(f"url: begins with {parts.scheme or 'no scheme'}, or is not written as one; {legal}")
    if "@" in parts.netloc:
        raise ValueError(f"url: holds a user's name or password, which belong into headers=; {legal}")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not (isinstance(name, str) and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII)):
            raise ValueError(f"headers: {name!r}; legal is a name of letters, digits and -")
        if not isinstance(value, str):
            raise ValueError(f"headers: {name} is a {type(value).__name__}; legal is a text")
        if "${" in VARIABLE.sub("", value):
            raise ValueError(f"headers: {name} holds a '${{' without a name and '}}'; legal is such as ${{API_KEY}}")


def _template(request: Any) -> tuple[Any, str]:
    """The body as a JSON value of our own, and which text in it stands for what is asked."""
    try:
        template = json.loads(json.dumps(request, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"request: is no JSON ({error}); legal is dicts, lists, texts and numbers") from None
    found = list(_placeholders(template))
    if len(found) != 1:
        said = f"{' and '.join(found)} stand in it" if found else "nothing in it stands for what is asked"
        raise ValueError(f"request: {said}; legal is one of {BATCH}, {ONE} and {PICTURE}, as a value, once")
    return template, found[0]


def _placeholders(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield from [template] if template in (BATCH, ONE) else [PICTURE] * template.count(PICTURE)
    elif isinstance(template, dict | list):
        for value in template.values() if isinstance(template, dict) else template:
            yield from _placeholders(value)


def _body(template: Any, place: str, part: np.ndarray) -> bytes:
    """The request for candidates `[n, ...]`; n is 1 unless `place` stands for a batch."""
    value: Any = part.tolist() if place == BATCH else part[0].tolist()
    if place == PICTURE:
        value = base64.b64encode(_png(part[0])).decode()
    return json.dumps(_filled(template, place, value)).encode()


def _filled(template: Any, place: str, value: Any) -> Any:
    if isinstance(template, dict):
        return {name: _filled(part, place, value) for name, part in template.items()}
    if isinstance(template, list):
        return [_filled(part, place, value) for part in template]
    if isinstance(template, str) and place == PICTURE:
        return template.replace(place, value)
    return value if isinstance(template, str) and template == place else template


def _png(pixels: np.ndarray) -> bytes:
    """Of `[height, width, 1 or 3]` uint8."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
