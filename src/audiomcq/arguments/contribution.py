"""Options of the contribution filter: asking the voters, labelling, reporting."""

from dataclasses import dataclass, field

from audiomcq.arguments.asking import KNOWN_CONTROLS, PUBLISHED_SILENCE_SECONDS, AskArguments
from audiomcq.arguments.rows import RowArguments
from audiomcq.endpoints import voter_name

RULES = ("majority", "all", "any", "score")
SCORE_THRESHOLD = 0.5
MAX_UNREADABLE_HELP = (
    "End with exit code 3 where the labels of more than this share of the rows hang on unreadable votes; null: never."
)


@dataclass
class ProbeArguments(RowArguments, AskArguments):
    """Options of recipes/contribution_filter/probe.py, and of `probe`."""

    voters: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Voters: paths, Hub ids (NAME@REVISION pins one), either of them after text: for a language model alone, or endpoints."
        },
    )
    controls: list[str] = field(
        default_factory=lambda: ["silence"], metadata={"help": f"Controls to ask under: any of {KNOWN_CONTROLS}."}
    )
    silence_seconds: float | None = field(
        default=PUBLISHED_SILENCE_SECONDS,
        metadata={"help": "Length of the silence in seconds; null: that of the clip."},
    )
    output_dir: str = field(default="outputs/votes", metadata={"help": "Folder to which votes are added."})

    def __post_init__(self) -> None:
        super().__post_init__()
        # Votes stand under their voter's name: one model that is spelled in two ways would vote twice
        self.voters = [voter_name(name) for name in self.voters]


@dataclass
class SplitArguments(RowArguments):
    """Options of recipes/contribution_filter/split.py, beside those of the rule."""

    votes: str = field(
        default="outputs/votes",
        metadata={"help": "Folder of votes or of prediction files (one voter each), or a single file of either."},
    )
    max_bad_fraction: float = field(
        default=0.01, metadata={"help": "Stop when more than this share of the rows lack votes."}
    )
    unreadable: str = field(
        default="leave_out",
        metadata={
            "help": "How to treat rows whose label depends on unreadable votes: leave_out drops them; not_right counts such votes "
            "as not right, as published."
        },
    )
    max_unreadable: float | None = field(default=None, metadata={"help": MAX_UNREADABLE_HELP})
    policy: str | None = field(
        default=None,
        metadata={"help": "Drop strong rows that this voter, asked with audio, always or never gets right."},
    )
    output_dir: str = field(default="outputs/labelled", metadata={"help": "Folder for the labelled rows."})


@dataclass
class LabelingRule:
    """When a row is weak, and which votes say so.

    A voter is right on a row when it is right in more than half of the option orders it was asked in. `majority`,
    `all` and `any` count such voters; `score` compares the row's `contribution_score` with a threshold, or takes the
    lowest quantile.
    """

    rule: str = field(default="majority", metadata={"help": "majority, all, any or score."})
    min_correct: int | None = field(
        default=None,
        metadata={
            "help": "Voters that have to be right for a row to be weak; null: more than half (published: 2 of 3)."
        },
    )
    threshold: float | None = field(
        default=None, metadata={"help": f"Highest score of a weak row; null: {SCORE_THRESHOLD}, or set by quantile."}
    )
    quantile: float | None = field(
        default=None, metadata={"help": "Share of rows to label weak, lowest scores first."}
    )
    control: str = field(default="silence", metadata={"help": "Control whose votes are counted."})
    mode: str = field(default="generate", metadata={"help": "Mode whose votes are counted: generate or likelihood."})

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r}: known are {', '.join(RULES)}")
        if self.min_correct is not None and (self.rule != "majority" or self.min_correct < 1):
            raise ValueError(
                f"min_correct {self.min_correct} with rule {self.rule}: it is for majority, and at least 1"
            )
        if self.rule != "score" and (self.threshold is not None or self.quantile is not None):
            raise ValueError(f"threshold and quantile are for rule score, not for {self.rule}")
        if self.threshold is not None and self.quantile is not None:
            raise ValueError("rule score takes a threshold or a quantile, not both")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ValueError(f"quantile {self.quantile:g} is no share of the rows: give one between 0 and 1")

    def needed(self, voters: int) -> int:
        """Compute how many of the voters must be right, for the rules that count voters."""
        return {"all": voters, "any": 1}.get(self.rule, self.min_correct or voters // 2 + 1)


@dataclass
class ReportArguments(RowArguments):
    """Options of recipes/contribution_filter/report.py, beside those of the rule."""

    dataset: str = field(default="", metadata={"help": "Labelled rows, from split.py or elsewhere."})
    votes: str | None = field(
        default=None,
        metadata={
            "help": "Votes, as for split.py; null: those that split.py wrote with the rows, or a report without votes."
        },
    )
    max_unreadable: float | None = field(default=None, metadata={"help": MAX_UNREADABLE_HELP})
    examples: int = field(default=2, metadata={"help": "Rows of each kind whose clips are stored in the page."})
    link_clips: bool = field(
        default=True,
        metadata={"help": "Play the other clips from where they are; false: for a page that goes elsewhere."},
    )
    output_dir: str = field(default="outputs/contribution_report", metadata={"help": "Folder for the report."})
