"""Answer many questions with one model: batched, ordered by length, each clip encoded and prefilled once."""

import logging
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from tqdm.auto import tqdm

from audiomcq.answers import How, is_correct, parse_answer
from audiomcq.arguments.asking import Mode
from audiomcq.audio import audio_seconds, load_audio
from audiomcq.collation import EncodedPrompt, PromptEncoder, audio_batch, prompt_batch, to_model
from audiomcq.datasets import asked_orders, option_order, row_orders
from audiomcq.examples import Row, row_key, samples_key
from audiomcq.generation_options import as_generative, greedy_options
from audiomcq.inference.likelihood import likeliest, option_logps
from audiomcq.models import LALM
from audiomcq.prompts import AskedFor, PromptStyle, answer_target
from audiomcq.shared_prefix import Continuation, Prefixes, continued_generation, prefill, sharing_obstacle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """The audio that a model is given for a row: its own clip, or a replacement.

    Attributes:
        name: one of `audiomcq.arguments.asking.CONTROLS`, or that of a fragment.
        load_waveform: loads the waveform for a row; None leaves the audio out of the prompt.
        audio_key: equal for rows with the same samples, so that these are encoded once.
        duration: length of the waveform for a row in seconds, without decoding it.
        style: the prompt format that it asks in; None for that of the encoder.
    """

    name: str
    load_waveform: Callable[[Row], np.ndarray | None]
    audio_key: Callable[[Row], Hashable]
    duration: Callable[[Row], float]
    style: PromptStyle | None = None


def audio_control(audio_root: str | Path | None = None, max_seconds: float | None = None) -> Control:
    """Play each row's own clip, of which no more than `max_seconds` are decoded (see `load_audio`)."""
    return Control(
        "audio",
        load_waveform=lambda row: load_audio(row["audio"], audio_root, max_seconds=max_seconds),
        audio_key=samples_key,
        duration=lambda row: audio_seconds(row["audio"], audio_root),
    )


@dataclass(frozen=True)
class Answer:
    """One answered question: the unit of vote tables and of prediction files.

    Attributes:
        control: what was played ("audio", "silence", ...).
        order: how the options were shown (see `audiomcq.datasets.option_order`).
        completion: the raw text; in likelihood mode the tagged text of the chosen option, empty where none was chosen.
        choice: index of the chosen option among the row's choices as given, or None when the completion chooses none.
            Unparsed is never guessed.
        option_logps: length-normalised log-probability (nats per token) of each option as given; likelihood mode only.
        how: how the completion was read (`audiomcq.answers.HOW`); it tells an abstention from what nobody could read.
    """

    row_key: str
    control: str
    order: str
    completion: str
    choice: int | None
    correct: bool
    option_logps: list[float] | None = None
    how: How = "unreadable"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Asked = tuple[str, str]
"""A row key and an option order: one question under a control."""


