"""Let a language model judge: the requests of `evaluation.rubrics`, through the server and the cache of a build."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from audiomcq.arguments.evaluation import GradeChainsArguments, ScoreArguments
from audiomcq.commands.start import require
from audiomcq.construction.budget import Budget
from audiomcq.construction.by_model import parse_prices, parse_request_options
from audiomcq.construction.responses import ResponseCache
from audiomcq.construction.writer import Halt, Pending, Prompt, Rejected, Writer
from audiomcq.construction.writer import Request as WriterRequest
from audiomcq.endpoints import parse_voter
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
    endpoint = parse_voter(args.judge, args.endpoint_concurrency, args.endpoint_timeout)
    if endpoint is None:
        raise ValueError(
            f"judge {args.judge!r}: a model behind a server, URL#model: http://127.0.0.1:8000/v1#Qwen/Qwen3-8B"
        )
    prices = parse_prices(args.prices)
    if args.max_cost is not None and endpoint.model not in prices:
        raise ValueError(
            f"max_cost {args.max_cost:g}: add --prices {endpoint.model}=PROMPT/COMPLETION, or limit max_tokens"
        )
    budget, halt = Budget(prices, args.max_cost, args.max_tokens), Halt()
    for model, prompt_tokens, completion_tokens, answers in cache.tokens():
        budget.count(model, prompt_tokens, completion_tokens, answers)
    options: dict[str, Any] = {"temperature": 0.0, "seed": args.seed, "max_tokens": args.max_new_tokens}
    if args.request_options:
        options["extra_body"] = parse_request_options(args.request_options)
    patience = max(8, 2 * args.endpoint_concurrency)
    endpoint = replace(endpoint, retries=args.endpoint_retries)
    with Writer(endpoint, cache, budget, halt, options, args.attempts, patience) as writer:

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
