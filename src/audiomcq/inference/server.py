"""Answer many questions through an OpenAI-compatible server: vLLM, SGLang, `transformers serve`.

For models that `audiomcq.models` does not load or that are too large for the machine. The client is `openai` (`pip
install audiomcq[endpoint]`): back-off with jitter, Retry-After, time-outs and typed errors are its own, and
`transformers serve` needs it anyway. Servers give texts, not the log-probabilities of texts that they are handed, so
there is no likelihood mode here: whoever takes a mode refuses it for a voter that `parse_voter` reads as an endpoint.

A voter's name goes into tables, records, logs and messages, so no key may be part of it: the key is read from the
environment variable `AUDIOMCQ_API_KEY` when a question is asked, and leaves this process in the Authorization header
alone. Where the server says that the questions should go elsewhere, they do not.
"""

import base64
import logging
import os
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from audiomcq.audio import cut, wav_bytes
from audiomcq.datasets import option_order, row_orders
from audiomcq.endpoints import API_KEY_VARIABLE, Endpoint
from audiomcq.errors import remove_secrets
from audiomcq.examples import Row, row_key
from audiomcq.inference.local import Answer, Asked, Control, to_answer
from audiomcq.prompts import AUDIOMCQ_STYLE, conversation

if TYPE_CHECKING:
    import httpx2
    import openai

logger = logging.getLogger(__name__)

_MESSAGE_CHARACTERS = 300
_TELLING = 8
"""Characters from which on a key is blacked out in answers too: a shorter one ("EMPTY") may be a word of them."""


def server_options(max_new_tokens: int) -> dict[str, Any]:
    """What a server is told about generation. What it does beside is its own: start vLLM with `--generation-config
    vllm`, or the checkpoint's penalties reach the answers.
    """
    return {"temperature": 0, "max_tokens": max_new_tokens}


def endpoint_batches(
    endpoint: Endpoint,
    rows: Sequence[Row],
    control: Control,
    orders: Sequence[str] = ("given",),
    max_audio_seconds: float = 30.0,
    batch_size: int = 32,
    max_new_tokens: int = 64,
    done: Collection[Asked] = (),
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Answer]]:
    """Yield greedy answers of a server, each as soon as it arrives, so that a kill loses none that was received.

    The counterpart of `audiomcq.inference.local.answer_batches`: same conversations, same answers, same meaning of
    `orders`, `done`, `rank` and `world_size`. Questions about one clip follow each other, and the clip is decoded and
    encoded once.

    Args:
        batch_size: questions that one process takes at a time.
        max_audio_seconds: longer clips are cut to this length, with a line in the log.

    Raises:
        ValueError: the server cannot be reached, knows no such model, refuses the key or a question (which is then
            named), or still fails after all retries. Whatever was answered until then has been yielded before.
    """
    questions: list[tuple[int, str, str]] = []  # not the rows: these may hold their clips
    clips: list[Hashable] = []
    for index, row in enumerate(rows):
        asked_in = row_orders(row, orders)
        questions += [(index, row_key(row), order) for order in asked_in]
        clips += [control.audio_key(row)] * len(asked_in)
    first = {clip: index for index, clip in reversed(list(enumerate(clips)))}
    by_clip = sorted(range(len(questions)), key=lambda i: first[clips[i]])
    starts = range(0, len(questions), batch_size)[rank::world_size]
    mine = [i for start in starts for i in by_clip[start : start + batch_size]]
    missing = [i for i in mine if questions[i][1:] not in done]
    if not missing:
        return
    with _client(endpoint) as client:

        def ask(question: tuple[Row, str, list[dict[str, Any]]]) -> Answer:
            row, order, messages = question
            text = _complete(client, endpoint, messages, max_new_tokens, f"{row_key(row)} ({control.name}, {order})")
            return to_answer(row, control.name, order, text, AUDIOMCQ_STYLE.asked_for)

        asked = _conversations(
            rows, [questions[i] for i in missing], [clips[i] for i in missing], control, max_audio_seconds
        )
        for answer in _in_parallel(ask, asked, endpoint.concurrency):
            yield [answer]


