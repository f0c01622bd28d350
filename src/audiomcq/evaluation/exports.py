"""Write predictions in each benchmark's own submission format, and as lmms-eval samples.

Only the chosen option is submitted, without its answer tag: a tag costs 4 items of MMAR, and MMSU's program drops
tagged letters. Items that could not be asked (no clip, no gold answer) are submitted with an empty answer, since the
official programs leave out what is absent. No path of this machine is written.
"""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from audiomcq.answers import parse_answer
from audiomcq.datasets import drop_audio
from audiomcq.evaluation.items import BenchmarkRows
from audiomcq.examples import Row, row_key
from audiomcq.prompts import ANSWER_OPEN, AUDIOMCQ_STYLE, PromptStyle

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
"""How thinking models mark their reasoning."""

Prediction = Mapping[str, Any]
"""`row_key`, `completion` and `choice` (index into the item's options, or None); one per row."""


@dataclass(frozen=True)
class SubmissionFormat:
    """A file format, by its suffix, and how to write one item in it.

    `record` takes the row, the text that is submitted, and the reasoning before it.
    """

    suffix: str
    record: Callable[[Row, str, str], dict[str, Any]]


def submitted_texts(loaded: BenchmarkRows, predictions: Iterable[Prediction]) -> dict[str, str]:
    """Return the text that is submitted for each row, by row key. The official score is that of these texts.

    Raises:
        ValueError: a prediction for a row that is not of the benchmark, two for one row, or none for a row; some are
            named.
    """
    rows = {row_key(row): row["choices"] for row in drop_audio(loaded.rows)}
    counts = Counter(prediction["row_key"] for prediction in predictions)
    for what, keys in (
        ("predictions for rows that are not of it", counts.keys() - rows.keys()),
        ("rows with two predictions", {key for key, count in counts.items() if count > 1}),
        ("rows without a prediction", rows.keys() - counts.keys()),
    ):
        if keys:
            raise ValueError(f"{loaded.benchmark.title}: {len(keys)} {what}, among them {', '.join(sorted(keys)[:3])}")
    submit = loaded.benchmark.submit
    return {p["row_key"]: submit(rows[p["row_key"]], p["choice"], p["completion"]) for p in predictions}


def write_submission(path: str | Path, loaded: BenchmarkRows, predictions: Iterable[Prediction]) -> Path:
    """Write the file that the benchmark's own program or its organisers read.

    Items are in the benchmark's order; those that were left out come last.

    Returns:
        the file: `path` with the suffix of the format.

    Raises:
        ValueError: the benchmark has no submission format, or the predictions do not fit its rows.
    """
    name = loaded.benchmark.name
    if name not in FORMATS:
        raise ValueError(f"{loaded.benchmark.title} has no submission format; {', '.join(FORMATS)} have one")
    predictions = list(predictions)
    submission, texts = FORMATS[name], submitted_texts(loaded, predictions)
    choices = {row_key(row): row["choices"] for row in drop_audio(loaded.rows)}
    thoughts = {each["row_key"]: thinking_part(each["completion"], choices[each["row_key"]]) for each in predictions}
    left_out = [*loaded.missing_audio, *loaded.without_gold, *loaded.open_ended]
    records = [submission.record(row, texts[row_key(row)], thoughts[row_key(row)]) for row in drop_audio(loaded.rows)]
    records += [submission.record(row, "", "") for row in left_out]
    path = Path(path).with_suffix(submission.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if submission.suffix == ".csv":
            writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
        elif submission.suffix == ".json":
            json.dump(records, file, ensure_ascii=False, indent=1)
        else:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return path


def write_samples(
    path: str | Path, loaded: BenchmarkRows, predictions: Iterable[Prediction], style: PromptStyle = AUDIOMCQ_STYLE
) -> None:
    """Write one JSON line per row as lmms-eval's `--log_samples` does, scored strictly.

    Args:
        style: the prompt that was used, for the `arguments` column.

    Raises:
        ValueError: the predictions do not fit the benchmark's rows.
    """
    predictions = list(predictions)
    submitted_texts(loaded, predictions)
    by_key = {prediction["row_key"]: prediction for prediction in predictions}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for doc_id, doc in enumerate(drop_audio(loaded.rows)):
            sample = _make_sample(doc_id, doc, by_key[row_key(doc)], style)
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")


def _make_sample(doc_id: int, doc: Row, prediction: Prediction, style: PromptStyle) -> dict[str, Any]:
    choices, chosen = doc["choices"], prediction["choice"]
    said = parse_answer(prediction["completion"], choices).text
    content = json.dumps(doc, ensure_ascii=False, sort_keys=True).encode()
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": doc["answer"],
        "arguments": [style.user(doc["question"], choices)],
        "resps": [[prediction["completion"]]],
        "filtered_resps": [said if chosen is None else choices[chosen]],
        "doc_hash": hashlib.sha256(content).hexdigest(),
        "parsed": chosen is not None,
        "exact_match": float(chosen is not None and choices[chosen] == doc["answer"]),
    }


