"""A target behind HTTP: asked what is counted, patient, within its budget, and silent about secrets."""

import base64
import datetime
import email.utils
import http.server
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmia import Access, Attack, Plan, Process, Scenario, from_http, info, packages, run, solve
from jaxmia.adapters.answer_store import AnswerStore
from jaxmia.adapters.http import EndpointError
from jaxmia.queries import BudgetSpent

pytest.importorskip("httpx")

KEY, SHAPE, CLASSES = jax.random.key(3), (2, 3, 3), 4
WEIGHTS = np.random.default_rng(0).normal(size=(18, CLASSES)).astype(np.float32)
IMAGES = np.random.default_rng(1).random((7, *SHAPE), np.float32)
NAMES = ["ann", "bob", "cyd", "dot"]
SECRET = "sk-1f4e9aa0c7"
QUIET = Plan(devices=tuple(jax.devices()[:1]), progress=False)


def scores(x):
    """The same numbers for a candidate whatever stands beside it."""
    rows = np.asarray(x, np.float32).reshape(len(x), -1) - np.float32(0.5)
    likely = np.exp(np.stack([(row[:, None] * WEIGHTS).sum(0) for row in rows]))
    return likely / likely.sum(1, keepdims=True)


def usual(body):
    return {"predictions": scores(body["instances"]).tolist()}


