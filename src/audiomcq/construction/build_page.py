from pathlib import Path
from typing import Any


def write_page(record: dict[str, Any], data: Path, audio_root: Path) -> None:
    pass
