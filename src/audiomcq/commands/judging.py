"""Let a language model judge: the requests of `evaluation.rubrics`, through the server and the cache of a build."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiomcq.arguments.evaluation import GradeChainsArguments, ScoreArguments
from audiomcq.commands.start import require
from audiomcq.construction.budget import Budget
from audiomcq.construction.by_model import open_budget, open_writer
from audiomcq.construction.responses import ResponseCache
from audiomcq.construction.writer import Halt, Pending, Prompt, Rejected
from audiomcq.construction.writer import Request as WriterRequest
from audiomcq.evaluation import rubrics
from audiomcq.evaluation.benchmarks import find_benchmark
from audiomcq.evaluation.results import load_answers
from audiomcq.storage import write_json, write_whole


def grade_chains(args: GradeChainsArguments) -> dict[str, Any]:
    """Grade, and return what rubrics.json says.

    Raises:
        ValueError: an option cannot be used, or the server failed. What was graded until then is written first.
    """
    require(judge=args.judge, benchmark=args.benchmark)
    benchmark, output = find_benchmark(args.benchmark or ""), Path(args.output_dir)
    criteria = rubrics.read_rubrics(benchmark, args.dataset or benchmark.hub_id)
    shared = {name: value for name, value in asdict(args).items() if name in ScoreArguments.__dataclass_fields__}
    title, rows, runs = load_answers(ScoreArguments(**shared))
    with ResponseCache(output / "judgements") as cache, _open_judge(args, cache) as (ask, halt, spent):
        models = {
            name: rubrics.summarize(
                rows, rubrics.grade_answers(ask, args.raters, criteria, rows, answers, args.endpoint_concurrency)
            )
            for name, answers in runs.items()
        }
        record = {
            "benchmark": title,
            "judge": args.judge,
            "raters": args.raters,
            "seed": args.seed,
            "prompt": rubrics.TEMPLATE.stem,
            "spent": {"tokens": spent.total_tokens, "cost": spent.cost, "answers": spent.answers},
            "stopped": halt.reason,
            "models": models,
        }
    write_json(output / "rubrics.json", record)
    write_whole(
        output / "rubrics.md",
        rubrics.rubrics_page(title, args.judge.rpartition("#")[2], args.raters, args.seed, models),
    )
    pending = sum(model["n_pending"] for model in models.values())
    if halt.fault or (pending and halt.reason is None):
        raise ValueError(
            f"{halt.reason or 'the server does not answer'}; {pending:,} answers wait for their judgement: the same command goes on"
        )
    return record


@contextmanager
def _open_judge(args: GradeChainsArguments, cache: ResponseCache) -> Iterator[tuple[rubrics.Ask, Halt, Budget]]:
    """Yield what asks a rater, why nothing more is asked, and what was spent."""
    budget, halt = open_budget(args, cache), Halt()
    with open_writer(args, args.judge, 0.0, cache, budget, halt, args.seed) as writer:

        def ask(request: rubrics.Request) -> float:
            # Raters get the same request: their number in its name keeps their answers apart in the cache
            name, prompt = f"{request.row_key}#{request.rater}", Prompt(request.prompt, rubrics.TEMPLATE.stem)
            defect = request.rubric.find_defect
            try:
                reply = writer.ask(WriterRequest(name, rubrics.STAGE, prompt, rubrics.RubricGrades, defect))
            except Rejected as error:
                raise rubrics.NotEvaluated(str(error)) from error
            except Pending as error:
                raise rubrics.NotAsked(str(error)) from error
            return request.rubric.score(reply)

        yield ask, halt, budget
