"""Figures of the checkpoints of arXiv 2509.21060 as they were published, to hold re-scored ones against."""

from dataclasses import dataclass

BASE = "Qwen/Qwen2.5-Omni-7B"
WEAK_TO_STRONG = "inclusionAI/AudioMCQ-Weak-To-Strong"
MIXED_TO_STRONG = "inclusionAI/AudioMCQ-Mixed-To-Strong"
TABLE = "table of main results"
CURVES = "training curves, read from the figure"
WITHDRAWN = (
    "The MMSU figures were withdrawn in April 2026 (README of the data set inclusionAI/AudioMCQ at 7ab9df0: the script "
    "ignored the order of words), and no corrected ones were given."
)


@dataclass(frozen=True)
class Figure:
    """One published accuracy, in percent.

    Attributes:
        source: where it stands in the paper, as published with the code of inclusionAI/AudioMCQ.
    """

    percent: float
    source: str
    withdrawn: bool = False


def _figures(mmau: float, mmar: float, mmsu: float, source: str, withdrawn: bool = True) -> dict[str, Figure]:
    return {
        "mmau-test-mini": Figure(mmau, source),
        "mmar": Figure(mmar, source),
        "mmsu-2506.04779": Figure(mmsu, source, withdrawn),
    }


PUBLISHED: dict[str, tuple[dict[str, Figure], ...]] = {
    WEAK_TO_STRONG: (_figures(78.2, 65.3, 69.3, TABLE),),
    MIXED_TO_STRONG: (_figures(76.4, 67.0, 71.7, TABLE),),
    BASE: (
        _figures(68.8, 54.4, 64.0, f"authors' own evaluation, {CURVES}"),
        _figures(71.5, 56.7, 60.6, f"as others report it, {TABLE}", withdrawn=False),
    ),
}
"""By model, then by benchmark. The two headlines of the paper's versions differ: the first has 67.1 and 70.7 for
mixed-to-strong on MMAR and MMSU; these are the later ones."""


def find_figures(model: str, benchmark: str) -> list[Figure]:
    """List the published figures of a model on a benchmark."""
    return [figures[benchmark] for figures in PUBLISHED.get(model, ()) if benchmark in figures]
