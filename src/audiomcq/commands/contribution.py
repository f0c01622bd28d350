"""The commands of the contribution filter: ask, label, report."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from audiomcq.arguments.asking import clips_needed
from audiomcq.arguments.contribution import LabelingRule, ProbeArguments, ReportArguments, SplitArguments
from audiomcq.arguments.profiles import CompareProfilesArguments, ConsistencyArguments
from audiomcq.commands.start import require


def probe(args: ProbeArguments) -> None:
    """Ask every voter every question under every control, and add the votes to a folder.

    Stopped and started again, it goes on.
    """
    from accelerate import PartialState

    from audiomcq.contribution.probe import list_unplayable, run_probe
    from audiomcq.inference.run import Process
    from audiomcq.run import set_up_logging

    require(voters=args.voters, dataset=args.dataset)
    set_up_logging()
    state = PartialState()
    hearing = clips_needed(args.controls, args.silence_seconds)
    load = partial(args.load, max_audio_seconds=args.max_audio_seconds, fetch_clips=hearing)
    rows, unplayable = load(check_audio=False), []
    if hearing:
        unplayable = list_unplayable(rows, load(check_audio=True))
    process = Process(state.process_index, state.num_processes, state.device)
    run_probe(args, rows, Path(args.output_dir), unplayable, process)


def split(args: SplitArguments, rule: LabelingRule) -> None:
    """Turn votes into weak / strong labels, and save the labelled rows with the votes beside them."""
    from audiomcq.contribution.split import check_unreadable, save_split
    from audiomcq.inference.load import load_votes
    from audiomcq.run import set_up_logging

    set_up_logging()
    # Labels depend on votes alone, so no clip is opened. Training checks the clips that it will hear.
    parts: dict[str, list[str]] = {}
    for part in args.dataset_split.split("+"):
        parts.setdefault(part.partition("[")[0], []).append(part)  # rows of "train[:100]" are a split train
    splits = {name: args.load("+".join(each), check_audio=False) for name, each in parts.items()}
    record = save_split(splits, load_votes(args.votes), rule, args)
    check_unreadable(record["unreadable_share"], args.max_unreadable)


def report(args: ReportArguments, rule: LabelingRule) -> None:
    """Report on labelled rows and, where there are votes, on the voters behind the labels: HTML, PNG and JSON."""
    from audiomcq.contribution.html_report import pick_examples, write_report
    from audiomcq.contribution.report import contribution_report
    from audiomcq.contribution.split import check_unreadable, count_saved_unreadable, load_saved_rule, load_saved_votes
    from audiomcq.inference.load import load_votes
    from audiomcq.records import naming
    from audiomcq.run import set_up_logging

    set_up_logging()
    rows = args.load(check_audio=False, fetch_clips=False)
    votes = load_votes(args.votes) if args.votes else load_saved_votes(args.dataset)
    made_by = load_saved_rule(args.dataset) or rule
    if rule not in (LabelingRule(), made_by):
        raise ValueError(f"{args.dataset} was labelled by {made_by}: split again to report on another rule")
    with naming(args.votes or args.dataset):
        contribution = contribution_report(rows, votes, made_by, count_saved_unreadable(args.dataset))
    examples = pick_examples(rows, votes, contribution, args.examples)
    write_report(contribution, rows, votes, args.output_dir, examples, args.link_clips)
    if votes is not None:
        check_unreadable(contribution["unreadable"]["share"], args.max_unreadable)


def compare_profiles(args: CompareProfilesArguments) -> None:
    """Rate every way to label rows by the truth about their shortcuts: precision, recall, and how labels move."""
    from audiomcq.contribution.profile_page import compare_with_truth, write_comparison
    from audiomcq.contribution.truth import read_truth
    from audiomcq.inference.load import load_votes
    from audiomcq.run import set_up_logging

    require(dataset=args.dataset, truth=args.truth)
    set_up_logging()
    rows = args.load(check_audio=False, fetch_clips=False)
    words = f"audiomcq compare_profiles --dataset {args.dataset} --votes {args.votes} --truth {args.truth}"
    report = compare_with_truth(rows, load_votes(args.votes), read_truth(Path(args.truth)), words)
    sys.stdout.write(write_comparison(report, args.output_dir))


def consistency(args: ConsistencyArguments) -> None:
    """Measure whether answers stay the same over option orders and over variants of the rows in other words."""
    from audiomcq.contribution.consistency import measure_consistency, write_consistency
    from audiomcq.inference.load import load_votes
    from audiomcq.run import set_up_logging

    require(dataset=args.dataset)
    set_up_logging()
    variants = [("original", args.load(check_audio=False, fetch_clips=False), load_votes(args.votes))]
    for text in args.variants:
        source, _, votes = text.rpartition("=")
        if not source:
            raise ValueError(f"variants {text!r}: write ROWS=VOTES, e.g. variant-1.parquet=outputs/votes_1")
        rows = replace(args, dataset=source, dataset_config=None, dataset_split="train", allow_outside_audio_root=True)
        variants.append((Path(source).stem, rows.load(check_audio=False, fetch_clips=False), load_votes(votes)))
    words = f"audiomcq consistency --dataset {args.dataset} --votes {args.votes} --variants {' '.join(args.variants)}"
    sys.stdout.write(write_consistency(measure_consistency(variants), args.output_dir, words.rstrip()))
