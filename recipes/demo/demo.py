"""The whole method on a laptop: data -> contribution filter -> Weak-to-Strong beside Mixed-to-Mixed -> evaluation -> report.

make demo
make demo QUICK=1
make demo DATA=path/to/a/folder/with/manifest.csv

Every step is one of the recipes of this repository, run in its own process with its tiny YAML; two run side by side.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse
from audiomcq.tiny.steps import RECIPES, Phase, Step, describe_seconds, estimate_seconds, recipe, run_phases

MAX_AUDIO_SECONDS = 3.5
"""Longer clips are cut to this. The embedded clips are shorter; real recordings would cost minutes more."""
PARADIGMS = {"w2s": "weak_to_strong", "m2m": "mixed_to_mixed"}
PROBING_COST, ANSWERING_COST = 13.0, 8.0
"""Processor seconds of one model's silent votes on all rows, and of its answers to the test rows."""
RECORDINGS_SLOWER = 2.0
"""Times as long as with the embedded clips, which are shorter."""


@dataclass(frozen=True)
class TinyModel:
    """Shape and pretraining of one of the demo's models.

    Attributes:
        start: model to go on from, below the demo's folder; by default a random one of this shape.
        step_cost: processor seconds of a step, measured.
    """

    name: str
    seed: int
    width: int
    layers: int
    steps: int
    learning_rate: float
    step_cost: float
    start: str | None = None
    schedule: str = "cosine"


@dataclass(frozen=True)
class Size:
    """How large a demo is.

    Attributes:
        scale: of the data, see `audiomcq.tiny.data.build`.
        trunk: what the voters share. It is no ancestor of `base`, which is scored on rows that they label.
        paradigms: keys of `PARADIGMS` to train.
        sft, grpo: options that differ from the tiny settings.
    """

    scale: float
    base: TinyModel
    trunk: TinyModel
    voter_steps: int
    paradigms: tuple[str, ...] = ("w2s", "m2m")
    sft: Mapping[str, int] = field(default_factory=dict)
    grpo: Mapping[str, int] = field(default_factory=dict)
    grpo_cost: float = 100.0

    @property
    def voters(self) -> list[TinyModel]:
        """Three continuations of the trunk, each with its own draw and order of the pretraining rows."""
        trunk = self.trunk
        return [
            TinyModel(f"voter{seed}", seed, trunk.width, trunk.layers, self.voter_steps, trunk.learning_rate,
                      trunk.step_cost, "models/trunk") for seed in (1, 2, 3)
        ]  # fmt: skip


FULL = Size(
    scale=1.0,
    base=TinyModel("base", 0, 96, 3, 400, 2e-3, 0.51),
    trunk=TinyModel("trunk", 1, 64, 2, 300, 3e-3, 0.27, schedule="constant_with_warmup"),
    voter_steps=150,
    grpo_cost=125.0,
)
QUICK = Size(
    scale=0.5,
    # With 260 steps it does not hear yet: its audio gain is 2 points, with these 11
    base=TinyModel("base", 0, 64, 2, 350, 3e-3, 0.265),
    trunk=TinyModel("trunk", 1, 64, 2, 160, 3e-3, 0.27, schedule="constant_with_warmup"),
    voter_steps=45,
    paradigms=("w2s",),
    sft={"max_steps": 10},
    grpo={"max_steps": 110},
    grpo_cost=43.0,
)


