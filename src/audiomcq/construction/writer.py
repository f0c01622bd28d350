"""Ask a language model for one JSON answer per request, and keep every answer (`audiomcq.construction.responses`)."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from audiomcq.construction.budget import Budget
from audiomcq.construction.responses import Response, ResponseCache, make_key
from audiomcq.endpoints import Endpoint
from audiomcq.inference.client import EndpointError, audio_part, open_client, request_completion
from audiomcq.records import make_encodable

if TYPE_CHECKING:
    import openai
    from pydantic import BaseModel

logger = logging.getLogger(__name__)

Reply = TypeVar("Reply", bound="BaseModel")


class Rejected(Exception):
    """The row is left out, for the reason that this says."""


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
        patience: requests in a row that may stay without an answer before the server counts as gone.
        reason: why nothing is asked any more; None while something is.
        fault: whether that is an error, as opposed to a budget that is spent.
    """

    patience: int
    reason: str | None = None
    fault: bool = False
    _failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self, reason: str, fault: bool) -> None:
        with self._lock:
            if self.reason is None:
                self.reason, self.fault = reason, fault
                logger.warning("nothing more is asked: %s", reason)

    def succeed(self) -> None:
        self._failed = 0

    def fail(self, error: EndpointError) -> None:
        with self._lock:
            self._failed += 1
        if error.fault == "settings" or self._failed >= self.patience:
            self.stop(str(error), fault=True)


class Writer:
    """Asks one model, through its server. A context. Safe for threads.

    Args:
        options: of every request, beside what each stage says: temperature, max_tokens, extra_body, ...
        attempts: how often an answer that cannot be used is asked for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: ResponseCache,
        budget: Budget,
        halt: Halt,
        options: Mapping[str, Any],
        attempts: int = 3,
    ) -> None:
        self.endpoint, self.cache, self.budget, self.halt = endpoint, cache, budget, halt
        self.options, self.attempts = dict(options), attempts

    @cached_property
    def client(self) -> "openai.OpenAI":
        return open_client(self.endpoint)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def ask(self, request: Request[Reply]) -> Reply:
        """Return the first usable answer, from the cache if it was given before.

        Raises:
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
        if self.halt.reason is not None:
            raise Pending(self.halt.reason)
        with self.budget.request() as limit:
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
            self.halt.fail(error)
            if error.fault == "question":
                raise Rejected(str(error)) from error
            raise Pending(str(error)) from error
        self.halt.succeed()
        choice, usage = completion.choices[0], completion.usage
        return Response(
            key,
            request.source_row,
            request.stage,
            request.prompt.version,
            self.endpoint.model,
            attempt,
            choice.finish_reason or "",
            None if choice.message.content is None else make_encodable(choice.message.content),
            None if choice.message.refusal is None else make_encodable(choice.message.refusal),
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
            time.monotonic() - start,
        )


@cache
def make_json_schema(kind: Any) -> dict[str, Any]:
    return kind.model_json_schema()


def read_reply(kind: type[Reply], response: Response) -> tuple[Reply | None, str]:
    """Return an answer as the model's reply, or None and what is wrong with it."""
    from pydantic import ValidationError

    if response.finish_reason == "length":
        return None, f"the answer breaks off after {response.completion_tokens} tokens; raise max_new_tokens"
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
        if stage in templates:
            raise ValueError(
                f"{folder}: two templates for the stage {stage}, {templates[stage].name} and {path.name}; keep one"
            )
        templates[stage] = path
    return templates
