"""Answer and score several checkpoints on several benchmarks, as far as their files are here, and write one page."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.utils import cached_file

from audiomcq.arguments.asking import AskArguments
from audiomcq.arguments.evaluation import AnswerArguments, QuestionArguments, RescoreArguments, ScoreArguments
from audiomcq.commands import evaluation
from audiomcq.endpoints import parse_voter
from audiomcq.evaluation.benchmarks import find_benchmark
from audiomcq.evaluation.questions import load_questions
from audiomcq.evaluation.rescore import Source, Waiting, parse_source, rescore_page
from audiomcq.evaluation.results import score_folder
from audiomcq.storage import write_json, write_whole

logger = logging.getLogger(__name__)


def rescore(args: RescoreArguments) -> str:
    """Answer, score and write rescore.json and rescore.md; return the page.

    What is answered stays answered: a killed run goes on, and a later one adds what has come meanwhile.

    Raises:
        ValueError: an option cannot be used, or a file that is here is not what it should be.
    """
    models, benchmarks = [parse_source(each) for each in args.models], [parse_source(each) for each in args.benchmarks]
    if twice := {each.file_name for each in models if sum(each.file_name == other.file_name for other in models) > 1}:
        raise ValueError(f"models: {', '.join(sorted(twice))} is named twice; give each another name, NAME=FOLDER")
    for each in benchmarks:
        if not find_benchmark(each.name).has_gold:
            raise ValueError(f"benchmarks: the answers of {each.name} are withheld: export and submit instead")
    waiting, results = list[Waiting](), dict[str, Any]()
    lacking_models = {model: _find_lacking_model(model) for model in models}
    for benchmark in benchmarks:
        lacking = _find_lacking_questions(benchmark)
        for model in models:
            reasons = [reason for reason in (lacking_models[model], lacking) if reason]
            if reasons:
                waiting.append(Waiting(model, benchmark, " and ".join(reasons)))
            else:
                evaluation.answer(_answer_arguments(args, model, benchmark))
        if PartialState().is_main_process and any(_predictions(args, benchmark).glob("*.jsonl")):
            scored = score_folder(_score_arguments(args, benchmark))
            scored.save(Path(args.output_dir) / benchmark.name / "scores")
            results[benchmark.name] = scored.results
    if args.stand_ins:
        waiting = [
            Waiting(model, benchmark, "the weights, the question file and its clips")
            for benchmark in benchmarks
            for model in models
        ]
    page = rescore_page(results, models, benchmarks, waiting, args.stand_ins)
    if PartialState().is_main_process:
        record = {"stand_ins": args.stand_ins, "waiting": [asdict(each) for each in waiting], "results": results}
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        write_json(Path(args.output_dir) / "rescore.json", record)
        write_whole(Path(args.output_dir) / "rescore.md", page)
    return page


def _predictions(args: RescoreArguments, benchmark: Source) -> Path:
    return Path(args.output_dir) / benchmark.name / "predictions"


def _answer_arguments(args: RescoreArguments, model: Source, benchmark: Source) -> AnswerArguments:
    asked = {name: getattr(args, name) for name in AskArguments.__dataclass_fields__}
    return AnswerArguments(
        **asked,
        model=model.place,
        model_revision=model.revision,
        name=model.file_name,
        benchmark=benchmark.name,
        dataset=_dataset(benchmark),
        output_dir=str(_predictions(args, benchmark)),
    )


def _score_arguments(args: RescoreArguments, benchmark: Source) -> ScoreArguments:
    return ScoreArguments(
        benchmark=benchmark.name, dataset=_dataset(benchmark), predictions=str(_predictions(args, benchmark))
    )


def _dataset(benchmark: Source) -> str:
    """Return the question file or folder of a benchmark, "" for its own Hub id."""
    return "" if benchmark.place == benchmark.name else benchmark.place


def _find_lacking_model(model: Source) -> str | None:
    """Say that a model cannot be had, None if it can.

    Raises:
        ValueError: a folder is named for it that is not there.
    """
    if parse_voter(model.place) or Path(model.place).is_dir():
        return None
    if model.place != model.name:
        raise ValueError(f"{model.name}: no such folder {model.place!r}")
    try:
        cached_file(model.place, "config.json", revision=model.revision)
    except OSError as error:
        logger.warning("%s: %s", model.name, str(error).partition("\n")[0])
        return "the weights"
    return None


def _find_lacking_questions(benchmark: Source) -> str | None:
    """Say that a benchmark cannot be had, None if it can.

    Raises:
        ValueError: a file or folder is named for it that is not there, or that holds something else.
    """
    dataset = _dataset(benchmark)
    questions = QuestionArguments(benchmark=benchmark.name, dataset=dataset)
    if dataset:
        load_questions(questions, check_audio=False)
        return None
    try:
        load_questions(questions, check_audio=False)
    except OSError as error:
        logger.warning("%s: %s", benchmark.name, str(error).partition("\n")[0])
        return "the question file and its clips"
    return None
