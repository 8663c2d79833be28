"""An endpoint behind HTTP: what is sent to it and when, and what its answers say."""

import dataclasses
import datetime
import email.utils
import hashlib
import json
import math
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxmia.adapters.answer_store import AnswerStore, EndpointError
from jaxmia.packages import require
from jaxmia.queries import BudgetSpent

__all__ = ["BATCH", "ONE", "PICTURE", "VARIABLE", "Endpoint"]

BATCH, ONE, PICTURE = "{candidates}", "{candidate}", "{png}"
FIRST_WAIT, LONGEST_BACKOFF, LONGEST_WAIT = 1.0, 60.0, 900.0  # seconds; the last is what a server may ask for
VARIABLE = re.compile(r"\$\{(\w+)\}")


class _Reply(NamedTuple):
    """What one attempt brought.

    Attributes:
      content: of an answer; None where there was none.
      problem: why there was none.
      again: whether another attempt may help.
      wait: seconds that the server asks to wait.
    """

    content: bytes | None
    problem: str = ""
    again: bool = False
    wait: float | None = None


@dataclasses.dataclass(eq=False, repr=False)
class Endpoint:
    """Candidates `[n, ...]` to scores `[n, classes]` or labels `[n]`; one thread at a time.

    It raises EndpointError for what is no answer, and BudgetSpent before a call that would exceed the budget.

    Attributes:
      url, shown: where to ask, and how a message calls it.
      body: of candidates `[n, ...]` the request, n at most `per_call`.
      place: the text in a request that stands for what is asked.
      path, numbers: where the answer is, and the number of each name in it.
      labels: whether it may be labels.
      pause: seconds from one request to the next, at least.
      kind: a digest of all that makes another question of the same candidate.
    """

    url: str
    shown: str
    body: Callable[[np.ndarray], bytes]
    place: str
    path: str
    numbers: dict[str, int] | None
    headers: dict[str, str]
    classes: int
    labels: bool
    per_call: int
    pause: float
    attempts: int
    timeout: int | float
    budget: int | None
    store: AnswerStore | None
    replay: bool
    kind: bytes

    def __post_init__(self) -> None:
        if not self.replay:
            require("httpx")
        self._asked, self._free_from, self._client = 0, -math.inf, None
        self._lock = threading.Lock()  # each device has a thread of its own

    def __call__(self, x: np.ndarray) -> np.ndarray:
        sent = self._sent(x)
        with self._lock:
            questions: list[Any] = list(range(len(sent)))
            if self.store is not None:
                questions = [self._question(row) for row in sent]
            known = {} if self.store is None else self.store.find(questions)
            new = list({question: place for place, question in enumerate(questions) if question not in known}.values())
            if new and self.replay:
                raise EndpointError(
                    f"replay: the cache lacks the answers to {len(new):,} of {len(sent):,} candidates; nothing was asked"
                )
            if new:
                self._refuse_beyond_budget(len(new))
            for start in range(0, len(new), self.per_call):
                part = new[start : start + self.per_call]
                rows = self._ask(sent[part])
                if self.store is not None:
                    self.store.add([questions[place] for place in part], rows)
                known |= {questions[place]: np.asarray(row) for place, row in zip(part, rows)}
            return np.stack([known[question] for question in questions])

    def _sent(self, x: np.ndarray) -> np.ndarray:
        """What of candidates is sent: themselves, or their gray levels."""
        if not np.all(np.isfinite(x)):
            raise EndpointError("request: a candidate holds NaN or infinity, which JSON cannot say; nothing was sent")
        if self.place != PICTURE:
            return x
        if x.ndim != 4 or x.shape[-1] not in (1, 3):
            raise EndpointError(
                f"request: candidates are {list(x.shape[1:])}; legal for {PICTURE} is [height, width, 1 or 3]"
            )
        return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)

    def _question(self, row: np.ndarray) -> bytes:
        return hashlib.sha256(self.kind + f"{row.dtype.str}{row.shape}".encode() + row.tobytes()).digest()

    def _refuse_beyond_budget(self, n: int) -> None:
        asked = self.store.asked() if self.store is not None else self._asked
        if self.budget is not None and asked + n > self.budget:
            raise BudgetSpent(
                f"budget: {self.budget:,} queries, of which {asked:,} were asked; {n:,} more would be too many, so they "
                "were not asked. Raise it to go on where this ended"
            )

    def _ask(self, part: np.ndarray) -> np.ndarray:
        """Put candidates on the bill, then send them."""
        body = self.body(part)
        self._refuse_headers()
        if self.store is None:
            self._asked += len(part)
        elif not self.store.count(len(part), self.budget):  # another process was faster
            self._refuse_beyond_budget(len(part))
        return self._rows(self._send(body), len(part))

    def _headers_now(self) -> dict[str, str]:
        """With the values of environment variables. No function that raises holds them, so no traceback does."""
        return {
            header: VARIABLE.sub(lambda found: os.environ.get(found[1], ""), text)
            for header, text in self.headers.items()
        }

    def _refuse_headers(self) -> None:
        for header, text in self.headers.items():
            missing = [name for name in VARIABLE.findall(text) if not os.environ.get(name)]
            if missing:
                raise EndpointError(f"headers: {header} needs the environment variable {missing[0]}, which is not set")
            if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", self._headers_now()[header]):  # httpx would quote it
                raise EndpointError(
                    f"headers: the value of {header} is empty, or holds a line break, a space at an end or a letter that "
                    "is not ASCII; legal is printable ASCII"
                )

    def _send(self, body: bytes) -> bytes:
        for attempt in range(1, self.attempts + 1):
            self._keep_pace()
            reply = self._attempt(body)
            if reply.content is not None:
                return reply.content
            where = f"{self.shown}: {reply.problem}"
            if not reply.again:
                raise EndpointError(where)
            if (reply.wait or 0) > LONGEST_WAIT:
                raise EndpointError(f"{where}, and asks to wait {reply.wait:,.0f} seconds; start again then")
            if attempt == self.attempts:
                raise EndpointError(f"{where}, at the last of {attempt} attempt{'s' * (attempt > 1)}")
            backoff = min(LONGEST_BACKOFF, FIRST_WAIT * 2 ** min(attempt - 1, 10)) * random.uniform(0.5, 1)
            time.sleep(backoff if reply.wait is None else reply.wait)
        raise AssertionError("there is at least one attempt")

    def _keep_pace(self) -> None:
        now = time.monotonic()
        if self._free_from > now:
            time.sleep(self._free_from - now)
        self._free_from = max(self._free_from, now) + self.pause

    def _attempt(self, body: bytes) -> _Reply:
        """Nothing of what httpx says is handed on: it may quote what was sent."""
        import httpx  # pyright: ignore[reportMissingImports]

        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout, follow_redirects=False, verify=True)
            weakref.finalize(self, self._client.close)
        headers = httpx.Headers({"Content-Type": "application/json"})
        headers.update(self._headers_now())
        try:
            response = self._client.post(self.url, content=body, headers=headers)
        except httpx.TimeoutException:
            return _Reply(None, f"no answer within {self.timeout:g} seconds", again=True)
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error):
                return _Reply(None, "its certificate cannot be verified")
            return _Reply(None, "cannot be reached", again=True)
        except httpx.NetworkError:
            return _Reply(None, "the connection broke", again=True)
        except httpx.RemoteProtocolError:
            return _Reply(None, "the connection ended before the answer did", again=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Reply(None, f"cannot be asked ({type(error).__name__})")
        status = response.status_code
        problem = f"answered status {status}"
        if response.is_success:
            return _Reply(response.content)
        if response.is_redirect:
            return _Reply(None, f"{problem}, a redirect, which is not followed; give the URL that it leads to")
        if status == 429 or status >= 500:
            return _Reply(None, problem, again=True, wait=_retry_after(response.headers.get("Retry-After", "")))
        return _Reply(None, problem)

    def _rows(self, content: bytes, n: int) -> np.ndarray:
        """Scores `[n, classes]` or labels `[n]` in an answer.

        Raises:
          EndpointError: where there are none.
        """
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            html = content.lstrip()[:1] == b"<"
            raise EndpointError(f"{self.shown}: answered {'HTML' if html else 'what'} is no JSON") from None
        found = self._follow(found, self.path.split(".") if self.path else [])
        if self.numbers is not None:
            found = self._by_name(found)
        legal = f"[{n}, {self.classes}] scores" + f", or [{n}] labels from 0 to {self.classes - 1}" * self.labels
        where = f"{self.shown}: answered, at {self.path or 'the top'},"
        try:
            array = np.asarray(found)
        except ValueError:  # lists of unequal lengths
            raise EndpointError(f"{where} lists of unequal lengths; legal is {legal}") from None
        if self.place != BATCH and array.shape in ((), (self.classes,)):
            array = array[None]
        if array.dtype.kind not in "iuf":
            raise EndpointError(f"{where} what are no numbers; legal is {legal}")
        if self.labels and array.shape == (n,) and array.dtype.kind in "iu":
            wrong = array[(array < 0) | (array >= self.classes)]
            if wrong.size:
                raise EndpointError(f"{where} label {wrong[0]}; legal is {legal}")
            return array.astype("<i8")
        if array.shape != (n, self.classes):
            raise EndpointError(f"{where} {array.dtype.name} of shape {list(array.shape)}; legal is {legal}")
        with np.errstate(over="ignore"):
            scores = array.astype("<f4")
        if not np.all(np.isfinite(scores)):
            raise EndpointError(f"{where} NaN or infinity; legal is finite numbers")
        return scores

    def _follow(self, value: Any, path: list[str], behind: tuple[str, ...] = ()) -> Any:
        if not path:
            return value
        part, rest = path[0], path[1:]
        if part == "*" and isinstance(value, list):
            return [self._follow(item, rest, (*behind, str(place))) for place, item in enumerate(value)]
        if isinstance(value, dict) and part in value:
            return self._follow(value[part], rest, (*behind, part))
        if isinstance(value, list) and re.fullmatch("[0-9]{1,9}", part) and int(part) < len(value):
            return self._follow(value[int(part)], rest, (*behind, part))
        there = "a number, a text or null"
        if isinstance(value, list):
            there = f"a list of {len(value)}"
        elif isinstance(value, dict):
            there = f"a dict of {self._told(', '.join(map(str, value))) or 'nothing'}"
        raise EndpointError(
            f"answer: {self.path!r}, but {self.shown} answered {there} at {'.'.join(behind) or 'the top'}; legal is a path "
            "in its answer"
        )

    def _by_name(self, found: Any) -> list[int]:
        numbers = self.numbers or {}
        listed = found if isinstance(found, list) else [found]
        unknown = [name for name in listed if not isinstance(name, str) or name not in numbers]
        if unknown:
            raise EndpointError(f"names: {self.shown} answered {self._told(unknown[0])!r}, which is none of them")
        return [numbers[name] for name in listed]

    def _told(self, words: Any) -> str:
        """The beginning of what an endpoint said, which may have quoted a header back."""
        text = str(words)
        for name in VARIABLE.findall(" ".join(self.headers.values())):
            text = text.replace(os.environ.get(name) or "${}", f"${{{name}}}")
        return text[:100]


def _retry_after(text: str) -> float | None:
    """Seconds in a header that holds seconds or a date; None where it holds neither."""
    if re.fullmatch("[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
