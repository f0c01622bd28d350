"""Score prediction files against each other: a table, a plot and a results file.

python recipes/evaluate/score.py --config recipes/evaluate/tiny/score.yaml
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from audiomcq.datasets import load_rows
from audiomcq.evaluation.baselines import trivial_baselines
from audiomcq.evaluation.predictions import read_predictions
from audiomcq.evaluation.report import console_table, markdown_table, plot_scores, score
from audiomcq.examples import CONTRIBUTION, row_key
from audiomcq.prompts import PROMPT_VERSION
from audiomcq.run import clear_errors, parse, set_up_logging


@dataclass
class ScoreArguments:
    """Options of this recipe."""

    dataset: str = field(default="", metadata={"help": "The rows that were answered, labelled weak and strong."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the data set."})
    dataset_split: str = field(default="test", metadata={"help": "Split that was answered."})
    predictions: str = field(default="outputs/predictions", metadata={"help": "Folder of prediction files."})
    output_dir: str = field(default="outputs/scores", metadata={"help": "Where table, plot and results.json go."})


if __name__ == "__main__":
    (args,) = parse((ScoreArguments,), Path(__file__).parent / "tiny" / "score.yaml")
    set_up_logging()
    with clear_errors():
        rows = load_rows(args.dataset, args.dataset_split, args.dataset_config, check_audio=False)
        strong = {row_key(row) for row in rows if row[CONTRIBUTION] == "strong"}
        files = sorted(Path(args.predictions).glob("*.jsonl"))
        if not files:
            raise ValueError(f"{args.predictions}: no prediction files there; run answer.py first")
        scores = {}
        for file in files:
            predictions = read_predictions(file)
            scores[file.stem] = score(predictions["audio"], predictions["silence"], strong)
        baselines = trivial_baselines(rows)
        output = Path(args.output_dir)
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.md").write_text(markdown_table(scores, baselines))
        results = {"prompt_version": PROMPT_VERSION, "baselines": baselines}
        results["models"] = {name: asdict(value) for name, value in scores.items()}
        (output / "results.json").write_text(json.dumps(results, indent=2))
        plot_scores(scores, output / "results.png")
        Console().print(console_table(scores, baselines))