def thinking_part(completion: str, choices: Sequence[str]) -> str:
    """Return what a model wrote before its answer, without the marks of a thinking block.

    It ends at the last answer tag or at the end of the thinking block, whichever comes later; where there is neither,
    at an answer that ends the completion. It is empty if the completion starts with the answer.
    """
    marks = [match.start() for match in re.finditer(rf"{ANSWER_OPEN}|{THINK_CLOSE}", completion, re.IGNORECASE)]
    if marks:
        before = completion[: marks[-1]]
    else:
        said = parse_answer(completion, choices)
        ends = said.choice is not None and completion.rstrip().endswith(said.text)
        before = completion.rstrip().removesuffix(said.text) if ends else ""
    return re.sub(rf"{THINK_OPEN}|{THINK_CLOSE}", "", before, flags=re.IGNORECASE).strip()


def _get_gold(row: Row, column: str = "answer") -> dict[str, str]:
    """Return the gold answer as a column, none where it is withheld."""
    return {} if row["answer"] is None else {column: row["answer"]}


def _record_mmau(row: Row, text: str, thought: str) -> dict[str, Any]:
    # The program reads `model_output`, its documentation names `model_prediction`.
    split, groups = row["benchmark"].removeprefix("mmau-"), row["groups"]
    return {
        "id": row["id"],
        "audio_id": f"./{split}-audios/{row['id']}.wav",
        "question": row["question"],
        "choices": row["choices"],
        **_get_gold(row),
        "dataset": groups["source"],
        "task": groups["type"],
        "split": split,
        "category": groups["category"],
        "sub-category": groups["sub_category"],
        "difficulty": groups["difficulty"],
        "model_output": text,
        "model_prediction": text,
    }


def _record_mmar(row: Row, text: str, thought: str) -> dict[str, Any]:
    groups = row["groups"]
    return {
        "id": row["id"],
        "audio_path": f"./audio/{row['id']}.wav",
        "question": row["question"],
        "choices": row["choices"],
        **_get_gold(row),
        "modality": groups["type"],
        "category": groups["category"],
        "sub-category": groups["sub_category"],
        "language": groups["language"],
        "source": groups["source"],
        "thinking_prediction": thought,
        "answer_prediction": text,
    }


def _record_mmsu(row: Row, text: str, thought: str) -> dict[str, Any]:
    groups = row["groups"]
    options = zip_longest((f"choice_{letter}" for letter in "abcd"), row["choices"], fillvalue="")
    return {
        "id": row["id"],
        "question": row["question"],
        **dict(options),
        **_get_gold(row, "answer_gt"),
        "response": text,
        "task_name": groups["task_name"],
        "category": groups["category"],
        "sub-category": groups["sub_category"],
        "sub-sub-category": groups["sub_sub_category"],
        "linguistics_sub_discipline": groups["linguistics_sub_discipline"],
    }


def _record_dcase(row: Row, text: str, thought: str) -> dict[str, Any]:
    return {"question": row["id"], "answer": " ".join(text.split())}


FORMATS: dict[str, SubmissionFormat] = {
    "mmau-test-mini": SubmissionFormat(".json", _record_mmau),
    "mmau-test": SubmissionFormat(".json", _record_mmau),
    "mmar": SubmissionFormat(".jsonl", _record_mmar),
    "mmsu-2506.04779": SubmissionFormat(".jsonl", _record_mmsu),
    "dcase2025-task5": SubmissionFormat(".csv", _record_dcase),
    "dcase2026-task5-dev": SubmissionFormat(".csv", _record_dcase),
    "dcase2026-task5-eval": SubmissionFormat(".csv", _record_dcase),
}
