"""Candidates that language models write, behind OpenAI-compatible servers."""

import heapq
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from audiomcq.arguments.asking import ServedArguments
from audiomcq.arguments.construction import BuildArguments
from audiomcq.construction.budget import Budget, Price
from audiomcq.construction.candidates import Candidate
from audiomcq.construction.captions import CaptionedClip
from audiomcq.construction.responses import ResponseCache
from audiomcq.construction.sources.reading import LazyListing, Source
from audiomcq.construction.stages import WRONG_OPTIONS, Models, Prompts, write_candidate
from audiomcq.construction.writer import Halt, Missing, Writer
from audiomcq.endpoints import parse_voter
from audiomcq.inference.client import ask_in_parallel

RESERVED = frozenset(("model", "messages", "stream", "n", "response_format", "temperature", "max_tokens"))
_TEXT_STAGES = ("captions", "question", "options", "structured_cot", "unstructured_cot", "grades")


class ModelBuild:
    """Candidates of a source, each taken through all stages by its models. A context.

    Args:
        cache: of the answers of this and earlier runs, open.

    Raises:
        ValueError: an option cannot be used, e.g. an endpoint without a model.
    """

    def __init__(self, args: BuildArguments, source: Source, cache: ResponseCache) -> None:
        check_arguments(args)
        self.args, self.source, self.cache = args, source, cache
        self.prompts = Prompts(args.prompts)
        self.halt = Halt()
        self.budget = open_budget(args, cache)
        self.stages: tuple[str, ...] = (*_TEXT_STAGES, "audio_cot") if args.listener else _TEXT_STAGES
        self.root, self.audio_root = Path(args.root), Path(args.audio_root or args.root)
        self.captions = sum(1 for _ in source.read(self.root, args))
        self.total = min(self.captions, args.limit or self.captions)
        self._resources = ExitStack()
        self._writers: list[Writer] = []
        self.models = Models(
            writer=self._open(args.writer, args.temperature),
            grader=self._open(args.grader or args.writer, 0.0),
            listener=self._open(args.listener, args.temperature) if args.listener else None,
            prompts=self.prompts,
            template_question=source.template_question,
            audio_root=self.audio_root,
            min_grade=args.min_grade,
        )

    def __enter__(self) -> "ModelBuild":
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def fault(self) -> str | None:
        """Why the build could not go on: it was halted, or a server has not answered once."""
        unanswered = [writer.unanswered for writer in self._writers if writer.unanswered]
        return (self.halt.reason if self.halt.fault else None) or next(iter(unanswered), None)

    def candidates(self) -> Iterator[Candidate]:
        """Yield the candidates in the order of the source, as many under way at once as the options say."""
        found = self.source.examine(self.root, self.args, LazyListing(self.root, self.args))
        clips = (clip for clip in found if isinstance(clip, CaptionedClip))  # the broken ones were named when counted
        numbered = enumerate(spread(clips, self.captions, self.total))
        offline = self.models.offline()
        for number, clip in numbered:
            # As long as the cache has everything, no threads are needed, which would take twice as long
            try:
                yield write_candidate(Candidate(clip), offline)
            except Missing:
                left = chain([(number, clip)], numbered)
                break
        else:
            return

        def write(numbered: tuple[int, CaptionedClip]) -> tuple[int, Candidate]:
            number, clip = numbered
            return number, write_candidate(Candidate(clip), self.models)

        yield from in_order(ask_in_parallel(write, left, self.args.endpoint_concurrency), number)

    def describe(self) -> dict[str, Any]:
        """Return who wrote with which prompts, what it cost, and, after a trial run, what all captions would cost."""
        models = {stage: self.models.writer.endpoint.model for stage in _TEXT_STAGES[1:]}
        models["grades"] = self.models.grader.endpoint.model
        if self.models.listener:
            models["audio_cot"] = self.models.listener.endpoint.model
        spent = {"tokens": self.budget.total_tokens, "cost": self.budget.cost, "answers": self.budget.answers}
        versions = {stage: version for stage, version in self.prompts.versions.items() if stage in models}
        said: dict[str, Any] = {"captions": self.captions, "taken": self.total, "models": models, "prompts": versions}
        if self.total < self.captions:
            times = self.captions / self.total
            said["projected"] = {"tokens": round(spent["tokens"] * times), "cost": spent["cost"] * times}
        return {**said, "spent": spent, "stopped": self.halt.reason}

    def progress(self) -> dict[str, str]:
        return {"tokens": f"{self.budget.total_tokens:,}", "cost": f"{self.budget.cost:.4g}"}

    def _open(self, name: str | None, temperature: float) -> Writer:
        writer = open_writer(self.args, name, temperature, self.cache, self.budget, self.halt)
        self._writers.append(writer)
        return self._resources.enter_context(writer)


