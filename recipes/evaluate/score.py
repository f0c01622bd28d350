"""Score prediction files against each other: tables, a plot and a results file. Needs no model and no GPU.

python recipes/evaluate/score.py --config recipes/evaluate/tiny/score.yaml
"""

from pathlib import Path

from audiomcq.arguments.evaluation import ScoreArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ScoreArguments) -> None:
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


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ScoreArguments,), settings=Path(__file__)))
