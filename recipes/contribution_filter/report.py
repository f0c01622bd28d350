"""Report on labelled rows and, where there are votes, on the voters behind the labels: HTML, PNG and JSON.

python recipes/contribution_filter/report.py --config recipes/contribution_filter/tiny/report.yaml
"""

from pathlib import Path

from audiomcq.arguments.contribution import LabelingRule, ReportArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ReportArguments, rule: LabelingRule) -> None:
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
        report = contribution_report(rows, votes, made_by, count_saved_unreadable(args.dataset))
    examples = pick_examples(rows, votes, report, args.examples)
    write_report(report, rows, votes, args.output_dir, examples, args.link_clips)
    if votes is not None:
        check_unreadable(report["unreadable"]["share"], args.max_unreadable)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ReportArguments, LabelingRule), settings=Path(__file__)))
