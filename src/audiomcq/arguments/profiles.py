"""Options of comparing filter profiles with the truth, and of asking rows again with other wrong options."""

from dataclasses import dataclass, field

from audiomcq.arguments.construction import WriterArguments
from audiomcq.arguments.rows import RowArguments


@dataclass
class CompareProfilesArguments(RowArguments):
    """Options of recipes/contribution_filter/compare_profiles.py."""

    votes: str = field(default="outputs/votes", metadata={"help": "Votes, as for split.py."})
    truth: str = field(
        default="",
        metadata={
            "help": "Which rows have a shortcut in their text: JSON {row key: true, false or its kind}, or lines with row_key and shortcut."
        },
    )
    output_dir: str = field(
        default="outputs/filter_profiles", metadata={"help": "Folder for report.md and report.json."}
    )


@dataclass
class ParaphraseArguments(RowArguments, WriterArguments):
    """Options of recipes/contribution_filter/paraphrase.py."""

    writer: str = field(
        default="", metadata={"help": "Who rewrites the wrong options: URL#model of an OpenAI-compatible server."}
    )
    prompts: str | None = field(
        default=None,
        metadata={"help": "Folder with a template of your own, named paraphrase-VERSION.txt; null: ours."},
    )
    variant: int = field(default=1, metadata={"help": "Number of the variant, from 1: each is written anew."})
    output_dir: str = field(
        default="outputs/paraphrased", metadata={"help": "Folder for answers/ and variant-N.parquet."}
    )


@dataclass
class ConsistencyArguments(RowArguments):
    """Options of recipes/contribution_filter/consistency.py. The rows are the original ones."""

    votes: str = field(default="outputs/votes", metadata={"help": "Votes on them, as for split.py."})
    variants: list[str] = field(
        default_factory=list, metadata={"help": "Their variants, as ROWS=VOTES: variant-1.parquet=outputs/votes_1."}
    )
    output_dir: str = field(default="outputs/consistency", metadata={"help": "Folder for consistency.md and .json."})
