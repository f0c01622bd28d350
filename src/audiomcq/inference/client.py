"""Requests to an OpenAI-compatible server: the one client of voters and of writers of data.

The client is `openai` (`pip install audiomcq[endpoint]`): back-off with jitter, Retry-After, time-outs and typed errors
are its own. The key is read from the environment variable `AUDIOMCQ_API_KEY` and leaves this process in the
Authorization header alone. Where the server says that the questions should go elsewhere, they do not.
"""

import base64
import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np

from audiomcq.audio import wav_bytes
from audiomcq.endpoints import API_KEY_VARIABLE, Endpoint
from audiomcq.errors import remove_secrets

if TYPE_CHECKING:
    import httpx2
    import openai
    from openai.types.chat import ChatCompletion

_MESSAGE_CHARACTERS = 300
_TELLING = 8
"""Characters from which on a key is blacked out in answers too: a shorter one ("EMPTY") may be a word of them."""

_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")

Fault = Literal["settings", "server", "question"]
Question = TypeVar("Question")
Result = TypeVar("Result")


class EndpointError(ValueError):
    """A request that stays without an answer.

    Attributes:
        fault: settings (the server refuses the key, knows no such model, or redirects: no request will do better), server
            (it is not there, or failed in all attempts) or question (it refuses this one).
        status: of HTTP; None where there was no whole answer.
    """

    def __init__(self, message: str, fault: Fault, status: int | None = None) -> None:
        super().__init__(message)
        self.fault, self.status = fault, status


def audio_uri(waveform: np.ndarray) -> str:
    """Encode a waveform (mono, 16 kHz) as a data URI."""
    return f"data:audio/wav;base64,{base64.b64encode(wav_bytes(waveform)).decode()}"


def audio_part(uri: str) -> dict[str, Any]:
    """Return the part of a message that holds a clip."""
    # Not OpenAI's own input_audio: SGLang takes audio_url alone (its issue 19235), the other servers take both
    return {"type": "audio_url", "audio_url": {"url": uri}}


def ask_in_parallel(
    ask: Callable[[Question], Result], questions: Iterator[Question], concurrency: int
) -> Iterator[Result]:
    """Yield answers as they arrive. After a failure ask nothing new, wait for requests under way, then raise it."""
    failure: BaseException | None = None
    running: set[Future[Result]] = set()
    with ThreadPoolExecutor(concurrency) as pool:
        while True:
            try:
                for question in islice(questions, 0 if failure else concurrency - len(running)):
                    running.add(pool.submit(ask, question))
            except ValueError as error:  # a clip that cannot be used
                failure = error
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                if refused := future.exception():
                    failure = failure or refused
                else:
                    yield future.result()
    if failure:
        raise failure


def open_client(endpoint: Endpoint) -> "openai.OpenAI":
    """Return a client of the server, a context.

    Raises:
        ValueError: `openai` is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ValueError(f"endpoint {endpoint.url}: run `pip install audiomcq[endpoint]` to ask a server") from error
    # At level DEBUG it tells all headers of an answer, and a server may repeat the key in them
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    http = openai.DefaultHttpxClient(follow_redirects=False, event_hooks={"response": [_require_whole_answer]})
    with _without_openai_variables():
        return openai.OpenAI(
            base_url=endpoint.url,
            api_key=os.environ.get(API_KEY_VARIABLE) or "none",
            timeout=endpoint.timeout_seconds,
            max_retries=endpoint.retries,
            http_client=http,
        )


@contextmanager
def _without_openai_variables() -> Iterator[None]:
    """OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS and the like are for another company's server; the client would send them
    to any.
    """
    held = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(held)


def _require_whole_answer(response: "httpx2.Response") -> None:
    """Turn a truncated or odd answer into a broken transfer, which the client retries."""
    import httpx2

    if response.is_success and response.request.url.path.endswith("/chat/completions"):
        response.read()
        try:
            message = response.json()["choices"][0]["message"]
            for name in ("content", "refusal"):
                if not isinstance(message.get(name), str | None):
                    raise TypeError(name)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            said = remove_secrets(response.text)[:80]
            raise httpx2.RemoteProtocolError(f"half an answer: {said!r}") from error


def request_completion(
    client: "openai.OpenAI", endpoint: Endpoint, messages: list[Any], question: str, **options: Any
) -> "ChatCompletion":
    """Request the completion of one conversation. Where the server repeats the key in it, the key is blacked out.

    Args:
        question: its name in errors.
        options: of the request: temperature, max_tokens, response_format, ...

    Raises:
        EndpointError: there is none.
    """
    create = partial(client.chat.completions.create, model=endpoint.model, messages=messages, **options)
    completion = request(create, endpoint, question)
    message = completion.choices[0].message
    message.content, message.refusal = _hide_key(message.content), _hide_key(message.refusal)
    return completion


def request(ask: Callable[[], Result], endpoint: Endpoint, question: str) -> Result:
    """Return what a call of the client returns.

    Args:
        question: its name in errors.

    Raises:
        EndpointError: the call fails.
    """
    import openai

    failure = None
    try:
        return ask()
    except openai.APIError as error:
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        failure = EndpointError(remove_secrets(_explain(error, endpoint, question)), _find_fault(error), status)
    # Outside the handler: the client's error holds the request with its key, and would travel along as the cause
    raise failure


def _hide_key(text: str | None) -> str | None:
    """Black out the key in what a server says, also where it is written with escapes of JSON."""
    key = os.environ.get(API_KEY_VARIABLE) or ""
    if not text or len(key) < _TELLING:
        return text
    text = text.replace(key, "***")
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return "***" if key in plain else text


def _find_fault(error: "openai.APIError") -> Fault:
    import openai

    if not isinstance(error, openai.APIStatusError):
        return "server"
    if 300 <= error.status_code < 400 or error.status_code in (401, 403, 404):
        return "settings"
    return "server" if error.status_code in (408, 409, 429) or error.status_code >= 500 else "question"


def _explain(error: "openai.APIError", endpoint: Endpoint, question: str) -> str:
    """Say what went wrong, at which server, and what to do about it."""
    import openai

    server, attempts = f"endpoint {endpoint.url}", f"{endpoint.retries + 1} attempts"
    if isinstance(error, openai.APITimeoutError):
        return (
            f"{server}: no answer within {endpoint.timeout_seconds:g} s in {attempts} ({question}); lower endpoint_concurrency "
            f"({endpoint.concurrency}) or raise endpoint_timeout"
        )
    if not isinstance(error, openai.APIStatusError):
        return f"{server}: no answer in {attempts} ({error.__cause__ or error}); is the server up and the URL right?"
    status = error.status_code
    if 300 <= status < 400:
        target = urlsplit(error.response.headers.get("Location", ""))
        place = f"{target.scheme}://{target.hostname}" if target.hostname else "another path"
        return f"{server}: redirects to {place} ({status}), which is not followed; give the URL that answers by itself"
    said = f"{status}: {remove_secrets(error.response.text)[:_MESSAGE_CHARACTERS]}"
    if status in (401, 403):
        # Without the server's own words: some repeat the key
        return f"{server}: refused the key ({status}); put the server's key into the environment variable {API_KEY_VARIABLE}"
    if status == 404:
        return f"{server}: no model {endpoint.model!r} there ({said}); GET {endpoint.url}/models lists those that are"
    if status in (408, 409, 429) or status >= 500:
        return f"{server}: failed in {attempts} ({said}); see the server's log"
    return f"{server}: refused the question {question} ({said})"