def open_writer(
    args: ServedArguments,
    name: str | None,
    temperature: float,
    cache: ResponseCache,
    budget: Budget,
    halt: Halt,
    seed: int | None = None,
) -> Writer:
    """Return the writer of an endpoint's name, a context.

    Args:
        seed: of every request; None: the server's own.

    Raises:
        ValueError: it is no endpoint, or costs are limited and its price is not known.
    """
    endpoint = parse_voter(name or "", args.endpoint_concurrency, args.endpoint_timeout)
    if endpoint is None:
        raise ValueError(
            f"{name!r}: writer, grader, listener and judge are models behind servers, URL#model: "
            "http://127.0.0.1:8000/v1#Qwen/Qwen3-8B"
        )
    if args.max_cost is not None and endpoint.model not in budget.prices:
        raise ValueError(
            f"max_cost {args.max_cost:g}: no price of {endpoint.model} is given; add "
            f"--prices {endpoint.model}=PROMPT/COMPLETION, or limit max_tokens"
        )
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": args.max_new_tokens}
    if seed is not None:
        options["seed"] = seed
    if args.request_options:
        options["extra_body"] = parse_request_options(args.request_options)
    endpoint = replace(endpoint, retries=args.endpoint_retries)
    return Writer(endpoint, cache, budget, halt, options, args.attempts, max(8, 2 * args.endpoint_concurrency))


def open_budget(args: ServedArguments, cache: ResponseCache) -> Budget:
    """Return the budget, from which what earlier runs spent is taken."""
    budget = Budget(parse_prices(args.prices), args.max_cost, args.max_tokens)
    for model, prompt_tokens, completion_tokens, answers in cache.tokens():
        budget.count(model, prompt_tokens, completion_tokens, answers)
    return budget


def check_arguments(args: BuildArguments) -> None:
    """Check the options of a build by models before anything is asked.

    Raises:
        ValueError: one is out of range.
    """
    least = {"limit": args.limit, "attempts": args.attempts, "endpoint_concurrency": args.endpoint_concurrency}
    for name, value in least.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: at least 1")
    if not 1 <= args.min_grade <= 5:
        raise ValueError(f"min_grade {args.min_grade}: from 1 to 5")
    if not args.min_choices <= WRONG_OPTIONS + 1 <= args.max_choices:
        raise ValueError(f"min_choices {args.min_choices}, max_choices {args.max_choices}: models write four options")
    if args.composed_share:
        raise ValueError(f"composed_share {args.composed_share:g}: rules compose clips; leave it out with a writer")


def spread(clips: Iterable[CaptionedClip], total: int, count: int) -> Iterator[CaptionedClip]:
    """Yield `count` of `total` captions, at equal distances, so that a trial run sees all of a source."""
    taken = 0
    for number, clip in enumerate(clips):
        if number * count >= taken * total and taken < count:
            taken += 1
            yield clip


def in_order(numbered: Iterable[tuple[int, Candidate]], due: int) -> Iterator[Candidate]:
    """Yield what is numbered from `due` on in order; what comes early waits."""
    waiting: list[tuple[int, Candidate]] = []
    for pair in numbered:
        heapq.heappush(waiting, pair)
        while waiting and waiting[0][0] == due:
            yield heapq.heappop(waiting)[1]
            due += 1


def parse_prices(texts: Iterable[str]) -> dict[str, Price]:
    """Parse MODEL=PROMPT/COMPLETION.

    Raises:
        ValueError: one is written otherwise.
    """
    prices = {}
    for text in texts:
        model, _, numbers = text.rpartition("=")
        try:
            prompt, completion = map(float, numbers.split("/"))
        except ValueError:
            model, prompt, completion = "", 0.0, 0.0
        if not model or not all(math.isfinite(price) and price >= 0 for price in (prompt, completion)):
            raise ValueError(
                f"prices {text!r}: write MODEL=PROMPT/COMPLETION per million tokens, e.g. my-model=0.2/0.6"
            )
        prices[model] = Price(prompt, completion)
    return prices


def parse_request_options(text: str) -> dict[str, Any]:
    """Parse the JSON that every request carries besides.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"request_options {text!r}: no JSON ({error})") from error
    if not isinstance(options, dict):
        raise ValueError(f'request_options {text!r}: write an object, e.g. {{"top_p": 0.9}}')
    if ours := sorted(RESERVED & options.keys()):
        raise ValueError(f"request_options: {', '.join(ours)} cannot be set there; the build sets it itself")
    return options
