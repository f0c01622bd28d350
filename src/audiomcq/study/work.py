"""Turn a study's plan into pieces of work: which recipe runs with which options, what it needs, where its record is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from audiomcq.arguments.study import StudyArguments
from audiomcq.study.outcomes import STRONG
from audiomcq.study.plan import LABELS, Labelling, Run, Stage

Does = Literal["data", "train", "ask", "strong"]
WIDTH, LAYERS, RATE = 64, 2, 3e-3
"""Of the tiny models. Voters go on from a trunk and share nothing with the base models that are scored."""
_START, _SFT, _GRPO, _PRETRAINING, _ANSWERS, _VOTES, _DATA = 6.0, 0.009, 0.0235, 0.265, 10.0, 13.0, 24.0
"""Processor seconds on the embedded clips: to start, of a sample of SFT and of GRPO, of a step of pretraining, of all
answers of a model, of a voter's votes, of the data. They weigh bars."""


@dataclass(frozen=True)
class Work:
    """One piece of work in a process of its own.

    Attributes:
        name: its record is `name`.json in the study's folder.
        does: train and ask run the recipe; data makes rows, and strong lists those with a strong contribution.
        script: the recipe, below recipes/.
        options: all that its result depends on but paths: it is not done again, and refused with others.
        config: all options of the recipe.
        after: names of the work that it needs.
        random: seed of the random tiny model that it begins with.
        trained: output folders of the trainings whose steps, samples and seconds count as those of this work.
        spend: output folder whose weights are not needed after it.
    """

    name: str
    does: Does
    script: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    cost: float = _START
    after: tuple[str, ...] = ()
    random: int | None = None
    trained: tuple[Path, ...] = ()
    spend: Path | None = None