@torch.inference_mode()
def answer_batches(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    control: Control,
    orders: Sequence[str] = ("given",),
    batch_size: int = 32,
    max_new_tokens: int = 64,
    done: Collection[Asked] = (),
    rank: int = 0,
    world_size: int = 1,
    mode: Mode = "generate",
) -> Iterator[list[Answer]]:
    """Yield answers batch by batch, longest first. Questions on the same audio share one encoding and one prefill.

    Batches depend only on `rows`, `orders` and `batch_size`: a run that is started again with what is `done` forms the
    same batches, and so gives the same answers to the last bit.

    Args:
        orders: option orders that each row is asked in ("cyclic" for all turns of its choices).
        batch_size: questions at a time at most.
        max_new_tokens: tokens of a completion at most.
        done: questions that are answered already; only batches that miss some are run, and only missing answers are
            given.
        rank, world_size: this process answers every `world_size`-th batch from `rank` on.
        mode: "generate" for greedy completions, "likelihood" for the option with the highest log-probability per
            token.

    Raises:
        ValueError: the mode is unknown.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is unknown; known: {', '.join(get_args(Mode))}")
    lalm.model.eval()
    if control.style is not None:
        encoder = replace(encoder, style=control.style)
    if obstacle := sharing_obstacle(lalm.model):
        logger.warning("every question is prefilled by itself: %s", obstacle)
    prefix_cache: dict[Hashable, Prefixes] = {}
    for questions in _batches(rows, control, orders, batch_size)[rank::world_size]:
        missing = [(question.row_key, question.order) not in done for question in questions]
        if any(missing):
            asked = [rows[question.place] for question in questions]
            batch = _encode(encoder, asked, [question.order for question in questions], control)
            continuation = None if obstacle else _continue_prefixes(lalm, batch, prefix_cache)
            if mode == "generate":
                texts = _complete(lalm, batch.prompts, max_new_tokens, continuation)
                answered = zip(asked, questions, texts, strict=True)
                answers = [
                    to_answer(row, control.name, question.order, text, encoder.style.asked_for)
                    for row, question, text in answered
                ]
            else:
                scores = option_logps(lalm, batch.prompts, [row["choices"] for row in asked], continuation)
                answers = [
                    _likeliest(row, control.name, question.order, logps)
                    for row, question, logps in zip(asked, questions, scores, strict=True)
                ]
            yield [answer for answer, wanted in zip(answers, missing, strict=True) if wanted]


_LEFT_TO_READ = 2
"""Keep the last two prompt tokens out of the shared prefix: `generate` needs at least one token to forward, and a
forward over more than one token marks a new sequence."""


class _Question(NamedTuple):
    place: int
    row_key: str
    order: str


def _batches(rows: Sequence[Row], control: Control, orders: Sequence[str], batch_size: int) -> list[list[_Question]]:
    """Batch questions on the same audio together, longest audio first.

    Questions on one clip that do not fit into one batch get batches of their own.
    """
    clips: dict[Hashable, int] = {}
    placed = []
    for index, row in enumerate(rows):
        clip = clips.setdefault(control.audio_key(row), len(clips))
        place = (-control.duration(row), clip, -len(row["question"]))
        placed += [(place, _Question(index, row_key(row), order)) for order in row_orders(row, orders)]
    placed.sort(key=lambda pair: pair[0])
    batches: list[list[_Question]] = [[]]
    for _, group in groupby(placed, key=lambda pair: pair[0][1]):
        together = [question for _, question in group]
        if len(together) > batch_size:
            batches += [together[start : start + batch_size] for start in range(0, len(together), batch_size)] + [[]]
        elif len(batches[-1]) + len(together) > batch_size:
            batches.append(together)
        else:
            batches[-1] += together
    return [batch for batch in batches if batch]


@dataclass(frozen=True)
class _Batch:
    """N encoded questions on U different clips.

    Attributes:
        prompts: the N whole prompts.
        prefixes: for each clip the common beginning of all prompts on it: its audio, and what their questions share.
        prefix_index: for each prompt the index of its prefix.
        audio_keys: the `Control.audio_key` of each clip.
    """

    prompts: list[EncodedPrompt]
    prefixes: list[EncodedPrompt]
    prefix_index: list[int]
    audio_keys: list[Hashable]


def _encode(encoder: PromptEncoder, rows: Sequence[Row], orders: Sequence[str], control: Control) -> _Batch:
    """Encode a batch; every clip is decoded, and its mel computed, once."""
    prefix_index: list[int] = []
    first: dict[Hashable, tuple[int, Row]] = {}
    for row in rows:
        prefix_index.append(first.setdefault(control.audio_key(row), (len(first), row))[0])
    waveforms = [control.load_waveform(row) for _, row in first.values()]
    shown = [
        {**row, "choices": [row["choices"][i] for i in option_order(row, order)]}
        for row, order in zip(rows, orders, strict=True)
    ]
    # Where one clip fills the batch, an empty question keeps the prefix from being longer here than in the clip's next
    # batch
    empty = [{**row, "question": "", "choices": []} for _, row in first.values() if len(first) == 1]
    encoded = encoder(
        [*shown, *empty], [*(waveforms[clip] for clip in prefix_index), *waveforms][: len(shown) + len(empty)]
    )
    prompts, empty_prompts = encoded[: len(rows)], encoded[len(rows) :]
    prefixes = []
    for clip in range(len(first)):
        on_it = [prompt for prompt, its in zip(prompts, prefix_index, strict=True) if its == clip] + empty_prompts
        ids = [prompt.input_ids[:-_LEFT_TO_READ] for prompt in on_it]
        common = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*ids, strict=False))
        prefixes.append(replace(on_it[0], input_ids=[tokens[0] for tokens in common]))
    return _Batch(prompts, prefixes, prefix_index, list(first))


def _continue_prefixes(lalm: LALM, batch: _Batch, prefix_cache: dict[Hashable, Prefixes]) -> Continuation:
    """Continue prefilled prefixes with the rest of each prompt. `prefix_cache` has those of the batch before, for the
    same audio.

    Raises:
        ValueError: the chat template puts audio after the question.
    """
    suffixes = [
        prompt.input_ids[len(batch.prefixes[clip].input_ids) :]
        for prompt, clip in zip(batch.prompts, batch.prefix_index, strict=True)
    ]
    if any(token in lalm.placeholder_ids for suffix in suffixes for token in suffix):
        raise ValueError(
            f"{lalm.source}: its chat template puts the audio after the question, where nothing can share it"
        )
    key = (*batch.audio_keys, *(tuple(prefix.input_ids) for prefix in batch.prefixes))
    if key not in prefix_cache:
        prefix_cache.clear()
        audio = to_model(audio_batch(batch.prefixes), lalm.model)
        prefix_cache[key] = prefill(lalm.model, [prefix.input_ids for prefix in batch.prefixes], audio)
    return Continuation(prefix_cache[key], batch.prefix_index, suffixes)


def to_answer(row: Row, control: str, order: str, completion: str, asked_for: AskedFor = "text") -> Answer:
    """Read what a completion chose, by the one matcher.

    Args:
        order: how the options were shown; a letter is a position among those.
        asked_for: what the prompt asked for (`PromptStyle.asked_for`), ours for an option's text.
    """
    shown = option_order(row, order)
    choices = [row["choices"][i] for i in shown]
    parsed = parse_answer(completion, choices, asked_for)
    choice = None if parsed.choice is None else shown[parsed.choice]
    correct = is_correct(parsed, choices, row["answer"])
    return Answer(row_key(row), control, order, completion, choice, correct, how=parsed.how)


def read_answer(
    row: Row,
    order: str,
    completion: str | None,
    logps: Sequence[float] | None = None,
    asked_for: AskedFor = "text",
) -> tuple[int | None, bool, How]:
    """Read what a stored answer chose, whether it is right, and how it was read.

    Where options were scored the likeliest is chosen, and `how` is that of the tagged text that is stored for it.

    Raises:
        ValueError: there is no completion, the order is none, or the scores are of other options.
    """
    if logps is None:
        if completion is None:
            raise ValueError("it has no completion")
        answer = to_answer(row, "", order, completion, asked_for)
        return answer.choice, answer.correct, answer.how
    if len(logps) != len(row["choices"]):
        raise ValueError(
            f"it has log-probs of {len(logps)} options, the row has {len(row['choices'])}: it is about another row; ask again"
        )
    choice = likeliest(row["choices"], logps)
    if choice is None:
        # Options that tie are all that it says; scores that are no numbers say nothing
        return None, False, "abstained" if all(map(math.isfinite, logps)) else "unreadable"
    return choice, row["choices"][choice] == row["answer"], "tag"


def _likeliest(row: Row, control: str, order: str, logps: list[float]) -> Answer:
    """Make an answer of the likeliest option; its completion is the tagged text of the option, so that it reads like
    any other.
    """
    choice, correct, how = read_answer(row, order, None, logps)
    text = "" if choice is None else answer_target(row["choices"][choice])
    return Answer(row_key(row), control, order, text, choice, correct, logps, how)


def answer_questions(
    lalm: LALM,
    encoder: PromptEncoder,
    rows: Sequence[Row],
    control: Control | None = None,
    orders: Sequence[str] = ("given",),
    batch_size: int = 32,
    max_new_tokens: int = 64,
    mode: Mode = "generate",
) -> list[Answer]:
    """Answer all questions, in the order of `rows` and, within a row, of `orders`, with the rows' own clips by
    default.
    """
    control = control or audio_control(encoder.audio_root, encoder.max_audio_seconds)
    asked = asked_orders(rows, orders)
    answers: dict[Asked, Answer] = {}
    with tqdm(total=len(asked), desc=f"answering ({control.name})", unit="question", dynamic_ncols=True) as progress:
        for batch in answer_batches(lalm, encoder, rows, control, orders, batch_size, max_new_tokens, mode=mode):
            answers |= {(answer.row_key, answer.order): answer for answer in batch}
            progress.update(len(batch))
    abstained, unreadable = (
        sum(answer.how == how for answer in answers.values()) for how in ("abstained", "unreadable")
    )
    logger.info(
        "%s: %d questions answered, %d abstain, %d unreadable", control.name, len(asked), abstained, unreadable
    )
    return [answers[question] for question in asked]


def _complete(
    lalm: LALM, prompts: Sequence[EncodedPrompt], max_new_tokens: int, continuation: Continuation | None
) -> list[str]:
    """Generate the greedy completions of one batch."""
    options = greedy_options(lalm, max_new_tokens)
    if continuation is not None:
        tokens = continued_generation(lalm.model, continuation, **options)
    else:
        inputs = to_model(prompt_batch(prompts, lalm.tokenizer.pad_token_id), lalm.model)
        tokens = as_generative(lalm.model).generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    return lalm.tokenizer.batch_decode(tokens, skip_special_tokens=True)
