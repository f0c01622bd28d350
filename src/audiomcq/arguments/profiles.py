"""Options of comparing filter profiles with the truth, and of asking rows again with other wrong options."""

from dataclasses import dataclass, field

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