def _conversations(
    rows: Sequence[Row],
    questions: Sequence[tuple[int, str, str]],
    clips: Sequence[Hashable],
    control: Control,
    max_audio_seconds: float,
) -> Iterator[tuple[Row, str, list[dict[str, Any]]]]:
    """Yield each question with its messages; a clip is encoded with its first question and dropped after its last."""
    clip, uri, cut_clips = object(), None, 0
    for (index, _, order), key in zip(questions, clips, strict=True):
        row = rows[index]
        if key != clip:
            clip, (uri, was_cut) = key, _data_uri(row, control, max_audio_seconds)
            cut_clips += was_cut
            if was_cut and cut_clips == 1:
                logger.warning("%s: clip cut to %g s; further ones are counted", row_key(row), max_audio_seconds)
        choices = [row["choices"][i] for i in option_order(row, order)]
        yield row, order, _messages(row["question"], choices, uri)
    if cut_clips > 1:
        logger.warning("%d clips were cut to %g s", cut_clips, max_audio_seconds)


def _data_uri(row: Row, control: Control, max_audio_seconds: float) -> tuple[str | None, bool]:
    """Encode the audio for a row as a data URI, and tell whether it was cut."""
    waveform = control.load_waveform(row)
    if waveform is None:
        return None, False
    waveform, was_cut = cut(waveform, max_audio_seconds)
    return f"data:audio/wav;base64,{base64.b64encode(wav_bytes(waveform)).decode()}", was_cut


def _messages(question: str, choices: Sequence[str], uri: str | None) -> list[dict[str, Any]]:
    """Build the conversation that local voters get, with its audio part in the servers' format."""
    messages = conversation(question, choices, uri)
    for message in messages:
        # Not OpenAI's own input_audio: SGLang takes audio_url alone (its issue 19235), the other servers take both
        message["content"] = [
            {"type": "audio_url", "audio_url": {"url": part["audio"]}} if part["type"] == "audio" else part
            for part in message["content"]
        ]
    return messages


def _in_parallel(ask: Callable[[Any], Answer], questions: Iterator[Any], concurrency: int) -> Iterator[Answer]:
    """Yield answers as they arrive. After a failure ask nothing new, wait for requests under way, then raise it."""
    failure: BaseException | None = None
    running: set[Future[Answer]] = set()
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


def _client(endpoint: Endpoint) -> "openai.OpenAI":
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
    """Turn a truncated answer into a broken transfer, which the client retries."""
    import httpx2

    if response.is_success:
        response.read()
        try:
            response.json()["choices"][0]["message"]
        except (ValueError, LookupError, TypeError) as error:
            raise httpx2.RemoteProtocolError(f"half an answer: {response.text[:80]!r}") from error


def _complete(
    client: "openai.OpenAI", endpoint: Endpoint, messages: list[Any], max_new_tokens: int, question: str
) -> str:
    """Request the greedy completion of one conversation; an empty answer is an empty text."""
    import openai

    failure = None
    try:
        completion = client.chat.completions.create(
            model=endpoint.model, messages=messages, **server_options(max_new_tokens)
        )
    except openai.APIError as error:
        failure = _explain(error, endpoint, question)
    if failure is not None:
        # Outside the handler: the client's error holds the request with its key, and would travel along as the cause
        raise ValueError(remove_secrets(failure))
    text = completion.choices[0].message.content or ""
    key = os.environ.get(API_KEY_VARIABLE) or ""
    return text.replace(key, "***") if len(key) >= _TELLING else text


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
    said = f"{status}: {error.response.text[:_MESSAGE_CHARACTERS]}"
    if status in (401, 403):
        # Without the server's own words: some repeat the key
        return f"{server}: refused the key ({status}); put the server's key into the environment variable {API_KEY_VARIABLE}"
    if status == 404:
        return f"{server}: no model {endpoint.model!r} there ({said}); GET {endpoint.url}/models lists those that are"
    if status in (408, 409, 429) or status >= 500:
        return f"{server}: failed in {attempts} ({said}); see the server's log"
    return f"{server}: refused the question {question} ({said})"
