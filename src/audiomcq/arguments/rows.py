"""Options of every recipe that reads rows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class RowArguments:
    """Which rows are read."""

    dataset: str = field(
        default="", metadata={"help": "Rows: a Hub id, a folder, or a .jsonl/.json/.csv/.parquet file."}
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Config of the data set, e.g. all, weak, strong."}
    )
    dataset_split: str = field(
        default="train", metadata={"help": "Split of the rows; train[:1000] takes the first 1,000."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Commit, tag or branch of a data set on the Hub."}
    )
    audio_root: str | None = field(
        default=None,
        metadata={"help": "Folder of the clips, which no path may leave; by default that of the rows."},
    )
    allow_outside_audio_root: bool = field(default=False, metadata={"help": "Also take clips outside of audio_root."})
    audio_contribution: str | None = field(
        default=None,
        metadata={"help": "Label of rows without one, weak or strong: for files that hold one kind of row."},
    )
    max_bad_fraction: float = field(
        default=0.01,
        metadata={"help": "Stop when more than this share of the rows, or of their clips, are broken or silent."},
    )

    def load(self, split: str | None = None, **options: Any) -> "Dataset":
        """Load the rows of a split, by default of `dataset_split`; options as of `load_rows`.

        Raises:
            ValueError: no rows are named; see also `load_rows`.
        """
        from audiomcq.datasets import load_rows

        if not self.dataset:
            raise ValueError(
                "dataset: name the rows, by --dataset (a Hub id, a folder or a file) or in a YAML file (--config)"
            )
        return load_rows(
            self.dataset,
            split or self.dataset_split,
            self.dataset_config,
            self.audio_root,
            **{"max_bad_fraction": self.max_bad_fraction, **options},
            revision=self.dataset_revision,
            allow_outside_audio_root=self.allow_outside_audio_root,
            audio_contribution=self.audio_contribution,
        )

    def clip_home(self) -> Path:
        """Return the folder from which clips may be published: the given one, or that of the rows."""
        source = Path(self.dataset)
        if self.audio_root:
            return Path(self.audio_root)
        if source.exists():
            return source if source.is_dir() else source.parent
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE, f"datasets--{self.dataset.replace('/', '--')}")  # as the cache is laid out

    def refuse_outside(self) -> None:
        """Refuse to publish clips from outside of one folder.

        Raises:
            ValueError: `allow_outside_audio_root` is set.
        """
        if self.allow_outside_audio_root:
            raise ValueError(
                "allow_outside_audio_root: what is published comes from one folder; leave it out and name audio_root"
            )