@dataclass
class DemoArguments:
    """Options of the demo."""

    output_dir: str | None = field(
        default=None,
        metadata={"help": "Default: outputs/demo, outputs/demo_quick or outputs/demo_recordings."},
    )
    recordings: str | None = field(
        default=None, metadata={"help": "Folder with manifest.csv; default: embedded data."}
    )
    quick: bool = field(
        default=False, metadata={"help": "Fewer rows and steps, and Weak-to-Strong alone: a smaller version."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of pretraining, SFT and GRPO. Data are the same for all."})


@dataclass(frozen=True)
class Demo:
    """One run of the demo: where it writes, how large it is, and what it is about."""

    folder: Path
    size: Size = FULL
    recordings: str | None = None
    seed: int = 0

    @property
    def clips(self) -> Path:
        return Path(self.recordings).resolve() if self.recordings else self.folder / "data"

    def prepare(self) -> list[Phase]:
        """List the phases that make what trainings begin with: data, base model, voters, labels."""
        size, cost = self.size, 24 * self.size.scale
        made = Step("data", make_data, (self.folder, self.recordings, size), cost)
        probes = [[self.probe(voter)] for voter in size.voters]
        return [
            Phase("making clips, questions, random models", [[made]]),
            Phase(
                "pretraining base and voters",
                [[self.pretrain(size.base)], [self.pretrain(each) for each in (size.trunk, *size.voters)]],
            ),
            Phase("asking the voters on silence", probes),
            Phase("labelling rows weak or strong", [[self.split()]]),
        ]

    def compare(self) -> list[Phase]:
        """List the phases that train on the labelled rows and answer the test rows."""
        shorts = self.size.paradigms
        chains = [
            [self.train(short, "sft", "models/base"), self.train(short, "grpo", f"{short}_sft")] for short in shorts
        ]
        models = ["models/base", *(f"{short}_{stage}" for short in shorts for stage in ("sft", "grpo"))]
        title = " and ".join(short.upper() for short in shorts)
        return [
            Phase(f"SFT, then GRPO: {title}", chains),
            Phase("answering with audio and on silence", [[self.answer(model)] for model in models]),
        ]

    def pretrain(self, model: TinyModel) -> Step:
        options = {
            "config": RECIPES / "demo" / "pretrain.yaml",
            "dataset": self.folder / "data",
            "audio_root": self.clips,
            "dataset_split": "pretrain",
            "model_name_or_path": self.folder / (model.start or f"random/{model.name}"),
            "output_dir": self.folder / "models" / model.name,
            "max_steps": model.steps,
            "learning_rate": model.learning_rate,
            "lr_scheduler_type": model.schedule,
            "warmup_steps": 10 if model.start else 30,
            "seed": model.seed + 100 * self.seed,
            "max_audio_seconds": MAX_AUDIO_SECONDS,
        }
        return recipe(f"pretrain_{model.name}", "single_stage/sft.py", options, model.steps * model.step_cost)

    def probe(self, voter: TinyModel) -> Step:
        options = {
            "config": RECIPES / "contribution_filter" / "tiny" / "probe.yaml",
            "dataset": self.folder / "data",
            "audio_root": self.clips,
            "voters": self.folder / "models" / voter.name,
            "output_dir": self.folder / "votes",
        }
        return recipe(f"probe_{voter.name}", "contribution_filter/probe.py", options, PROBING_COST * self.size.scale)

    def split(self) -> Step:
        options = {
            "config": RECIPES / "contribution_filter" / "tiny" / "split.yaml",
            "dataset": self.folder / "data",
            "audio_root": self.clips,
            "votes": self.folder / "votes",
            "output_dir": self.folder / "labelled",
        }
        return recipe("split", "contribution_filter/split.py", options, 3)

    def train(self, short: str, stage: str, source: str) -> Step:
        options = {
            "config": RECIPES / PARADIGMS[short] / "tiny" / f"{stage}.yaml",
            "dataset": self.folder / "labelled",
            "model_name_or_path": self.folder / source,
            "output_dir": self.folder / f"{short}_{stage}",
            "max_audio_seconds": MAX_AUDIO_SECONDS,
            "seed": self.seed,
            **(self.size.sft if stage == "sft" else self.size.grpo),
        }
        cost = 19.0 * self.size.sft.get("max_steps", 30) / 30 if stage == "sft" else self.size.grpo_cost
        return recipe(f"{short}_{stage}", f"{PARADIGMS[short]}/{stage}.py", options, cost)

    def answer(self, model: str) -> Step:
        options = {
            "config": RECIPES / "evaluate" / "tiny" / "answer.yaml",
            "model": self.folder / model,
            "dataset": self.folder / "labelled",
            "output_dir": self.folder / "predictions",
            "max_audio_seconds": MAX_AUDIO_SECONDS,
        }
        return recipe(f"answer_{Path(model).name}", "evaluate/answer.py", options, ANSWERING_COST * self.size.scale)


def make_data(folder: Path, recordings: str | None, size: Size) -> None:
    """Make clips, questions and the random models that pretraining begins with, in their own process."""
    from audiomcq.construction.labelled import build as build_from_recordings
    from audiomcq.datasets import load_rows
    from audiomcq.prompts import COT_COLUMNS
    from audiomcq.run import set_up_logging
    from audiomcq.tiny.data import build as build_tiny
    from audiomcq.tiny.model import make_tiny_lalm

    set_up_logging()
    if recordings:
        build_from_recordings(recordings, folder / "data")
    else:
        build_tiny(folder / "data", scale=size.scale)
    # Nothing here learns the chains of thought of recordings: their words would only change the tokenizer
    unread = ["audio", *COT_COLUMNS] if recordings else ["audio"]
    texts = list(load_rows(folder / "data", "pretrain", check_audio=False).remove_columns(unread))
    for model in (size.base, size.trunk):
        make_tiny_lalm(folder / "random" / model.name, texts, model.seed, model.width, model.layers)


def write(folder: Path, started: float, command: str) -> None:
    """Write the report, in its own process. `started` is the time at which the demo began, in seconds."""
    from audiomcq.tiny.report import write_report

    write_report(folder, time.time() - started, command)


def set_aside(folder: Path) -> None:
    """Keep an earlier demo's folder under another name: nothing is overwritten."""
    if folder.is_dir() and any(folder.iterdir()):
        kept = folder.with_name(
            f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(folder.stat().st_mtime))}"
        )
        folder.rename(kept)
        logging.getLogger("audiomcq").info("the earlier %s is kept as %s", folder, kept)


