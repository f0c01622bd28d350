"""All sources by the name that options give them."""

from audiomcq.construction.sources import (
    audiocaps,
    clotho,
    compa_r,
    hub_captions,
    lp_musiccaps,
    manifest,
    musiccaps,
    speechcraft,
    tacos,
)
from audiomcq.construction.sources.reading import Source

SOURCES: dict[str, Source] = {
    "clotho": clotho.SOURCE,
    "audiocaps": audiocaps.SOURCE,
    "compa_r": compa_r.SOURCE,
    "musiccaps": musiccaps.SOURCE,
    "lp_musiccaps": lp_musiccaps.SOURCE,
    "speechcraft": speechcraft.SOURCE,
    "tacos": tacos.SOURCE,
    "manifest": manifest.SOURCE,
    "hub": hub_captions.SOURCE,
}


def find_source(name: str) -> Source:
    """Return the source of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in SOURCES:
        raise ValueError(f"source {name!r}: choose one of {', '.join(SOURCES)}")
    return SOURCES[name]
