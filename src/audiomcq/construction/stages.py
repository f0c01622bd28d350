"""The stages in which a language model turns a caption into a question (arXiv 2509.21060, construction pipeline).

Question and type; options; a structured and an unstructured chain of thought; grades; and, where a model that hears is
named, a chain of thought from listening. Each has its template in prompts/.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import TemplateError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from audiomcq.answers import is_correct, parse_answer
from audiomcq.audio import AudioError, cut, load_audio
from audiomcq.construction.candidates import AXES, Candidate
from audiomcq.construction.captions import CaptionedClip, Event
from audiomcq.construction.chains import structured_chain, unstructured_chain
from audiomcq.construction.row_checks import find_defect
from audiomcq.construction.writer import Pending, Prompt, Rejected, Request, Writer, load_prompts
from audiomcq.inference.client import audio_uri
from audiomcq.prompts import CONTROL_TOKENS, answer_target
from audiomcq.templating import fill_template

PROMPTS = Path(__file__).parent / "prompts"
WRONG_OPTIONS = 3
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f<>]*$")
]
"""One line without tags and control characters."""
Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=20, max_length=4000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f<>]*$"
    ),
]
Grade = Annotated[int, Field(ge=1, le=5)]


class Reply(BaseModel):
    """What a model must answer: these fields, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class OptionsReply(Reply):
    wrong_options: list[Line] = Field(min_length=WRONG_OPTIONS, max_length=WRONG_OPTIONS)


class StructuredReply(Reply):
    analysis: Text
    reasons: Text


class UnstructuredReply(Reply):
    text: Text


class AudioReply(Reply):
    thought: Text
    answer: Line


GradesReply = create_model("GradesReply", __base__=Reply, **{axis: (Grade, ...) for axis in AXES})  # type: ignore[call-overload]


@cache
def question_reply(question_types: tuple[str, ...]) -> type[Any]:
    """Return the reply of the question stage, whose type is one of those that the source has."""
    kind = Literal[question_types]  # type: ignore[valid-type]
    return create_model(
        "QuestionReply", __base__=Reply, question=(Line, ...), question_type=(kind, ...), answer=(Line, ...)
    )


class Prompts:
    """The templates, with those in a folder of the user's own in place of ours.

    Raises:
        ValueError: the folder has a template for a stage that there is not.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.templates = load_prompts(PROMPTS)
        own = load_prompts(Path(folder)) if folder else {}
        if unknown := sorted(set(own) - set(self.templates)):
            raise ValueError(
                f"{folder}: no stage is called {unknown[0]}; the stages are {', '.join(sorted(self.templates))}"
            )
        if folder and not own:
            raise ValueError(f"{folder}: no template there; name them STAGE-VERSION.txt, e.g. question-mine.txt")
        self.templates |= own
        for stage, path in self.templates.items():
            _try_template(stage, path)
        # A template that was changed without a new name has another version all the same
        self.versions = {stage: f"{path.stem}.{_digest(path)}" for stage, path in sorted(self.templates.items())}

    def fill(self, stage: str, candidate: Candidate, **values: Any) -> Prompt:
        text = fill_template(self.templates[stage], **{**vars(candidate.clip), **vars(candidate), **values})
        return Prompt(text, self.versions[stage])


def _try_template(stage: str, path: Path) -> None:
    """Fill in a template once, so that its errors are found before anything is asked.

    Raises:
        ValueError: it cannot be filled in.
    """
    clip = CaptionedClip(
        "1", "Source", "a.wav", "A dog barks.", ("sound",), events=(Event("a dog", 0.0, 1.0),), seconds=2.0
    )
    written = Candidate(clip, "sound", "What is heard?", "a dog", ["a dog", "a cat"], "a chain", "a chain")
    try:
        fill_template(path, **{**vars(clip), **vars(written)})
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        raise ValueError(f"{path}: the template of the stage {stage} cannot be filled in: {error}") from error


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=3).hexdigest()


@dataclass(frozen=True)
class Models:
    """Who is asked for what.

    Attributes:
        grader: may be another model than the writer, so that nobody grades his own work.
        listener: hears the clips; None: the stage is left out.
        template_question: the open question that starts the source's questions, where captions have none.
        audio_root: where clips are, for the listener.
    """

    writer: Writer
    grader: Writer
    listener: Writer | None
    prompts: Prompts
    template_question: str | None
    audio_root: Path | None = None
    min_grade: int = 4
    max_audio_seconds: float = 30.0

    def offline(self) -> "Models":
        """Return the same models, which answer from the cache alone."""
        listener = self.listener and self.listener.offline()
        return replace(self, writer=self.writer.offline(), grader=self.grader.offline(), listener=listener)

    def ask(self, model: Writer, stage: str, candidate: Candidate, reply: type[Any], **options: Any) -> Any:
        """Ask for a stage's reply, and note who gave it."""
        values = options.pop("values", {})
        prompt = self.prompts.fill(stage, candidate, **values)
        answer = model.ask(Request(candidate.source_row, stage, prompt, reply, **options))
        candidate.provenance.append({"stage": stage, "prompt_version": prompt.version, "model": model.endpoint.model})
        return answer


