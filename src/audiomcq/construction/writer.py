"""Ask a language model for one JSON answer per request, and keep every answer (`audiomcq.construction.responses`)."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from audiomcq.construction.budget import Budget
from audiomcq.construction.responses import Response, ResponseCache, make_key
from audiomcq.endpoints import Endpoint
from audiomcq.inference.client import EndpointError, audio_part, open_client, request_completion
from audiomcq.interruption import received
from audiomcq.records import make_encodable

if TYPE_CHECKING:
    import openai
    from pydantic import BaseModel

logger = logging.getLogger(__name__)

FINISHES = ("stop", "length", "content_filter", "tool_calls", "function_call")
"""Reasons that OpenAI's interface has for the end of an answer."""

Reply = TypeVar("Reply", bound="BaseModel")


class Rejected(Exception):
    """The row is left out, for the reason that this says."""


class Missing(Exception):
    """The cache alone cannot answer."""


class Pending(Exception):
    """The row waits for another run, for the reason that this says."""


@dataclass(frozen=True)
class Prompt:
    """The text of a request, and the version of the template that it was made from."""

    text: str
    version: str


@dataclass(frozen=True)
class Request(Generic[Reply]):
    """What is asked about one row.

    Attributes:
        source_row: `source/id` of the caption.
        stage: its name.
        reply: what the answer must be.
        find_defect: says what is wrong with a valid answer, so that it is asked for again; None where nothing is.
        audio: the clip as a data URI, for a model that hears. It is no part of the cache's key: the row has one clip.
    """

    source_row: str
    stage: str
    prompt: Prompt
    reply: "type[Reply]"
    find_defect: Callable[[Reply], str | None] = lambda reply: None
    audio: str | None = None


@dataclass
class Halt:
    """Whether a build asks no more, and why. Shared by the writers of a build.

    Attributes:
        reason: why nothing is asked any more; None while something is.
        fault: whether that is an error, as opposed to a budget that is spent.
    """

    reason: str | None = None
    fault: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self, reason: str, fault: bool) -> None:
        with self._lock:
            if self.reason is None:
                self.reason, self.fault = reason, fault
                logger.warning("nothing more is asked: %s", reason)