def announce(console: Console, phases: Sequence[Phase], folder: Path, slower: float = 1.0) -> None:
    """Say what will be done, about how long it takes, and where everything goes.

    Args:
        slower: how many times as long as on the embedded clips.
    """
    seconds = describe_seconds(slower * estimate_seconds(phases))
    console.print(f"{len(phases)} steps, about {seconds} on two idle cores; no download, no GPU.", highlight=False)
    console.print(f"Results: {folder}", highlight=False, soft_wrap=True)
    console.print(f"What the libraries say: {folder / 'logs'}", highlight=False, soft_wrap=True)
    console.print()


def main(args: DemoArguments) -> None:
    """Run the demo from its data to its report."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    name = "demo_recordings" if args.recordings else "demo_quick" if args.quick else "demo"
    folder = Path(args.output_dir or f"outputs/{name}")
    set_aside(folder)
    folder.mkdir(parents=True)
    demo = Demo(folder, QUICK if args.quick else FULL, args.recordings, args.seed)
    command = "make demo" + (" QUICK=1" if args.quick else "")
    command += " DATA=folder/of/recordings" if args.recordings else ""
    report = Step("report", write, (folder, time.time(), command), 2)
    phases = [*demo.prepare(), *demo.compare(), Phase("scores, figures and report", [[report]])]
    console = Console()
    announce(console, phases, folder, RECORDINGS_SLOWER if args.recordings else 1.0)
    run_phases(phases, folder / "logs", console)
    console.print()
    console.print((folder / "summary.txt").read_text(), markup=False, highlight=False, soft_wrap=True, end="")
    console.print(f"\n{folder}/report.md, scores.png and rewards.png show this with more detail.", highlight=False)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((DemoArguments,)))