def write_candidate(candidate: Candidate, models: Models) -> Candidate:
    """Take a candidate through all stages, until one rejects it or cannot go on for now.

    Raises:
        Missing: the models are offline, and an answer is not in the cache.
    """
    for name, write in {"captions": check_caption, **STEPS}.items():
        if name == "audio_cot" and models.listener is None:
            continue
        candidate.stage = name
        try:
            write(candidate, models)
        except Rejected as rejected:
            candidate.status, candidate.reason = "rejected", str(rejected)
            break
        except Pending as pending:
            candidate.status, candidate.reason = "pending", str(pending)
            break
    return candidate


def check_caption(candidate: Candidate, models: Models) -> None:
    """Reject a caption that no row can carry: training refuses control tokens and characters in its texts."""
    clip = candidate.clip
    for text in (clip.caption, clip.question or "", *(event.text for event in clip.events)):
        if found := CONTROL_TOKENS.search(text):
            raise Rejected(f"control token in the caption: {found[0]}")
        if found := _CONTROL_CHARACTER.search(text):
            raise Rejected(f"control character in the caption: {found[0]!r}")


def write_question(candidate: Candidate, models: Models) -> None:
    """Write question, type and answer. Where a caption has no question of its own, its source's template starts it."""
    clip = candidate.clip
    opening = clip.question or models.template_question or "What can be heard in this clip?"
    reply = models.ask(
        models.writer, "question", candidate, question_reply(clip.question_types), values={"question": opening}
    )
    candidate.question, candidate.question_type, candidate.answer = reply.question, reply.question_type, reply.answer


def write_options(candidate: Candidate, models: Models) -> None:
    """Write three wrong options; those that a check refuses are asked for again."""

    def check(reply: OptionsReply) -> str | None:
        return find_candidate_defect(replace(candidate, choices=[str(candidate.answer), *reply.wrong_options]))

    reply = models.ask(models.writer, "options", candidate, OptionsReply, find_defect=check)
    candidate.choices = [str(candidate.answer), *reply.wrong_options]


def find_candidate_defect(candidate: Candidate) -> str | None:
    """Say what is wrong with a candidate's question and options; None if nothing is."""
    clip = candidate.clip
    return find_defect(
        str(candidate.question),
        candidate.choices,
        str(candidate.answer),
        str(candidate.question_type),
        clip.events,
        clip.seconds,
    )


def write_structured_cot(candidate: Candidate, models: Models) -> None:
    """Write the analysis of the question and the reasons of the choice, in the published layout around the caption."""

    def write(reply: StructuredReply) -> str:
        analysis, reasons = (text.rstrip(" .,") for text in (reply.analysis, reply.reasons))
        return structured_chain(
            analysis, str(candidate.question_type), candidate.clip.caption, reasons, str(candidate.answer)
        )

    def check(reply: StructuredReply) -> str | None:
        try:
            write(reply)
        except ValueError:
            return "the chain repeats its own layout: it could not be taken apart again"
        return None

    candidate.structured_cot = write(
        models.ask(models.writer, "structured_cot", candidate, StructuredReply, find_defect=check)
    )


def write_unstructured_cot(candidate: Candidate, models: Models) -> None:
    """Shorten the structured chain of thought to its key logic."""
    reply = models.ask(models.writer, "unstructured_cot", candidate, UnstructuredReply)
    candidate.unstructured_cot = unstructured_chain(reply.text)


def grade(candidate: Candidate, models: Models) -> None:
    """Grade the row on the five axes; it is kept if every grade is high enough."""
    reply = models.ask(models.grader, "grades", candidate, GradesReply)
    candidate.grades = {axis: getattr(reply, axis) for axis in AXES}
    if low := [f"{axis} {value}" for axis, value in candidate.grades.items() if value < models.min_grade]:
        raise Rejected(f"graded below {models.min_grade}: {', '.join(low)}")


def write_audio_cot(candidate: Candidate, models: Models) -> None:
    """Have a model that hears the clip think and answer; a row that it answers otherwise is rejected."""
    assert models.listener is not None  # `write_candidate` leaves the stage out
    try:
        waveform = load_audio(candidate.clip.audio_path, models.audio_root)
    except AudioError as error:
        raise Rejected(str(error)) from error
    waveform, _ = cut(waveform, models.max_audio_seconds)
    reply = models.ask(models.listener, "audio_cot", candidate, AudioReply, audio=audio_uri(waveform))
    read = parse_answer(answer_target(reply.answer), candidate.choices)
    if not is_correct(read, candidate.choices, str(candidate.answer)):
        raise Rejected(f"the listener disagrees: it answers {reply.answer!r}")
    candidate.audio_cot = reply.thought


STEPS: dict[str, Callable[[Candidate, Models], None]] = {
    "question": write_question,
    "options": write_options,
    "structured_cot": write_structured_cot,
    "unstructured_cot": write_unstructured_cot,
    "grades": grade,
    "audio_cot": write_audio_cot,
}
"""What each stage does, in order."""
