"""Answer many questions through an OpenAI-compatible server: vLLM, SGLang, `transformers serve`.

For models that `audiomcq.models` does not load or that are too large for the machine. Servers give texts, not the
log-probabilities of texts that they are handed, so there is no likelihood mode here: whoever takes a mode refuses it for
a voter that `parse_voter` reads as an endpoint.

A voter's name goes into tables, records, logs and messages, so no key may be part of it (`audiomcq.inference.client`).
"""

import logging
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Any

from audiomcq.audio import cut
from audiomcq.datasets import option_order, row_orders
from audiomcq.endpoints import Endpoint
from audiomcq.examples import Row, row_key
from audiomcq.inference.client import ask_in_parallel, audio_part, audio_uri, open_client, request_completion
from audiomcq.inference.local import Answer, Asked, Control, to_answer
from audiomcq.interruption import until_signal
from audiomcq.more_clips import list_waveforms
from audiomcq.prompts import AUDIOMCQ_STYLE, conversation

logger = logging.getLogger(__name__)


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
    with open_client(endpoint) as client:

        def ask(question: tuple[Row, str, list[dict[str, Any]]]) -> Answer:
            row, order, messages = question
            name = f"{row_key(row)} ({control.name}, {order})"
            completion = request_completion(client, endpoint, messages, name, **server_options(max_new_tokens))
            text = completion.choices[0].message.content or ""  # an empty answer is an empty text
            return to_answer(row, control.name, order, text, AUDIOMCQ_STYLE.asked_for)

        asked = _conversations(
            rows, [questions[i] for i in missing], [clips[i] for i in missing], control, max_audio_seconds
        )
        for answer in ask_in_parallel(ask, until_signal(asked), endpoint.concurrency):
            yield [answer]


def _conversations(
    rows: Sequence[Row],
    questions: Sequence[tuple[int, str, str]],
    clips: Sequence[Hashable],
    control: Control,
    max_audio_seconds: float,
) -> Iterator[tuple[Row, str, list[dict[str, Any]]]]:
    """Yield each question with its messages; a clip is encoded with its first question and dropped after its last."""
    clip, uris, cut_clips = object(), list[str](), 0
    for (index, _, order), key in zip(questions, clips, strict=True):
        row = rows[index]
        if key != clip:
            clip, (uris, were_cut) = key, _data_uris(row, control, max_audio_seconds)
            if were_cut and not cut_clips:
                logger.warning("%s: clip cut to %g s; further ones are counted", row_key(row), max_audio_seconds)
            cut_clips += were_cut
        choices = [row["choices"][i] for i in option_order(row, order)]
        yield row, order, _messages(row["question"], choices, uris)
    if cut_clips > 1:
        logger.warning("%d clips were cut to %g s", cut_clips, max_audio_seconds)


def _data_uris(row: Row, control: Control, max_audio_seconds: float) -> tuple[list[str], int]:
    """Encode what is played for a row as data URIs, and count the clips that were cut."""
    heard = [cut(waveform, max_audio_seconds) for waveform in list_waveforms(control.load_waveform(row))]
    return [audio_uri(waveform) for waveform, _ in heard], sum(was_cut for _, was_cut in heard)


def _messages(question: str, choices: Sequence[str], uris: list[str]) -> list[dict[str, Any]]:
    """Build the conversation that local voters get, with its audio parts in the servers' format."""
    messages = conversation(question, choices, uris)
    for message in messages:
        message["content"] = [
            audio_part(part["audio"]) if part["type"] == "audio" else part for part in message["content"]
        ]
    return messages
