"""The commands of the evaluation: answer, score, import answers, select a checkpoint, audit overlap, check forgetting,
grade chains of thought, score published checkpoints again.
"""

from pathlib import Path

from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.construction import AuditArguments
from audiomcq.arguments.evaluation import (
    AnswerArguments,
    ForgettingArguments,
    GradeChainsArguments,
    ImportArguments,
    RescoreArguments,
    ScoreArguments,
    SelectArguments,
)
from audiomcq.commands.start import require


def answer(args: AnswerArguments) -> None:
    """Answer the questions of a data set with and without audio; a killed run goes on where it stopped."""
    from accelerate import PartialState
    from rich.console import Console

    from audiomcq.evaluation.answering import answer_rows, check_batch_invariance
    from audiomcq.evaluation.questions import load_questions, questions_to_ask
    from audiomcq.run import set_up_logging

    require(model=args.model, dataset=args.dataset or args.benchmark)
    set_up_logging()
    PartialState()  # one of the processes checks the clips for all
    if args.check_batch_invariance:
        rows, _ = load_questions(args, max_audio_seconds=args.max_audio_seconds)
        Console().print(str(check_batch_invariance(args, rows)), markup=False, soft_wrap=True)
    else:
        hearing = clips_needed(args.controls, args.silence_seconds)
        rows, without_clips = questions_to_ask(args, hearing, args.max_audio_seconds)
        answer_rows(args, rows, without_clips)


def score(args: ScoreArguments) -> None:
    """Score prediction files against each other: tables, a plot and a results file. Needs no model and no GPU."""
    from rich.console import Console

    from audiomcq.evaluation.printing import print_scores
    from audiomcq.evaluation.results import export_folder, score_folder
    from audiomcq.evaluation.tables import caveats, legend
    from audiomcq.run import set_up_logging

    set_up_logging()
    if args.export:
        for file in export_folder(args):
            Console().print(str(file))
    else:
        scored = score_folder(args)
        scored.save(Path(args.output_dir))
        print_scores(Console(), scored.scores, scored.baselines, scored.title)
        for caveat in caveats(scored.results):
            Console().print(caveat, style="bold red", markup=False, soft_wrap=True)
        for line in legend(scored.results):
            Console().print(line, markup=False, soft_wrap=True)


def import_answers(args: ImportArguments) -> None:
    """Bring answers that were written elsewhere to their rows, as predictions that can be scored and can be votes."""
    from audiomcq.evaluation import imports
    from audiomcq.run import set_up_logging

    set_up_logging()
    imports.import_answers(args)


def select_checkpoint(args: SelectArguments) -> None:
    """Answer a selection set with every checkpoint of a training run, and name the best."""
    from accelerate import PartialState
    from rich.console import Console

    from audiomcq.evaluation import selection
    from audiomcq.evaluation.questions import load_questions
    from audiomcq.run import set_up_logging

    require(run=args.run, dataset=args.dataset or args.benchmark)
    set_up_logging()
    state = PartialState()  # one of the processes checks the clips for all
    rows, _ = load_questions(args, max_audio_seconds=args.max_audio_seconds)
    candidates = selection.select_checkpoint(args, rows)
    if state.is_main_process:
        selection.save_selection(candidates, len(rows), Path(args.output_dir))
        Console().print(selection.selection_table(candidates), markup=False, soft_wrap=True)


def audit_overlap(args: AuditArguments) -> None:
    """Compare training rows with benchmarks: same clips, same sources, near-identical questions. Needs no model."""
    from rich.console import Console

    from audiomcq.construction.decontamination import audit, load_benchmarks
    from audiomcq.run import set_up_logging

    set_up_logging()
    rows = args.load(check_audio=False, fetch_clips=args.content)
    found = audit(rows, load_benchmarks(args.benchmarks), args.content, args.similar, args.audio_root)
    found.save(Path(args.output_dir))
    Console().print("\n".join(found.summarize()), markup=False, soft_wrap=True)


def forgetting(args: ForgettingArguments) -> None:
    """Ask a model before and after training text questions without audio, and to write down speech."""
    from audiomcq.evaluation.forgetting import check_forgetting, save_forgetting
    from audiomcq.run import set_up_logging

    require(before=args.before, after=args.after)
    set_up_logging()
    save_forgetting(args, check_forgetting(args))


def grade_chains(args: GradeChainsArguments) -> None:
    """Let a language model grade the chains of thought of right answers by each item's rubric (MMAR-Rubrics)."""
    from rich.console import Console

    from audiomcq.commands import judging
    from audiomcq.interruption import finishing
    from audiomcq.run import set_up_logging

    set_up_logging()
    with finishing(notice="nothing more is asked, and what was judged is written"):
        judging.grade_chains(args)
    Console().print((Path(args.output_dir) / "rubrics.md").read_text(), markup=False, soft_wrap=True)


def rescore(args: RescoreArguments) -> None:
    """Answer and score several checkpoints on several benchmarks, strictly and as published, and write one page."""
    from accelerate import PartialState
    from rich.console import Console

    from audiomcq.commands import rescoring
    from audiomcq.run import set_up_logging

    require(models=args.models, benchmarks=args.benchmarks)
    set_up_logging()
    page = rescoring.rescore(args)
    if PartialState().is_main_process:
        Console().print(page, markup=False, soft_wrap=True)
