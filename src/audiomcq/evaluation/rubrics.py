"""MMAR-Rubrics: a language model grades the chains of thought of right answers by each item's own rubric.

Aggregation as of ddlBoJack/MMAR@3bce090, code/evaluation_rubrics.py: an answer that is wrong by the token-set rule has
0 and is not asked about. A right one is graded by several raters, each of them the same request; a rater's score is the
sum of the grades over the sum of the highest allowed ones; the lowest and the highest rater are left out, and the mean
of the others counts. An item one of whose raters cannot be read is not evaluated, and stays out of the denominator:
it is counted, and nothing is put in its place.

That repository states no licence for its code, so the words of the request are our own; what it tells the judge is
the same (question, gold answer, the expert's reasoning, the criteria, what the model wrote). The judge answers an
object with a list, as a JSON schema asks, where theirs answers the list alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from audiomcq.evaluation.benchmarks import Benchmark
from audiomcq.evaluation.exports import thinking_part
from audiomcq.evaluation.item_files import find_folder, read_items
from audiomcq.evaluation.official import token_set_rule
from audiomcq.evaluation.report import Estimate, Prediction, estimate_accuracy, estimate_gain, markdown, percent
from audiomcq.examples import Row, row_key
from audiomcq.inference.client import ask_in_parallel
from audiomcq.records import NUMBER, TEXT, check_fields, list_of
from audiomcq.templating import fill_template

TEMPLATE = Path(__file__).parent / "prompts" / "rubric_grades-1.txt"
STAGE = "rubric_grades"
RATERS, SEED = 5, 42
JUDGE = "gpt-4o-2024-11-20"
"""The judge of the published scores. Scores of another are not comparable with them."""
_CRITERION = {"name": TEXT, "scoring_point": TEXT, "choices": list_of(NUMBER)}


class NotEvaluated(Exception):
    """A judgement cannot be read, or is refused."""


class NotAsked(Exception):
    """A judgement waits for another run."""


class Grade(BaseModel):
    """One criterion as a rater graded it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    score: float
    justification: str


class RubricGrades(BaseModel):
    """What a rater answers."""

    model_config = ConfigDict(extra="forbid", strict=True)
    grades: list[Grade]


@dataclass(frozen=True)
class Criterion:
    """One criterion of an item; `choices` are the scores that it allows."""

    name: str
    scoring_point: str
    choices: tuple[float, ...]


@dataclass(frozen=True)
class Rubric:
    """What the judge goes by: the expert's reasoning and the criteria."""

    thinking: str
    criteria: tuple[Criterion, ...]

    def find_defect(self, reply: RubricGrades) -> str | None:
        """Say why a reply cannot be read by this rubric, None if it can. Names are not compared, as there."""
        if len(reply.grades) != len(self.criteria):
            return f"{len(reply.grades)} grades for {len(self.criteria)} criteria"
        for grade, criterion in zip(reply.grades, self.criteria, strict=True):
            if grade.score not in criterion.choices:
                return f"{criterion.name}: the score {grade.score:g} is none of {criterion.choices}"
        return None

    def score(self, reply: RubricGrades) -> float:
        """Return a rater's score, from 0 to 1."""
        most = sum(max(criterion.choices) for criterion in self.criteria)
        return sum(grade.score for grade in reply.grades) / most if most else 0.0


@dataclass(frozen=True)
class Request:
    """What a rater is asked about one answer."""

    row_key: str
    rater: int
    prompt: str
    rubric: Rubric


Ask = Callable[[Request], float]
"""Returns a rater's score. Raises NotEvaluated or NotAsked."""


@dataclass(frozen=True)
class Graded:
    """One answer.

    Attributes:
        right: by the official rule; strict: by ours.
        raters: the score of each, none for a wrong answer.
        score: 0 for a wrong answer; None if a rater could not be read (`why`) or waits (`pending`).
    """

    row_key: str
    right: bool
    strict: bool
    raters: tuple[float, ...] = ()
    score: float | None = None
    pending: bool = False
    why: str | None = None


def read_rubrics(benchmark: Benchmark, source: str | Path) -> dict[str, Rubric]:
    """Read the rubrics of a benchmark's question file, folder or Hub repository, by item id.

    Raises:
        ValueError: an item has no rubric that can be used.
    """
    files = [Path(source)] if Path(source).is_file() else sorted(find_folder(source).glob(benchmark.questions or "*"))
    rubrics = {}
    for file in files:
        for raw in read_items(file):
            where = f"{file.name}, item {raw.get('id')}"
            if not raw.get("rubric"):
                raise ValueError(f"{where}: it has no rubric; take the MMAR-meta.jsonl of 2026-02-16 or later")
            for each in raw["rubric"]:
                check_fields(each, _CRITERION, f"{where}: rubric", frozenset(_CRITERION))
            criteria = (
                Criterion(each["name"], each["scoring_point"], tuple(each["choices"])) for each in raw["rubric"]
            )
            rubrics[str(raw["id"])] = Rubric(str(raw.get("thinking") or ""), tuple(criteria))
    return rubrics


def trim_mean(scores: Sequence[float]) -> float:
    """Return the mean without the lowest and the highest of three scores or more."""
    kept = sorted(scores)[1:-1] if len(scores) >= 3 else scores
    return sum(kept) / len(kept)


