"""Options of a study: which runs, on which seeds, on which rows, how long."""

from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass
class StudyArguments:
    """Options of recipes/study/study.py.

    Parameters:
        runs: one mapping each. `name` is needed; `paradigm` is missing for the untrained model. `stages` is [sft] or [grpo]
            for a single stage, by default both. `sft`, `grpo` and `answer` hold options of these recipes, `probe` and `split`
            those that label this run's training rows in another way; `about` is a sentence for the page.

    Raises:
        ValueError: there is no run or no seed, or a count is below 1.
    """

    runs: list[dict[str, Any]] = field(
        default_factory=list,
        metadata={"help": "Runs, by a YAML file: name, paradigm, stages, and options of their own."},
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Seeds; every run is made with each."})
    sft_steps: int = field(default=30, metadata={"help": "Optimizer steps of an SFT stage before GRPO."})
    grpo_steps: int = field(
        default=110,
        metadata={"help": "Optimizer steps of a GRPO stage after SFT. A single stage has the steps of both."},
    )
    questions: int = field(default=16, metadata={"help": "Questions of every optimizer step, of SFT and of GRPO."})
    settings: str = field(default="tiny", metadata={"help": "Folder of recipes/settings with the runs' settings."})
    sft: dict[str, Any] = field(default_factory=dict, metadata={"help": "Options of all SFT stages, by a YAML file."})
    grpo: dict[str, Any] = field(default_factory=dict, metadata={"help": "Options of all GRPO stages, likewise."})
    answer: dict[str, Any] = field(default_factory=dict, metadata={"help": "Options of all answers, likewise."})
    probe: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Options of asking the voters; voters by name: voter1, voter2, trunk."}
    )
    split: dict[str, Any] = field(default_factory=dict, metadata={"help": "Options of labelling rows by their votes."})
    model: str | None = field(
        default=None, metadata={"help": "Model that all runs begin with; null: a tiny one for each seed, pretrained."}
    )
    dataset: str | None = field(
        default=None, metadata={"help": "Labelled rows; null: made, and labelled by tiny voters."}
    )
    audio_root: str | None = field(default=None, metadata={"help": "Folder of the clips of dataset."})
    train_split: str = field(default="train", metadata={"help": "Split of dataset to train on."})
    test_split: str = field(default="test", metadata={"help": "Split of dataset to answer."})
    recordings: str | None = field(
        default=None, metadata={"help": "Folder with manifest.csv; null: the embedded clips."}
    )
    scale: float = field(default=1.0, metadata={"help": "Size of the embedded data."})
    base_steps: int = field(default=350, metadata={"help": "Steps in which a tiny base model is pretrained."})
    trunk_steps: int = field(default=300, metadata={"help": "Steps in which what the voters share is pretrained."})
    voter_steps: int = field(default=150, metadata={"help": "Steps of a voter from there on."})
    voters: int = field(default=3, metadata={"help": "Voters that are made."})
    max_audio_seconds: float = field(default=3.5, metadata={"help": "Longer clips are cut to this many seconds."})
    launch: list[str] = field(
        default_factory=list,
        metadata={"help": "Words that start a recipe, e.g. accelerate launch; by default forked processes."},
    )
    side_by_side: int = field(default=2, metadata={"help": "Recipes that run at a time."})
    keep_models: bool = field(default=False, metadata={"help": "Keep the weights of runs that have answered."})
    quick: bool = field(default=False, metadata={"help": "A smaller study, by quick_changes of the YAML file."})
    quick_changes: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Options that --quick changes, unless the command line has them."}
    )
    quick_runs: list[str] = field(
        default_factory=list, metadata={"help": "Names of the runs that --quick makes; by default all."}
    )
    cost: str | None = field(
        default=None,
        metadata={"help": "Say what all trainings cost by the steps in this result of a benchmark, and run nothing."},
    )
    page_only: bool = field(default=False, metadata={"help": "Run nothing: write the page of what is finished."})
    output_dir: str = field(default="outputs/study", metadata={"help": "Folder of the study."})

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs: a study has at least one; name a YAML file, as --config recipes/study/tiny.yaml")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: give at least one, and each once")
        for name in ("sft_steps", "grpo_steps", "questions", "voters", "side_by_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give at least 1")
        known = {each.name for each in fields(self)}
        if unknown := [name for name in self.quick_changes if name not in known]:
            raise ValueError(f"quick_changes: {unknown[0]!r} is no option of a study; leave it out")
        names = [run.get("name") for run in self.runs]
        if unknown := [name for name in self.quick_runs if name not in names]:
            raise ValueError(f"quick_runs: {unknown[0]!r} is no name of a run; leave it out")

    def resized(self, given: set[str]) -> "StudyArguments":
        """Return the study as it is to run: with --quick smaller and elsewhere, but for options that are `given`."""
        if not self.quick:
            return self
        changes = {name: value for name, value in self.quick_changes.items() if name not in given}
        runs = [run for run in self.runs if not self.quick_runs or run.get("name") in self.quick_runs]
        folder = self.output_dir if "output_dir" in given else f"{self.output_dir}_quick"
        return replace(self, **{"runs": runs, "output_dir": folder, **changes})