class Writer:
    """Asks one model, through its server. A context. Safe for threads.

    Args:
        options: of every request, beside what each stage says: temperature, max_tokens, extra_body, ...
        attempts: how often an answer that cannot be used is asked for.
        patience: requests in a row that may stay without an answer before the server counts as gone.

    Attributes:
        unanswered: what was said of the first request without an answer, while none was answered; else None.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: ResponseCache,
        budget: Budget,
        halt: Halt,
        options: Mapping[str, Any],
        attempts: int = 3,
        patience: int = 32,
    ) -> None:
        self.endpoint, self.cache, self.budget, self.halt = endpoint, cache, budget, halt
        self.options, self.attempts, self.patience = dict(options), attempts, patience
        self.unanswered: str | None = None
        self.asks = True
        self._failed, self._answered = 0, False
        self._lock = threading.Lock()

    @cached_property
    def client(self) -> "openai.OpenAI":
        return open_client(self.endpoint)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def offline(self) -> "Writer":
        """Return the same writer, which asks nothing."""
        twin = copy(self)
        twin.asks = False
        return twin

    def ask(self, request: Request[Reply]) -> Reply:
        """Return the first usable answer, from the cache if it was given before.

        Raises:
            Missing: it was not, and this writer asks nothing.
            Rejected: the model or its server refuses, or none of the attempts can be used.
            Pending: the server does not answer, or nothing may be asked any more.
        """
        defect = ""
        for attempt in range(self.attempts):
            response = self._respond(request, attempt)
            if response.refusal or response.finish_reason == "content_filter":
                raise Rejected(f"the model refuses: {(response.refusal or 'content filter')[:200]}")
            reply, defect = read_reply(request.reply, response)
            if reply is None:
                continue
            if (found := request.find_defect(reply)) is None:
                return reply
            defect = found
        raise Rejected(defect)

    def _respond(self, request: Request[Any], attempt: int) -> Response:
        prompt, model = request.prompt, self.endpoint.model
        key = make_key(model, prompt.text, request.source_row, attempt, self.options)
        if (known := self.cache.get(key)) is not None:
            return known
        if not self.asks:
            raise Missing
        if (ending := received()) is not None:
            self.halt.stop(f"interrupted by {ending.name}", fault=True)
        if self.halt.reason is not None:
            raise Pending(self.halt.reason)
        # A token is three characters or more, but in few languages
        tokens = (len(prompt.text) // 3, int(self.options.get("max_tokens", 0)))
        with self.budget.request(model, *tokens) as limit:
            if limit is not None:
                self.halt.stop(limit, fault=False)
                raise Pending(limit)
            response = self._request(request, attempt, key)
            # Kept before it counts as no longer under way: a kill from here on loses nothing
            self.cache.add(response)
            self.budget.count(model, response.prompt_tokens, response.completion_tokens)
        return response

    def _request(self, request: Request[Any], attempt: int, key: str) -> Response:
        name = f"{request.source_row} ({request.stage})"
        content: Any = request.prompt.text
        if request.audio is not None:
            content = [audio_part(request.audio), {"type": "text", "text": content}]
        messages = [{"role": "user", "content": content}]
        schema = {"name": request.stage, "schema": make_json_schema(cast(Hashable, request.reply)), "strict": True}
        form = {"type": "json_schema", "json_schema": schema}
        start = time.monotonic()
        try:
            completion = request_completion(
                self.client, self.endpoint, messages, name, response_format=form, **self.options
            )
        except EndpointError as error:
            self._fail(error)
            if error.fault == "question":
                raise Rejected(f"the server refuses: {error}") from error
            raise Pending(f"no answer: {error}") from error
        with self._lock:
            self._failed, self._answered, self.unanswered = 0, True, None
        choice = completion.choices[0]
        prompt_tokens, completion_tokens = (
            count if isinstance(count, int) and 0 <= count < 2**53 else 0
            for count in (getattr(completion.usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
        )
        if not prompt_tokens and self.budget.has_limit:
            self.halt.stop(
                f"{self.endpoint.url} does not say how many tokens it used, so that no limit can hold", True
            )
        return Response(
            key,
            request.source_row,
            request.stage,
            request.prompt.version,
            self.endpoint.model,
            attempt,
            choice.finish_reason if choice.finish_reason in FINISHES else "other",
            None if choice.message.content is None else make_encodable(choice.message.content),
            None if choice.message.refusal is None else make_encodable(choice.message.refusal),
            prompt_tokens,
            completion_tokens,
            time.monotonic() - start,
        )

    def _fail(self, error: EndpointError) -> None:
        with self._lock:
            self._failed += 1
            if not self._answered and self.unanswered is None:
                self.unanswered = str(error)
            gone = error.fault == "settings" or self._failed >= self.patience
        if gone:
            self.halt.stop(str(error), fault=True)


@cache
def make_json_schema(kind: Any) -> dict[str, Any]:
    return kind.model_json_schema()


def read_reply(kind: type[Reply], response: Response) -> tuple[Reply | None, str]:
    """Return an answer as the model's reply, or None and what is wrong with it."""
    from pydantic import ValidationError

    if response.finish_reason == "length":
        return None, f"the answer breaks off: after {response.completion_tokens} tokens; raise max_new_tokens"
    try:
        return kind.model_validate_json(response.text or ""), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        return None, f"not what was asked for: {place}: {first['msg']}"


def load_prompts(folder: Path) -> dict[str, Path]:
    """Return the template of each stage: files named STAGE-VERSION.txt.

    Raises:
        ValueError: a stage has two.
    """
    templates: dict[str, Path] = {}
    for path in sorted(folder.glob("*.txt")):
        stage = path.stem.rpartition("-")[0]
        if not stage:
            raise ValueError(f"{path}: name it STAGE-VERSION.txt, e.g. {path.stem}-mine.txt")
        if stage in templates:
            raise ValueError(
                f"{folder}: two templates for the stage {stage}, {templates[stage].name} and {path.name}; keep one"
            )
        templates[stage] = path
    return templates