def grade_answer(ask: Ask, raters: int, rubrics: Mapping[str, Rubric], row: Row, answer: Prediction) -> Graded:
    """Grade one answer; nobody is asked about a wrong one."""
    key, choices = row_key(row), row["choices"]
    text = choices[answer["choice"]] if answer["choice"] is not None else answer["completion"]
    graded = Graded(key, token_set_rule(text, choices, row["answer"]), bool(answer["correct"]), score=0.0)
    if not graded.right:
        return graded
    rubric = rubrics[row["id"]]
    prompt = fill_template(
        TEMPLATE,
        question=row["question"],
        answer=row["answer"],
        expert=rubric.thinking,
        criteria=rubric.criteria,
        thought=thinking_part(answer["completion"], choices),
        text=text,
    )
    scores: list[float] = []
    try:
        for rater in range(raters):
            scores.append(ask(Request(key, rater, prompt, rubric)))
    except NotEvaluated as error:
        return Graded(key, True, graded.strict, tuple(scores), why=str(error))
    except NotAsked as error:
        return Graded(key, True, graded.strict, tuple(scores), pending=True, why=str(error))
    return Graded(key, True, graded.strict, tuple(scores), trim_mean(scores))


def grade_answers(
    ask: Ask,
    raters: int,
    rubrics: Mapping[str, Rubric],
    rows: Mapping[str, Row],
    answers: Mapping[str, Prediction],
    concurrency: int,
) -> Iterator[Graded]:
    """Grade the answers with audio of one model, as they arrive.

    Raises:
        ValueError: a row has no rubric.
    """
    if without := [key for key, row in rows.items() if row["id"] not in rubrics]:
        raise ValueError(f"{len(without)} items have no rubric, the first {without[0]}")
    pairs = ((row, answers[key]) for key, row in rows.items())
    grade = partial(grade_answer, ask, raters, rubrics)
    yield from ask_in_parallel(lambda pair: grade(*pair), pairs, concurrency)


def summarize(rows: Mapping[str, Row], graded: Iterable[Graded]) -> dict[str, Any]:
    """Summarize the grades of one model as plain data: all items, and each group of them.

    `score` is None as long as judgements are pending; `strict_score` is the same with 0 for answers that are right by
    the official rule alone.
    """
    by_key = {each.row_key: each for each in graded}
    groups: dict[str, dict[str, list[Graded]]] = {}
    for key, row in rows.items():
        for column in ("type", "category", "sub_category"):
            if (value := (row.get("groups") or {}).get(column)) is not None:
                groups.setdefault(column, {}).setdefault(value, []).append(by_key[key])
    every = [by_key[key] for key in rows]
    return {
        **_summarize_part(every),
        "groups": {
            column: {value: _summarize_part(part) for value, part in sorted(parts.items())}
            for column, parts in groups.items()
        },
        "answers": [asdict(each) for each in every],
    }


def _summarize_part(part: Sequence[Graded]) -> dict[str, Any]:
    evaluated = [each for each in part if each.score is not None]
    pending = sum(each.pending for each in part)
    scores = [each.score or 0.0 for each in evaluated]
    strict = [score if each.strict else 0.0 for score, each in zip(scores, evaluated, strict=True)]
    told = bool(evaluated) and not pending
    return {
        "n": len(part),
        "n_right": sum(each.right for each in part),
        "n_evaluated": len(evaluated),
        "n_unreadable": len(part) - len(evaluated) - pending,
        "n_pending": pending,
        "accuracy": asdict(estimate_accuracy([each.right for each in part])),
        "score": asdict(estimate_gain(scores)) if told else None,
        "strict_score": asdict(estimate_gain(strict)) if told else None,
    }


def rubrics_page(title: str, judge: str, raters: int, seed: int, models: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the grades as a Markdown page, with what limits them above the table."""
    from audiomcq.evaluation.tables import read_estimate

    lines = [["model", "items", "right", "rubric score", "strict answers only", "unreadable", "pending"]]
    for name, model in models.items():
        figures: list[Estimate | None] = [read_estimate(model[each]) for each in ("score", "strict_score")]
        counts = [str(model["n_unreadable"]), str(model["n_pending"])]
        lines.append([name, str(model["n"]), str(model["n_right"]), *map(percent, figures), *counts])
    caveats = (
        []
        if judge.rpartition("#")[2] == JUDGE
        else [f"The judge is not {JUDGE}: not comparable with published scores."]
    )
    if (raters, seed) != (RATERS, SEED):
        caveats.append(f"{raters} raters with seed {seed} where the official program has {RATERS} with seed {SEED}.")
    for name, model in models.items():
        if model["n_unreadable"]:
            caveats.append(
                f"{name}: {model['n_unreadable']} right answers are not evaluated, since a judgement of them cannot be read."
            )
        if model["n_pending"]:
            caveats.append(f"{name}: {model['n_pending']} right answers wait for their judgement: no score yet.")
    return (
        f"# Chains of thought, {title}\n\n"
        + "".join(f"> **{caveat}**\n\n" for caveat in caveats)
        + markdown(lines)
        + f"\nJudge {judge}, {raters} raters, seed {seed}, request {TEMPLATE.stem}. Percent with 95 % intervals. An answer that is wrong by the "
        "token-set rule has 0 and is not asked about; of a right one, the lowest and the highest rater are left out. Answers of which a judgement "
        "cannot be read are in no denominator. Strict answers only: what is right by the token-set rule alone has 0 too.\n"
    )
