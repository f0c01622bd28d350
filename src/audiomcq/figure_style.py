"""The look of every figure: one colour per control, side and model, sizes that can be read in print, and direct labels.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any colour vision can tell
apart, continued with those of Paul Tol's "muted" scheme.
"""

import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRONG, WEAK = "#0072B2", "#D55E00"
"""Rows with strong and with weak audio contribution."""
CONTROLS = {
    "audio": "#009E73",
    "silence": "#7F7F7F",
    "mismatched_audio": "#E69F00",
    "no_audio": "#56B4E9",
    "noise": "#CC79A7",
}
"""What a model hears."""
CONTROL_NAMES = {"audio": "with audio", "silence": "on silence", "mismatched_audio": "with another clip",
                 "no_audio": "without a clip", "noise": "on noise",
                 "options_only": "options alone"}  # fmt: skip
_MODELS = ("#AA4499", "#44AA99", "#CC6677", "#88CCEE", "#117733", "#DDCC77")
_PARADIGMS = {
    r"\bbase\b": "#000000",
    r"\bw(eak )?(2|to )s(trong)?\b": "#882255",
    r"\bm(ixed )?(2|to )s(trong)?\b": "#999933",
    r"\bm(ixed )?(2|to )m(ixed)?\b": "#332288",
}
"""Colours of the paradigms, by what a model's name says."""
INK, MUTED, FAINT = "#222222", "#555555", "#9A9A9A"
WIDTH = 7.0
"""Inches: the text of a printed page. Font sizes are those at this width."""
DOTS_PER_INCH = 200
_TITLE_CHARACTERS, _DETAIL_CHARACTERS = 64, 100
_TITLE_INCHES, _DETAIL_INCHES = 0.21, 0.17
"""Height of a line."""
_SETTINGS: Any = {  # matplotlib types the keys one by one
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name would begin a formula
    "svg.hashsalt": "audiomcq",  # ids in a file are then the same in every run
}


def model_colours(names: Iterable[str]) -> dict[str, str]:
    """Choose a colour for each model: that of its paradigm where its name says one, lighter after SFT; else by order."""
    colours, others = {}, itertools.cycle(_MODELS)
    for name in names:
        words = re.sub(r"[^a-z0-9]+", " ", name.lower())
        known = next((colour for pattern, colour in _PARADIGMS.items() if re.search(pattern, words)), None)
        known = known or next(others)
        colours[name] = lighten(known) if re.search(r"\bsft\b", words) else known
    return colours


def lighten(colour: str, share: float = 0.5) -> str:
    """Mix a colour with white."""
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style inside the block; also a decorator of functions that draw and save."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(height: float, message: str, detail: str = "") -> "Figure":
    """Make a figure of the printed width with its message as the title, and below it what was measured.

    Args:
        height: inches of the drawing, without message and detail.
    """
    from matplotlib.figure import Figure

    lines = textwrap.wrap(message, _TITLE_CHARACTERS)
    details = textwrap.wrap(detail, _DETAIL_CHARACTERS)
    top = 0.12 + _TITLE_INCHES * len(lines) + _DETAIL_INCHES * len(details)
    total = height + top
    figure = Figure(figsize=(WIDTH, total), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None  # for mypy: it was just asked for
    engine.set(rect=(0, 0, 1, height / total), w_pad=0.06, h_pad=0.06)  # type: ignore[call-arg]
    left, y = 0.08 / WIDTH, 1 - 0.08 / total
    figure.text(left, y, "\n".join(lines), fontsize=12, fontweight="bold", va="top", linespacing=1.15)
    y -= _TITLE_INCHES * len(lines) / total
    figure.text(left, y, "\n".join(details), fontsize=9.5, color=MUTED, va="top", linespacing=1.15)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Save a figure, with the same bytes for the same content. The format is the suffix of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Neither the date nor the version of matplotlib, which formats record under these names
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None} if path.suffix == ".png" else None
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)


def png_bytes(figure: "Figure") -> bytes:
    """Return a figure as the bytes of a PNG file, the same ones for the same content."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()


def draw_point(
    axes: Any, place: float, point: tuple[float, float, float], colour: str, vertical: bool = False, **options: Any
) -> None:
    """Draw a value and its interval.

    Args:
        place: of the point on the other axis.
        point: value, lower and upper end of its interval.
        vertical: the value is on the y axis.
    """
    value, low, high = point
    whiskers = [[max(0.0, value - low)], [max(0.0, high - value)]]
    across = {"yerr" if vertical else "xerr": whiskers}
    style = {"fmt": "o", "markersize": 5, "elinewidth": 1.4, "capsize": 0, "color": colour, **across, **options}
    axes.errorbar(*((place, value) if vertical else (value, place)), **style)


def halo() -> list[Any]:
    """Return the path effects that keep a label readable on top of lines."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]


def spread_labels(heights: Sequence[float], distance: float) -> list[float]:
    """Move the heights of labels apart until neighbours are `distance` away from each other, each as little as can be.

    Returned in the order given.
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        # A group of labels stands around the mean of its heights; groups that would overlap become one
        while len(groups) > 1 and _group_low(groups[-1], heights, distance) < (
            _group_low(groups[-2], heights, distance) + distance * len(groups[-2])
        ):
            last = groups.pop()
            groups[-1] += last
    placed = [0.0] * len(heights)
    for group in groups:
        low = _group_low(group, heights, distance)
        for step, index in enumerate(group):
            placed[index] = low + step * distance
    return placed


def _group_low(group: Sequence[int], heights: Sequence[float], distance: float) -> float:
    return sum(heights[index] for index in group) / len(group) - distance * (len(group) - 1) / 2
