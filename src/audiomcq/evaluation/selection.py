"""Select a checkpoint of a training run by its answers to a selection set, in every option order."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from audiomcq.arguments.evaluation import SelectArguments
from audiomcq.datasets import drop_audio
from audiomcq.evaluation.answering import answer_rows
from audiomcq.evaluation.orders import measure_robustness, right_shares
from audiomcq.evaluation.report import Estimate, estimate_gain, markdown, percent
from audiomcq.evaluation.scoring import Rows, Run, questions_by_key, rescore_predictions, run_arrays
from audiomcq.evaluation.tables import PARSED
from audiomcq.examples import Row
from audiomcq.inference.predictions import read_predictions
from audiomcq.inference.vote_arrays import Questions, VoteArrays, question_arrays

logger = logging.getLogger(__name__)

WARNING = (
    "The checkpoint was picked on these {n} questions: accuracies on them are no longer test results. Report others, or say "
    "that the checkpoint was selected on them."
)


@dataclass(frozen=True)
class Candidate:
    """One checkpoint on the selection set.

    Attributes:
        accuracy: mean over questions of the share of option orders that are answered right.
        all_right: share of questions right in every order.
        parsed: share of answers that chose an option.
        behind_best: difference to the accuracy of the best, paired by question; None for the best itself.
    """

    name: str
    step: int
    accuracy: Estimate
    all_right: Estimate
    parsed: float
    behind_best: Estimate | None = None


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoint folders of a run, earliest first.

    Raises:
        ValueError: there are none.
    """
    found = [path for path in run.glob("checkpoint-*") if path.is_dir() and path.name.split("-")[-1].isdecimal()]
    if not found:
        raise ValueError(f"{run}: no checkpoint-* folders there; train with save_strategy: steps, or name another run")
    return sorted(found, key=lambda path: int(path.name.split("-")[-1]))


def select_checkpoint(args: SelectArguments, rows: Sequence[Row]) -> list[Candidate]:
    """Answer the selection set with every checkpoint; returns them best first. What is answered already is not asked
    again.

    Of checkpoints that are equally good the earliest comes first.

    Raises:
        ValueError: there are no checkpoints, or they are not asked with audio.
    """
    if "audio" not in args.controls:
        raise ValueError(f"controls {args.controls}: a checkpoint is picked by its answers with audio; add audio")
    questions = questions_by_key(drop_audio(rows))
    answered = {}
    for folder in checkpoints(Path(args.run)):
        path = answer_rows(replace(args, model=str(folder), name=folder.name), rows)
        answered[folder.name] = rescore_predictions(questions, read_predictions(path)["audio"])
    return rank(questions, answered)


def rank(questions: Rows, answered: dict[str, Run]) -> list[Candidate]:
    """Rank checkpoints from best to worst, each with its difference to the best."""
    columns = question_arrays(questions.values())
    arrays = {name: run_arrays(questions, run) for name, run in answered.items()}
    shares = {name: right_shares(each, columns) for name, each in arrays.items()}
    candidates = [_measure_candidate(name, each, columns) for name, each in arrays.items()]
    best, *others = sorted(candidates, key=lambda each: (-each.accuracy.value, each.step))
    behind = [shares[each.name] - shares[best.name] for each in others]
    return [best, *(replace(each, behind_best=estimate_gain(gaps)) for each, gaps in zip(others, behind, strict=True))]


def selection_table(candidates: Sequence[Candidate]) -> str:
    """Format the checkpoints as a table in the order of their steps, with the best one in bold."""
    lines = [["checkpoint", "accuracy over orders", "right in all orders", "parsed", "behind the best"]]
    for each in sorted(candidates, key=lambda each: each.step):
        name = f"**{each.name}**" if each is candidates[0] else each.name
        parsed = f"{100 * each.parsed:.1f}"
        lines.append([name, percent(each.accuracy), percent(each.all_right), parsed, percent(each.behind_best)])
    return markdown(lines)


def save_selection(candidates: Sequence[Candidate], rows: int, folder: Path) -> dict[str, Any]:
    """Write selection.json and selection.md, with the warning, and return the content of selection.json."""
    best, warning = candidates[0], WARNING.format(n=rows)
    near = [each.name for each in candidates if each.behind_best and each.behind_best.interval.high >= 0]
    logger.warning("best: %s, %s. %s", best.name, percent(best.accuracy), warning)
    if best.parsed < PARSED:
        logger.warning(
            "%.1f %% of its answers choose an option: raise max_new_tokens, or train longer", 100 * best.parsed
        )
    if near:
        logger.warning("no worse within 95 %%: %s", ", ".join(near))
    result = {"best": best.name, "not_distinguishable": near, "questions": rows, "warning": warning,
              "checkpoints": [asdict(each) for each in candidates]}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "selection.json").write_text(json.dumps(result, indent=2))
    (folder / "selection.md").write_text(f"{selection_table(candidates)}\nBest: {best.name}. {warning}\n")
    return result


def _measure_candidate(name: str, arrays: VoteArrays, questions: Questions) -> Candidate:
    """Measure one checkpoint on the selection set."""
    robust = measure_robustness(arrays, questions)
    parsed = float((arrays.choice >= 0).mean())
    return Candidate(name, int(name.split("-")[-1]), robust.mean, robust.all_right, parsed)