@dataclass(frozen=True)
class Workshop:
    """What the pieces of one study's work have in common: its options, its folder and that of the recipes."""

    args: StudyArguments
    folder: Path
    recipes: Path

    @property
    def clips(self) -> Path:
        return Path(self.args.recordings or self.folder / "data").resolve()

    def make_data(self) -> Work:
        return Work("data", "data", options={"scale": self.args.scale, "recordings": self._recordings}, cost=_DATA)

    def pretrain_voter(self, name: str) -> Work:
        """Pretrain the trunk of all voters, or one of them from there on."""
        if name == "trunk":
            return self._pretrain(name, 1, self.args.trunk_steps, "constant_with_warmup")
        return self._pretrain(name, int(name.removeprefix("voter")), self.args.voter_steps, "cosine", "trunk")

    def pretrain_base(self, seed: int) -> Work:
        return self._pretrain(self.base(seed), 1000 + seed, self.args.base_steps, "cosine")

    def base(self, seed: int) -> str:
        return f"seed{seed}/base_model"

    def probe(self, labelling: Labelling) -> list[Work]:
        """Ask every voter of a labelling, each in work of its own."""
        options = {**labelling.probe}
        voters = options.pop("voters", [f"voter{number}" for number in range(1, self.args.voters + 1)])
        found = []
        for voter in voters:
            config = {
                "base": str(self.recipes / "contribution_filter" / "tiny" / "probe.yaml"), **options,
                "dataset": self.folder / "data", "audio_root": self.clips, "voters": [str(self.folder / voter)],
                "output_dir": self.folder / labelling.votes,
            }  # fmt: skip
            found.append(
                Work(
                    f"{labelling.votes}_of_{voter.replace('/', '_')}", "ask", "contribution_filter/probe.py",
                    {"voter": voter, **options}, config, _START + _VOTES * self.args.scale,
                )
            )  # fmt: skip
        return found

    def split(self, labelling: Labelling) -> Work:
        """Label the rows by the votes of a labelling."""
        config = {
            "base": str(self.recipes / "contribution_filter" / "tiny" / "split.yaml"), **labelling.split,
            "dataset": self.folder / "data", "audio_root": self.clips, "votes": self.folder / labelling.votes,
            "output_dir": self.folder / labelling.name,
        }  # fmt: skip
        options = {"probe": labelling.probe, "split": labelling.split, "voters": self.args.voters}
        return Work(labelling.name, "ask", "contribution_filter/split.py", options, config)

    def list_strong(self) -> Work:
        """List the answered rows with a strong contribution."""
        options = {"dataset": self.args.dataset, "test_split": self.args.test_split}
        return Work(STRONG, "strong", options=options, config=self._rows(LABELS, self.args.test_split))

    def train(self, stage: Stage, seed: int) -> Work:
        """Train one stage of a run."""
        args = self.args
        output = self.folder / f"seed{seed}" / stage.name
        start = f"seed{seed}/{stage.start}" if stage.start else self.base(seed)
        model = args.model if args.model and not stage.start else self.folder / start
        own = {
            "max_audio_seconds": args.max_audio_seconds,
            "seed": seed,
            "mixed_seed": seed,
            "paradigm": stage.paradigm,
        }
        config = {
            **stage.options, **own, **self._rows(stage.labels, args.train_split),
            "model_name_or_path": model, "output_dir": output,
        }  # fmt: skip
        options = {**stage.options, **own, "starts_with": args.model if args.model and not stage.start else start}
        batch = stage.options["per_device_train_batch_size"] * stage.options["gradient_accumulation_steps"]
        cost = _START + stage.options["max_steps"] * batch * (_SFT if stage.kind == "sft" else _GRPO / 8)
        return Work(
            f"seed{seed}/{stage.name}", "train", f"single_stage/{stage.kind}.py", options, config, cost, (start,), None, (output,)
        )  # fmt: skip

    def answer(self, run: Run, seed: int) -> Work:
        """Answer the test rows with the model of a run, and record what the run took."""
        args = self.args
        outputs = tuple(self.folder / f"seed{seed}" / stage.name for stage in run.stages)
        needed = f"seed{seed}/{run.stages[-1].name}" if run.stages else self.base(seed)
        model = self.folder / needed if run.stages or args.model is None else args.model
        own = {**run.answer, "max_audio_seconds": args.max_audio_seconds}
        config = {
            "base": str(self.recipes / "evaluate" / "tiny" / "answer.yaml"), **own, **self._rows(LABELS, args.test_split),
            "model": model, "name": run.name, "output_dir": self.folder / f"seed{seed}" / "answers",
        }  # fmt: skip
        return Work(
            f"seed{seed}/runs/{run.name}", "ask", "evaluate/answer.py", own, config, _START + _ANSWERS * args.scale, (needed,),
            trained=outputs, spend=outputs[-1] if outputs and not args.keep_models else None,
        )  # fmt: skip

    @property
    def _recordings(self) -> str | None:
        return Path(self.args.recordings).resolve().name if self.args.recordings else None

    def _rows(self, labels: str, split: str) -> dict[str, Any]:
        args = self.args
        found = {"dataset": args.dataset or self.folder / labels, "dataset_split": split}
        return {**found, "audio_root": args.audio_root} if args.audio_root else found

    def _pretrain(self, name: str, seed: int, steps: int, schedule: str, start: str | None = None) -> Work:
        options = {"max_steps": steps, "learning_rate": RATE, "lr_scheduler_type": schedule, "seed": seed,
                   "warmup_steps": 10 if start else 30, "max_audio_seconds": self.args.max_audio_seconds}  # fmt: skip
        config = {
            "base": str(self.recipes / "demo" / "pretrain.yaml"), **options, "dataset": self.folder / "data",
            "audio_root": self.clips, "dataset_split": "pretrain",
            "model_name_or_path": self.folder / (start or f"{name}_random"), "output_dir": self.folder / name,
        }  # fmt: skip
        return Work(
            name, "train", "single_stage/sft.py", {**options, "width": WIDTH, "layers": LAYERS}, config,
            _START + _PRETRAINING * steps, (start,) if start else (), None if start else seed,
        )  # fmt: skip
