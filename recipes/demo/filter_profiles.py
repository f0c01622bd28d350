"""Filter profiles against the truth: which way to label rows finds the questions that give their answer away?

python recipes/demo/filter_profiles.py
python recipes/demo/filter_profiles.py --demo_dir outputs/demo    # with the data and voters of `make demo`

The generator of the embedded questions knows which carry a shortcut. The demo's three voters answer the validation and test
rows under every control without their clip, in all turns of the options and in both modes, and score the options alone; the
language model of the demo's base model answers without audio. Then every profile is rated.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from demo import FULL, MAX_AUDIO_SECONDS, Demo, announce, make_data, set_aside  # type: ignore[import-not-found]
from rich.console import Console

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.tiny.steps import RECIPES, Phase, Step, recipe, run_phases

SPLITS = ("validation", "test")
"""Nothing was trained on these rows, nor on their clips."""
WITHOUT_CLIP = ["silence", "no_audio", "mismatched_audio"]
PROBES: dict[str, Mapping[str, object]] = {
    "generate": {"mode": "generate", "controls": WITHOUT_CLIP, "orders": "cyclic"},
    "likelihood": {"mode": "likelihood", "controls": WITHOUT_CLIP, "orders": "cyclic"},
    "options": {"mode": "likelihood", "controls": "options_only", "orders": "given"},
}
"""What each of the demo's voters is asked."""
READER = {"mode": "generate", "controls": "no_audio", "orders": "given"}
"""What the language model of the demo's base model is asked, which shares nothing with the voters."""
COSTS = {"generate": 30.0, "likelihood": 32.0, "options": 12.0, "reader": 12.0}
"""Processor seconds of one model's votes."""


@dataclass
class FilterProfilesArguments:
    """Options of the comparison."""

    demo_dir: str | None = field(
        default=None, metadata={"help": "Folder of `make demo`, whose data and voters are taken; null: they are made."}
    )
    output_dir: str = field(default="outputs/filter_profiles", metadata={"help": "Folder for votes and report."})


def prepare(demo: Demo) -> list[Phase]:
    """List the phases that make data and voters."""
    size = demo.size
    made = Step("data", make_data, (demo.folder, None, size), 24 * size.scale)
    return [
        Phase("making clips, questions, random models", [[made]]),
        Phase("pretraining base and what the voters share", [[demo.pretrain(size.base)], [demo.pretrain(size.trunk)]]),
        Phase("pretraining the voters", [[demo.pretrain(voter)] for voter in size.voters]),
    ]


def probe(name: str, asked: Mapping[str, object], voter: str, source: Path, folder: Path) -> Step:
    """Ask a voter, a folder of a model or `text:` and that folder."""
    options = {
        "config": RECIPES / "contribution_filter" / "tiny" / "probe.yaml",
        "dataset": source / "data",
        "dataset_split": "+".join(SPLITS),
        "voters": voter,
        **asked,
        "max_audio_seconds": MAX_AUDIO_SECONDS,
        "output_dir": folder / "votes",
    }
    return recipe(f"probe_{Path(voter).name}_{name}", "contribution_filter/probe.py", options, COSTS[name])


def write(source: Path, folder: Path, command: str) -> None:
    """Rate the profiles, in its own process."""
    from audiomcq.contribution.profile_page import compare_with_truth, write_comparison
    from audiomcq.datasets import load_rows
    from audiomcq.inference.load import load_votes
    from audiomcq.run import set_up_logging

    set_up_logging()
    rows = load_rows(source / "data", "+".join(SPLITS), check_audio=False)
    write_comparison(compare_with_truth(rows, load_votes(folder / "votes"), find_truth(source), command), folder)


def find_truth(source: Path) -> dict[str, str]:
    """Plan the embedded data once more, and return the kind of shortcut of every row.

    Raises:
        ValueError: the rows in the folder are others.
    """
    from audiomcq.examples import row_key
    from audiomcq.tiny.data import plan

    planned = {split: rows for split, (_, rows) in plan(scale=FULL.scale).items() if split in SPLITS}
    for split, rows in planned.items():
        lines = (source / "data" / f"{split}.jsonl").read_text().splitlines()
        if [json.loads(line) for line in lines] != [row for row, _ in rows]:
            raise ValueError(
                f"{source}: its {split} rows are not those of `make demo`, of which alone the truth is known"
            )
    return {row_key(row): shortcut for rows in planned.values() for row, shortcut in rows}


def main(args: FilterProfilesArguments) -> None:
    """Run the comparison from its data to its report."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = Path(args.output_dir)
    set_aside(folder)
    folder.mkdir(parents=True)
    source = Path(args.demo_dir) if args.demo_dir else folder
    demo = Demo(source, FULL)
    phases = [] if args.demo_dir else prepare(demo)
    voters = [str(source / "models" / voter.name) for voter in demo.size.voters]
    probes = [[probe(name, asked, voter, source, folder)] for name, asked in PROBES.items() for voter in voters]
    probes.append([probe("reader", READER, f"text:{source / 'models' / demo.size.base.name}", source, folder)])
    report = Step("report", write, (source, folder, "python recipes/demo/filter_profiles.py"), 10)
    phases += [Phase("asking the voters without the clips", probes), Phase("rating the profiles", [[report]])]
    console = Console()
    announce(console, phases, folder)
    run_phases(phases, folder / "logs", console)
    console.print((folder / "report.md").read_text(), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((FilterProfilesArguments,)))