class Service:
    """A server on the loopback interface.

    Attributes:
      answer: of a body what is answered: a JSON value, or bytes.
      troubles: statuses, with headers, that the next requests get in place of an answer; "hang" and "drop" end without.
      bodies, headers: of the requests that were answered.
      requests: how many there were.
    """

    def __init__(self):
        self.answer, self.troubles, self.bodies, self.headers, self.requests = usual, [], [], [], 0
        self.released = threading.Event()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                service.reply(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.shown = f"http://127.0.0.1:{self.server.server_port}/v1/faces:predict"
        self.url = self.shown + "?token=in-the-query"

    def reply(self, handler):
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.requests += 1
        if self.troubles:
            trouble, headers = self.troubles.pop(0)
            if trouble == "hang":
                self.released.wait(20)
            if trouble in ("hang", "drop"):
                handler.close_connection = True
                return
            self.finish(handler, trouble, headers, b"")
            return
        self.bodies.append(json.loads(body))
        self.headers.append(handler.headers)
        found = self.answer(json.loads(body))
        self.finish(handler, 200, {}, found if isinstance(found, bytes) else json.dumps(found).encode())

    def finish(self, handler, status, headers, content):
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    @property
    def asked(self):
        """Candidates that were answered, as bytes, one of each time."""
        return [np.asarray(x, np.float32).tobytes() for body in self.bodies for x in body["instances"]]


@pytest.fixture
def service(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # to read real certificates takes longer than a test
    service = Service()
    yield service
    service.released.set()
    service.server.shutdown()
    service.server.server_close()


class Clock:
    """What the adapter takes for time: nobody waits."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("jaxmia.adapters.endpoint.time", clock)
    return clock


def target(service, **changed):
    how = {"classes": CLASSES, "request": {"instances": "{candidates}"}, "answer": "predictions"}
    return from_http(service.url, **{**how, **changed})


def answers(target, x=IMAGES):
    return np.asarray(jax.vmap(target.view(Access.SCORES).answer, (None, 0))(KEY, x))


def labels(target, x=IMAGES):
    """What of labels comes through all of JAX."""
    return np.asarray(jax.vmap(target.view(Access.LABELS).answer, (None, 0))(KEY, x))


def test_scores_are_those_of_the_server_in_requests_of_the_largest_size(service):
    np.testing.assert_array_equal(answers(target(service, per_call=3)), scores(IMAGES))
    assert [len(body["instances"]) for body in service.bodies] == [3, 3, 1]
    assert service.asked == [x.tobytes() for x in IMAGES], "a number arrived as another"
    assert service.headers[0]["Content-Type"] == "application/json"


def test_preprocessed_candidates_are_sent_and_logits_become_probabilities(service):
    service.answer = lambda body: {"out": [{"logits": np.log(scores([x]))[0].tolist()} for x in body["instances"]]}
    found = answers(target(service, answer="out.*.logits", answers="logits", preprocess=(0.5, 0.25)))
    np.testing.assert_allclose(found, scores((IMAGES - 0.5) / 0.25), rtol=1e-5)


@pytest.mark.parametrize("flat", [True, False])
def test_one_candidate_a_request(flat, service):
    def answer(body):
        found = scores([body["inputs"]["image"]]).tolist()
        return [{"scores": found[0] if flat else found}]

    service.answer = answer
    request = {"inputs": {"image": "{candidate}", "kind": "face"}, "top": 4}
    np.testing.assert_array_equal(answers(target(service, request=request, answer="0.scores")), scores(IMAGES))
    assert len(service.bodies) == len(IMAGES) and service.bodies[0]["top"] == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_arrives_as_the_gray_levels_nearest_to_it(channels, service):
    def answer(body):
        start, _, picture = body["image"].partition("base64,")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        assert start == "data:image/png;" and pixels.dtype == np.uint8
        seen.append(pixels.reshape(SHAPE[0], SHAPE[1], channels))
        return {"p": scores([np.resize(pixels / 255, SHAPE)])[0].tolist()}

    seen, images = [], IMAGES[..., :channels] * 1.2 - 0.1
    service.answer = answer
    answers(target(service, request={"image": "data:image/png;base64,{png}"}, answer="p"), images)
    np.testing.assert_array_equal(np.array(seen), np.round(np.clip(images, 0, 1) * 255))
    with pytest.raises(EndpointError, match=r"request: candidates are \[18\]; legal for {png} is"):
        target(service, request={"image": "{png}"}, answer="p", example=IMAGES.reshape(7, -1))


def test_labels_as_numbers_and_as_names(service):
    wanted = scores(IMAGES).argmax(1)
    assert len(set(wanted.tolist())) > 1, "all labels are the same: nothing is shown"
    for names in (None, NAMES):

        def answer(body, names=names):
            found = scores(body["instances"]).argmax(1).tolist()
            return {"predictions": found if names is None else [names[label] for label in found]}

        service.answer = answer
        np.testing.assert_array_equal(labels(target(service, granted=Access.LABELS, names=names)), wanted)
    with pytest.raises(EndpointError, match="names: .* answered 'dot', which is none of them"):
        target(service, granted=Access.LABELS, names=["ann", "bob", "cyd", "eve"], example=IMAGES)
    service.answer = usual
    np.testing.assert_array_equal(labels(target(service, granted=Access.LABELS)), wanted)


def test_one_name_of_one_picture(service):
    service.answer = lambda body: {"name": NAMES[scores([body["x"]]).argmax()]}
    told = target(service, request={"x": "{candidate}"}, answer="name", granted=Access.LABELS, names=NAMES)
    np.testing.assert_array_equal(labels(told), scores(IMAGES).argmax(1))


@pytest.mark.parametrize("wait", ["7", "date"])
def test_a_rate_limited_answer_is_asked_again_after_the_stated_wait(wait, service, clock):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=300)
    header = email.utils.format_datetime(soon, usegmt=True) if wait == "date" else wait
    service.troubles = [(429, {"Retry-After": header})]
    np.testing.assert_array_equal(answers(target(service)), scores(IMAGES))
    (slept,) = clock.slept
    assert slept == 7 if wait == "7" else 200 < slept <= 300
    assert service.requests == 2


def test_without_a_stated_wait_each_is_longer_than_the_one_before_up_to_a_limit(service, clock):
    service.troubles = [(500, {"Retry-After": "later"}), ("drop", {}), *[(503, {})] * 6]
    np.testing.assert_array_equal(answers(target(service, attempts=9)), scores(IMAGES))
    for slept, most in zip(clock.slept, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert most / 2 <= slept <= most


def test_the_last_attempt_ends_it_with_one_sentence_without_the_query(service, clock):
    service.troubles = [(503, {})] * 3
    with pytest.raises(EndpointError) as found:
        target(service, attempts=3, example=IMAGES)
    assert str(found.value) == f"{service.shown}: answered status 503, at the last of 3 attempts"
    assert service.requests == 3 and len(clock.slept) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "answered status 400$"), (401, "answered status 401$"), (307, "a redirect, which is not")],
)
def test_what_no_attempt_can_help_ends_it_at_once(status, words, service, clock):
    service.troubles = [(status, {"Location": service.url})]
    with pytest.raises(EndpointError, match=words):
        target(service, example=IMAGES)
    assert service.requests == 1 and not clock.slept


def test_a_wait_of_hours_ends_it_at_once(service, clock):
    service.troubles = [(429, {"Retry-After": "86400"})]
    with pytest.raises(EndpointError, match="status 429, and asks to wait 86,400 seconds; start again then"):
        target(service, example=IMAGES)
    assert not clock.slept


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_was_said(service, clock):
    service.troubles = [("hang", {})] * 2
    with pytest.raises(EndpointError, match="no answer within 0.05 seconds, at the last of 2 attempts"):
        target(service, timeout=0.05, attempts=2, example=IMAGES)


def test_a_server_that_is_gone(service, clock):
    service.server.shutdown()
    service.server.server_close()
    with pytest.raises(EndpointError, match="cannot be reached, at the last of 2 attempts"):
        target(service, attempts=2, example=IMAGES)


def test_requests_keep_to_their_rate_attempts_too(service, clock):
    service.troubles = [(429, {"Retry-After": "0"})]
    answers(target(service, per_call=2, per_second=4))
    assert service.requests == 5 and sum(clock.slept) == pytest.approx(4 * 0.25)


WRONG = {
    "HTML": (b"<html>Bad gateway</html>", "answered HTML is no JSON"),
    "no JSON": (b"", "answered what is no JSON"),
    "deep": (b"[" * 100_000, "answered what is no JSON"),
    "missing": (
        {"error": "overloaded", "code": 3},
        "answer: 'predictions', but .* answered a dict of error, code at the top; legal is a path in its answer",
    ),
    "list": ([1], "answered a list of 1 at the top"),
    "number": (3, "answered a number, a text or null at the top"),
    "short": (
        {"predictions": [[0.5, 0.5]] * 7},
        r"at predictions, float64 of shape \[7, 2\]; legal is \[7, 4\] scores$",
    ),
    "fewer": ({"predictions": [[0.25] * 4] * 6}, r"float64 of shape \[6, 4\]; legal is \[7, 4\]"),
    "ragged": ({"predictions": [[0.25] * 4] * 6 + [[1.0]]}, "lists of unequal lengths; legal is"),
    "texts": ({"predictions": [["0.25"] * 4] * 7}, "what are no numbers; legal is"),
    "null": ({"predictions": [[None] * 4] * 7}, "what are no numbers; legal is"),
    "truth": ({"predictions": [[True] * 4] * 7}, "what are no numbers; legal is"),
    "labels": ({"predictions": [1] * 7}, r"int64 of shape \[7\]; legal is \[7, 4\] scores$"),
    "NaN": ({"predictions": [[float("nan")] * 4] * 7}, "NaN or infinity; legal is finite numbers"),
    "huge": ({"predictions": [[1e300] * 4] * 7}, "NaN or infinity; legal is finite numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_answer_that_is_none_is_one_sentence_and_is_not_kept(case, service, tmp_path):
    answer, words = WRONG[case]
    service.answer = lambda body: answer
    with pytest.raises(EndpointError, match=words) as found:
        target(service, cache=tmp_path, example=IMAGES)
    assert "\n" not in str(found.value) and "token" not in str(found.value)
    service.answer = usual
    target(service, cache=tmp_path, example=IMAGES)
    assert service.requests == 2, "it was kept"


def test_a_label_of_no_class(service):
    service.answer = lambda body: {"predictions": [CLASSES] * 7}
    with pytest.raises(EndpointError, match="label 4; legal is .* labels from 0 to 3"):
        target(service, granted=Access.LABELS, example=IMAGES)


def test_scores_of_another_kind_than_was_declared(service):
    service.answer = lambda body: {"predictions": (scores(body["instances"]) * 100).tolist()}
    with pytest.raises(ValueError, match="outputs: percentages from .* where probabilities were declared"):
        target(service, example=IMAGES)


def test_a_candidate_that_json_cannot_hold_is_not_sent(service):
    with pytest.raises(EndpointError, match="request: a candidate holds NaN"):
        target(service, example=IMAGES * np.nan)
    assert not service.requests


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"request": {"x": 1}}, "request: nothing in it stands for what is asked; legal is one of"),
        ({"request": {"x": "all {candidates}"}}, "request: nothing in it"),
        ({"request": ["{candidates}", "{png}"]}, "request: {candidates} and {png} stand in it; legal is one"),
        ({"request": {"x": "{png} {png}"}}, "request: {png} and {png} stand in it"),
        ({"request": {"x": "{candidates}", "y": {1, 2}}}, "request: is no JSON"),
        ({"request": {"x": "{candidates}", "y": float("nan")}}, "request: is no JSON"),
        ({"request": "{png}", "preprocess": (0.5, 0.5)}, "preprocess: .* legal is None where the request holds {png}"),
        ({"request": "{candidate}", "per_call": 2}, "per_call: 2; legal is 1 where the request holds {candidate}"),
        ({"per_call": 0}, "per_call: 0; legal is 1 or more"),
        ({"attempts": 0}, "attempts: 0; legal is 1 or more"),
        ({"budget": -1}, "budget: -1; legal is 1 or more"),
        ({"timeout": 0.0}, "timeout: 0.0; legal is a number above 0"),
        ({"per_second": float("inf")}, "per_second: inf; legal is"),
        ({"names": NAMES}, "names: 4 texts; legal is 4 different ones, with granted=Access.LABELS"),
        ({"names": ["ann"] * 4, "granted": Access.LABELS}, "names: 4 texts; legal is 4 different"),
        ({"version": ""}, "version: ''; legal is"),
        ({"replay": True}, "replay: True without a cache"),
        ({"classes": 1}, "classes: 1; legal is"),
        ({"headers": {"X Y": "a"}}, "headers: 'X Y'; legal is"),
        ({"headers": {"X": "Bearer ${API-KEY}"}}, "headers: X holds a '.{' without a name and '}'; legal is"),
        ({"answers": "words"}, "answers: 'words'; legal is"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(changed, words, service):
    with pytest.raises(ValueError, match=words):
        target(service, **changed)


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "h/x", "", "http://", "http://h:99999/x", "http://h/a b", "https://[x/", "https://me:hidden@h"]
)
def test_what_is_no_url_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match="^url: .*; legal is http:// or https://") as found:
        from_http(url + "?key=hidden", classes=2, request="{candidates}", answer="")
    assert "hidden" not in str(found.value)


def test_an_endpoint_grants_no_weights(service):
    with pytest.raises(TypeError, match="no weights to show"):
        target(service, granted=Access.WEIGHTS)


def test_without_httpx_it_says_what_to_install(service, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="the package httpx is missing: pip install"):
        target(service)


# What runs ask.


def questions(target, steps=6):
    """A process that asks one candidate a step and counts it."""
    oracle = target.view(Access.SCORES)

    def step(key, state, case):
        x, asked = state
        found = oracle.answer(key, x)[case]
        return (x * 0.9 + 0.1 * found, asked + 1), info(-found, queries=asked + 1)

    def start(key, case):
        return jax.random.uniform(key, SHAPE), jnp.int32(0)

    return Process(start, step, lambda state: state[0], steps)


@pytest.mark.nightly
def test_a_run_goes_on_where_the_server_died_and_asks_nothing_twice(service, clock, tmp_path):
    def found(folder):
        wide = QUIET._replace(chunk=3, block=2, save_seconds=0.0)
        return solve(questions(target(service, version="1", attempts=2)), KEY, np.arange(3), plan=wide, folder=folder)

    def dies(body):
        if len(service.bodies) == 3:
            service.troubles = [("drop", {})] * 2
        return usual(body)

    wanted, asked = found(None), service.asked
    service.bodies.clear()
    service.answer = dies
    with pytest.raises(EndpointError, match=f"^{service.shown}: the connection .*, at the last of 2 attempts$"):
        found(tmp_path)
    assert 0 < len(service.asked) < len(asked)
    jax.tree.map(np.testing.assert_array_equal, found(tmp_path), wanted)
    assert sorted(service.asked) == sorted(asked) and len(asked) == wanted.info.queries.sum() == 18


@pytest.mark.nightly
def test_a_cache_makes_another_run_of_an_attack_free_and_replays_it(service, tmp_path):
    def found(name, **changed):
        served = target(service, version="1", cache=tmp_path / "cache", per_call=2, **changed)
        scenario, plan = Scenario(served, np.arange(CLASSES)), QUIET._replace(chunk=3, block=2)
        return run(Attack(lambda fitted: questions(served)), KEY, scenario, plan=plan, folder=tmp_path / name)

    with pytest.raises(BudgetSpent, match="budget: 23 queries, of which 2[1-3] were asked; .* were not asked"):
        found("first", budget=23)
    whole = found("second", budget=24)  # in a folder that knows nothing of it
    assert len(service.asked) == len(set(service.asked)) == whole.info.queries.sum() == 24
    service.server.shutdown()
    jax.tree.map(np.testing.assert_array_equal, found("third", replay=True), whole)
    assert len(service.asked) == 24


def test_a_run_in_a_folder_needs_a_version(service, tmp_path):
    nameless = target(service)
    with pytest.raises(ValueError, match="folder: nothing tells whether the target, a host function, is the same"):
        scenario = Scenario(nameless, np.arange(2))
        run(Attack(lambda fitted: questions(nameless)), KEY, scenario, plan=QUIET, folder=tmp_path)
    one, same, other, elsewhere = (
        target(service, version=version, answer=answer).identity
        for version, answer in (("1", "a"), ("1", "a"), ("2", "a"), ("1", "b"))
    )
    assert one == same and len({one, other, elsewhere}) == 3
    key_changed = from_http(
        service.shown + "?token=other", classes=CLASSES, request={"instances": "{candidates}"}, answer="a", version="1"
    )
    assert key_changed.identity == one


@pytest.mark.nightly
@pytest.mark.parametrize("cached", [False, True])
def test_every_device_may_ask_at_once(cached, service, tmp_path):
    four = Plan(devices=tuple(jax.devices()[:4]), chunk=1, progress=False)
    told = target(service, budget=12, cache=tmp_path if cached else None)
    found = solve(questions(told, 3), KEY, np.arange(4), plan=four)
    assert len(service.asked) == found.info.queries.sum() == 12


def test_two_threads_with_one_question_ask_it_once(service, tmp_path):
    told, second = target(service, cache=tmp_path), threading.Event()

    def answer(body):  # the first waits a little for another one, which must not come
        second.set() if len(service.bodies) > 1 else second.wait(0.5)
        return usual(body)

    service.answer = answer
    threads = [threading.Thread(target=answers, args=(told,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.asked) == len(IMAGES) and not second.is_set()


# The budget and the cache.


@pytest.mark.nightly
def test_a_budget_is_spent_to_the_last_query_and_not_exceeded(service):
    process = questions(target(service, budget=10, per_call=2, example=IMAGES), steps=1)
    solve(process, KEY, np.arange(3), plan=QUIET)
    assert len(service.asked) == 10
    with pytest.raises(BudgetSpent, match="budget: 10 queries, of which 10 were asked; 2 more would be too many"):
        solve(process, jax.random.key(99), np.arange(2), plan=QUIET)
    assert len(service.asked) == 10


def test_a_budget_holds_for_all_who_share_a_cache_and_what_is_known_is_free(service, tmp_path):
    target(service, cache=tmp_path, budget=9, example=IMAGES)
    target(service, cache=tmp_path, budget=9, example=IMAGES)
    with pytest.raises(BudgetSpent, match="of which 7 were asked; 7 more would be too many"):
        target(service, cache=tmp_path, budget=9, version="2", example=IMAGES)
    target(service, cache=tmp_path, budget=9, version="2", example=IMAGES[:2])
    assert len(service.asked) == 9
    target(service, cache=tmp_path, budget=1, example=IMAGES)  # nothing is asked: nothing is too many


def test_an_unanswered_candidate_is_on_the_bill_once(service, clock, tmp_path):
    service.troubles = [(503, {})] * 2
    ends = (EndpointError, "503, at the last of 2"), (BudgetSpent, "budget: 13 queries, of which 7 were asked; 7 more")
    for error, words in ends:
        with pytest.raises(error, match=words):
            target(service, attempts=2, budget=13, cache=tmp_path, example=IMAGES)
    assert service.requests == 2


def test_equal_candidates_are_one_question_of_a_cache(service, tmp_path):
    twice = np.concatenate([IMAGES, IMAGES[::-1]])
    np.testing.assert_array_equal(answers(target(service), twice), scores(twice))
    assert len(service.asked) == 14
    np.testing.assert_array_equal(answers(target(service, cache=tmp_path), twice), scores(twice))
    assert len(service.asked) == 14 + 7


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "2"},
        {"request": {"instances": "{candidates}", "temperature": 2}},
        {"answer": "other"},
        {"preprocess": (0.5, 0.5)},
        {"granted": Access.LABELS},
    ],
    ids=str,
)
def test_another_question_is_not_answered_from_the_cache(changed, service, tmp_path):
    service.answer = lambda body: {**usual(body), "other": scores(body["instances"])[:, ::-1].tolist()}
    target(service, version="1", cache=tmp_path, example=IMAGES)
    target(service, **{"version": "1", "cache": tmp_path, "example": IMAGES, **changed})
    assert len(service.asked) == 14
    target(service, version="1", cache=tmp_path, example=IMAGES)
    assert len(service.asked) == 14


def test_labels_come_out_of_the_cache_as_labels(service, tmp_path):
    service.answer = lambda body: {"predictions": scores(body["instances"]).argmax(1).tolist()}
    wanted = scores(IMAGES).argmax(1)
    for _ in range(2):
        found = labels(target(service, granted=Access.LABELS, cache=tmp_path, example=IMAGES))
        np.testing.assert_array_equal(found, wanted)
    assert len(service.asked) == 7


def test_a_replay_needs_no_server_no_httpx_and_no_secret(service, tmp_path, monkeypatch):
    how = {"cache": tmp_path, "headers": {"Authorization": "Bearer ${API_KEY}"}}
    monkeypatch.setenv("API_KEY", SECRET)
    target(service, **how, example=IMAGES[:5])
    monkeypatch.delenv("API_KEY")
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    np.testing.assert_array_equal(answers(target(service, **how, replay=True), IMAGES[:5]), scores(IMAGES[:5]))
    with pytest.raises(
        EndpointError, match="replay: the cache lacks the answers to 2 of 7 candidates; nothing was asked"
    ):
        target(service, **how, replay=True, example=IMAGES)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before and service.requests == 1
    with pytest.raises(ValueError, match="cache: .* does not exist; legal for a replay is"):
        target(service, cache=tmp_path / "empty", replay=True)
    assert not (tmp_path / "empty").exists()


def test_only_the_owner_can_read_a_cache(service, tmp_path):
    modes = []
    folder = tmp_path / "cache"
    told = target(service, cache=folder)
    service.answer = lambda body: (
        modes.append([path.stat().st_mode & 0o777 for path in folder.iterdir()]) or usual(body)
    )
    answers(told)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {mode for found in modes for mode in found} == {0o600}


def test_a_cache_that_is_none_is_one_sentence(service, tmp_path):
    (tmp_path / "answers.sqlite3").write_bytes(b"somebody else's file, long enough to be looked at" * 40)
    with pytest.raises(EndpointError, match=r"cache: .*answers.sqlite3 cannot be used \(file is not a database\)"):
        target(service, cache=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cache: .*file cannot be written"):
        target(service, cache=tmp_path / "file")


def test_two_processes_cannot_spend_the_same_query(service, tmp_path):
    """The other one asks between the look at the budget and the last request."""
    other = AnswerStore(tmp_path, False)

    def spend(body):
        assert other.count(3, 7)
        return usual(body)

    service.answer = spend
    with pytest.raises(BudgetSpent, match="of which 7 were asked; 1 more would be"):
        target(service, cache=tmp_path, budget=7, per_call=4, example=IMAGES[:5])
    assert len(service.asked) == 4


@pytest.mark.nightly
def test_kill_9_loses_no_answer_and_no_count(service, tmp_path):
    code = """if True:
        import os, signal, sys, numpy as np
        from jaxmia.adapters.endpoint import Endpoint
        from jaxmia.adapters.http import from_http
        images, ask = np.load(sys.argv[2]), Endpoint._send
        def send(self, body):
            if b"last" in body:
                os.kill(os.getpid(), signal.SIGKILL)
            return ask(self, body)
        Endpoint._send = send
        how = dict(classes=4, answer="predictions", cache=sys.argv[1])
        from_http(sys.argv[3], request={"instances": "{candidates}"}, example=images[:5], **how)
        from_http(sys.argv[3], request={"instances": "{candidates}", "last": 1}, example=images[:5], **how)
    """
    np.save(tmp_path / "images.npy", IMAGES)
    command = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "images.npy"), service.url]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent.parent.parent)}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    np.testing.assert_array_equal(answers(target(service, cache=tmp_path, budget=12)), scores(IMAGES))
    assert len(service.asked) == 7, "asked again"
    with pytest.raises(BudgetSpent, match="of which 12 were asked"):  # five of them were lost on their way
        target(service, cache=tmp_path, budget=12, version="other", example=IMAGES[:1])


# Secrets.


def test_a_secret_is_read_at_each_request(service, monkeypatch):
    told = target(service, headers={"Authorization": "Bearer ${API_KEY}", "X-User": "${API_USER}:x"})
    for key in ("first", "second"):
        monkeypatch.setenv("API_KEY", key)
        monkeypatch.setenv("API_USER", "me")
        answers(told)
    assert [found["Authorization"] for found in service.headers] == ["Bearer first", "Bearer second"]
    assert service.headers[0]["X-User"] == "me:x"


def test_a_missing_variable_is_one_sentence_and_nothing_is_sent(service, monkeypatch):
    monkeypatch.delenv("API_KEY", raising=False)
    with pytest.raises(
        EndpointError, match="^headers: Authorization needs the environment variable API_KEY, which is not"
    ):
        target(service, headers={"Authorization": "Bearer ${API_KEY}"}, budget=7, example=IMAGES)
    assert not service.requests


def everything(error):
    """What a traceback shows at its most talkative: messages, the errors behind them, local variables."""
    words, seen = [], error
    while seen is not None:
        words += [str(seen), repr(seen), repr(seen.args)]
        trace = seen.__traceback__
        while trace is not None:
            words += [repr(value) for value in trace.tb_frame.f_locals.values()]
            trace = trace.tb_next
        seen = seen.__context__
    return "\n".join(words)


@pytest.mark.parametrize("case", ["line break", "refused", "broken", "gone", "echo", "echoed name", "no JSON"])
def test_a_secret_is_in_no_error(case, service, clock, monkeypatch):
    how = {"headers": {"Authorization": "Bearer ${API_KEY}"}, "attempts": 1, "example": IMAGES}
    monkeypatch.setenv("API_KEY", SECRET + "\n" * (case == "line break"))
    if case in ("refused", "broken"):
        service.troubles = [(401, {"X-Echo": SECRET}) if case == "refused" else ("drop", {})]
    if case == "gone":
        service.server.shutdown()
        service.server.server_close()
    if case == "echo":
        service.answer = lambda body: {f"wrong key {SECRET}": SECRET}
    if case == "echoed name":
        service.answer = lambda body: {"predictions": [f"wrong key {SECRET}"] * 7}
        how |= {"granted": Access.LABELS, "names": NAMES}
    if case == "no JSON":
        service.answer = lambda body: f"wrong key {SECRET}".encode()
    with pytest.raises(EndpointError) as found:
        target(service, **how)
    for word in (SECRET, "in-the-query", "\n"):
        assert word not in str(found.value)
    if case in ("line break", "refused", "broken", "gone"):  # the others hold what the server said
        assert SECRET not in everything(found.value)


def test_a_secret_is_nowhere_on_disk_nor_in_what_a_target_shows(service, tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEY", SECRET)
    headers = {"Authorization": "Bearer ${API_KEY}"}
    served = target(service, headers=headers, cache=tmp_path / "cache", version="1")
    plan = QUIET._replace(save_seconds=0.0, block=1)
    solve(questions(served), KEY, np.arange(3), plan=plan, folder=tmp_path / "run")
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".sqlite3" for path in written) and any("run" in path.parts for path in written)
    for word in (SECRET, "in-the-query"):
        assert not [path for path, content in written.items() if word.encode() in content]
        assert word not in repr(served) and word not in repr(vars(served)) and word not in str(served.identity)
    assert service.headers[0]["Authorization"] == f"Bearer {SECRET}"
