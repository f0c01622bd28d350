"""Find and read the question files of benchmarks."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DownloadManager
from huggingface_hub import snapshot_download

ARCHIVES = ("*.tar.gz", "*.tgz", "*.zip")


def find_folder(source: str | Path) -> Path:
    """Return a folder, or that of a repository on the Hub, which is downloaded."""
    return Path(source) if Path(source).is_dir() else Path(snapshot_download(str(source), repo_type="dataset"))


def read_items(file: Path) -> list[dict[str, Any]]:
    """Read the items of a .json file (a list, or one item), of a .jsonl or .csv file, or of a .parquet file without clips.

    Raises:
        ValueError: the file is none of them.
    """
    if file.suffix == ".parquet":
        try:
            return pq.read_table(file).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file}: not readable as Parquet ({error})") from error
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    try:
        if file.suffix == ".json":
            content = json.loads(text)
        else:
            content = [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: neither JSON nor JSON lines ({error})") from error
    return content if isinstance(content, list) else [content]


def unpack_archives(folder: Path) -> list[Path]:
    """Unpack the archives of a repository into the cache of `datasets`."""
    archives = [str(path) for pattern in ARCHIVES for path in sorted(folder.rglob(pattern))]
    return [Path(path) for path in DownloadManager().extract(archives)] if archives else []
