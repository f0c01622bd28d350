"""Options of every recipe that asks models questions."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

CONTROLS = ("audio", "silence", "no_audio", "mismatched_audio", "noise", "options_only")
"""Controls with a fixed name; those of fragments are named by `fragment_of`."""
TEXT_CONTROLS = ("no_audio", "options_only")
"""Controls that play nothing: their prompts have no audio in them."""
FRAGMENTS = range(2, 6)
"""Into how many equal parts a clip is cut (arXiv 2604.24401)."""
KNOWN_CONTROLS = f"{', '.join(CONTROLS)}, fragment-K-of-N (N = 2..5), fragments-N for all parts"
PUBLISHED_SILENCE_SECONDS = 30.0
"""Length of the silence in arXiv 2509.21060. Silence is itself a confound that grows with its length (arXiv
2510.00626)."""
Mode = Literal["generate", "likelihood"]
"""Whether a model writes its answer, or the option is chosen that it finds likeliest."""


def fragment_of(control: str) -> tuple[int, int] | None:
    """Return K and N of a control `fragment-K-of-N`, K from 1; None for every other control."""
    found = re.fullmatch(r"fragment-([1-9])-of-([1-9])", control)
    if found is None:
        return None
    part, parts = int(found[1]), int(found[2])
    return (part, parts) if parts in FRAGMENTS and part <= parts else None


def is_control(name: str) -> bool:
    """Tell whether there is a control of that name."""
    return name in CONTROLS or fragment_of(name) is not None


def expand_controls(names: Sequence[str]) -> list[str]:
    """Replace `fragments-N` by its N controls, as `cyclic` stands for all cyclic orders."""
    expanded: list[str] = []
    for name in names:
        kind, _, parts = name.partition("-")
        if kind == "fragments" and parts in map(str, FRAGMENTS):
            expanded += [f"fragment-{part}-of-{parts}" for part in range(1, int(parts) + 1)]
        else:
            expanded.append(name)
    return expanded


def clips_needed(controls: Collection[str], silence_seconds: float | None) -> bool:
    """Tell whether any of the controls opens the rows' clips: silence of a fixed length and no audio can be probed
    without them.
    """
    return any(
        name not in TEXT_CONTROLS and not (name == "silence" and silence_seconds is not None) for name in controls
    )


@dataclass
class AskArguments:
    """How models are asked.

    Raises:
        ValueError: a count is below 1, the mode is unknown, or it is not one of a control.
    """

    controls: list[str] = field(
        default_factory=lambda: ["audio"], metadata={"help": f"What is played: any of {KNOWN_CONTROLS}."}
    )
    orders: list[str] = field(
        default_factory=lambda: ["given"],
        metadata={"help": "Option orders: given, shuffle-SEED, cyclic-K, or cyclic for all turns."},
    )
    mode: Mode = field(
        default="generate", metadata={"help": "generate: the model writes; likelihood: its likeliest option counts."}
    )
    silence_seconds: float | None = field(
        default=None, metadata={"help": "Length of the silence; null: as long as the clip."}
    )
    control_seed: int = field(default=0, metadata={"help": "Seed of mismatched_audio and noise."})
    max_audio_seconds: float = field(default=30.0, metadata={"help": "Longer clips are cut to this many seconds."})
    dtype: str = field(default="bfloat16", metadata={"help": "float32, bfloat16 or float16."})
    batch_size: int = field(default=32, metadata={"help": "Questions per forward."})
    max_new_tokens: int = field(default=64, metadata={"help": "Tokens of a completion at most."})
    endpoint_concurrency: int = field(default=16, metadata={"help": "Questions under way at a server at once."})
    endpoint_timeout: float = field(default=120.0, metadata={"help": "Seconds to wait for one answer of a server."})
    flush_seconds: float = field(
        default=30.0, metadata={"help": "Seconds between two writes: the work that a kill may lose."}
    )

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode {self.mode!r}: known are generate and likelihood")
        for name in ("batch_size", "max_new_tokens", "endpoint_concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give at least 1")

        self.controls = expand_controls(self.controls)
        if "options_only" in self.controls and self.mode != "likelihood":
            raise ValueError(
                "control options_only: its prompt asks no question, so options are scored; set mode likelihood"
            )

    def needs_clips(self, control: str) -> bool:
        """Tell whether a control plays the rows' clips."""
        return clips_needed([control], self.silence_seconds)


@dataclass
class ServedArguments:
    """How a language model behind a server is asked for texts, and what that may cost."""

    max_new_tokens: int = field(default=1024, metadata={"help": "Tokens of one answer at most."})
    request_options: str | None = field(
        default=None,
        metadata={
            "help": 'JSON that every request carries besides, e.g. {"chat_template_kwargs": {"enable_thinking": false}}.'
        },
    )
    attempts: int = field(default=3, metadata={"help": "How often an answer that cannot be used is asked for."})
    endpoint_concurrency: int = field(default=16, metadata={"help": "Rows under way at once."})
    endpoint_timeout: float = field(default=120.0, metadata={"help": "Seconds to wait for one answer."})
    endpoint_retries: int = field(default=5, metadata={"help": "Further attempts after faults of the server."})
    prices: list[str] = field(
        default_factory=list,
        metadata={"help": "MODEL=PROMPT/COMPLETION, per million tokens, e.g. my-model=0.2/0.6."},
    )
    max_cost: float | None = field(default=None, metadata={"help": "Stop before it has cost more; null: no limit."})
    max_tokens: int | None = field(
        default=None, metadata={"help": "Stop before it has used more tokens; null: no limit."}
    )
