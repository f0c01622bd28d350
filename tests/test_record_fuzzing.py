"""Whatever lies in a file of records, it is read or named: never a traceback, never a wait, never a vote that nobody cast.

The few hundred files here are read by the readers themselves; the check asks the recipes, as people do."""

import atexit
import functools
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import record_files as made
from audiomcq.contribution.report import contribution_report
from audiomcq.contribution.split import SPLIT_FILE, label_rows, load_saved_rule
from audiomcq.datasets import load_rows
from audiomcq.evaluation.identity import model_of_run
from audiomcq.evaluation.results import ScoreArguments, score_folder
from audiomcq.evaluation.scoring import questions_by_key, rescore_predictions, score_run
from audiomcq.inference.load import load_votes
from audiomcq.inference.predictions import prediction_files, read_predictions, read_run, start_run
from audiomcq.inference.store import RUN_FILE, answered, list_shards, open_run, write_unreadable
from audiomcq.publishing.model_scores import read_evaluation
from processes import run as run_process

ROOT = Path(__file__).parents[1]
SECONDS = 20
"""What takes longer has hung."""
FEW = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
ROWS = [
    {"id": str(i), "source_dataset": "s", "question_type": "sound", "question": f"What is number {i}?", "audio_path": f"{i}.wav",
     "choices": ["rain", "wind", "siren"], "answer": "wind"}
    for i in range(4)
]  # fmt: skip
TEXTS = [{name: row[name] for name in row if name != "audio_path"} for row in ROWS]
LINES, VOTES = made.predictions(TEXTS), made.votes(TEXTS)


@functools.cache
def questions() -> Path:
    """The rows as a file, for the recipes; it goes with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="audiomcq_fuzzing_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "test.jsonl").write_bytes(made.json_lines(ROWS))
    return folder


@contextmanager
def in_time() -> Iterator[None]:
    """Fails what does not end."""

    def late(*_: object) -> None:
        raise AssertionError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_named(folder: Path, *readers: Callable[[], Any]) -> None:
    """Every reader reads, or raises one ValueError that names a file of the folder."""
    for read in readers:
        with in_time():
            try:
                read()
            except ValueError as error:
                assert str(folder) in str(error) and "\n" not in str(error).strip(), str(error)


@contextmanager
def a_folder(**files: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="audiomcq_records_") as name:
        for file, content in files.items():
            (Path(name) / file.replace("__", ".")).write_bytes(content)
        yield Path(name)


@given(lines=made.line_files(LINES), record=st.one_of(st.none(), st.just(json.dumps(made.RECORD).encode())))
@FEW
def test_predictions_are_read_or_named(lines: bytes, record: bytes | None) -> None:
    with a_folder(m__jsonl=lines, m__run__json=record or b"") as folder:
        if record is None:
            (folder / "m.run.json").unlink()
        rows = questions_by_key(TEXTS)

        def score_all() -> None:
            for file in prediction_files(folder):
                said = [line for of_control in read_predictions(file).values() for line in of_control]
                try:
                    score_run(rows, rescore_predictions(rows, said), None)
                except ValueError as error:
                    raise ValueError(f"{file}: {error}") from error

        read_or_named(folder, score_all, lambda: load_votes(folder))


@given(record=made.json_files(made.RECORD))
@FEW
def test_the_record_of_a_run_is_read_or_named(record: bytes) -> None:
    with a_folder(m__jsonl=made.json_lines(LINES), m__run__json=record) as folder:
        file = folder / "m.jsonl"
        read_or_named(
            folder,
            lambda: model_of_run(read_run(file) or {}, file),
            lambda: start_run(file, made.RECORD["settings"], ["audio"]),
            lambda: score_folder(ScoreArguments(dataset=str(questions()), predictions=str(folder))),
        )


@given(
    content=made.vote_shards(VOTES),
    record=st.one_of(st.just(json.dumps(made.PROBE).encode()), made.json_files(made.PROBE)),
)
@FEW
def test_votes_of_a_probe_are_read_or_named(content: bytes, record: bytes) -> None:
    with a_folder(one__parquet=content) as folder:
        (folder / RUN_FILE).write_bytes(record)
        rows = load_rows(questions(), "test", check_audio=False)
        label = functools.partial(label_rows, max_bad_fraction=1.0)
        read_or_named(
            folder,
            lambda: [answered([one], one.voter.name, one.control, one.mode) for one in list_shards(folder)],
            lambda: write_unreadable(folder),
            lambda: open_run(folder, made.SETTINGS),
        )
        votes = None
        with in_time():
            try:
                votes = load_votes(folder)
            except ValueError as error:
                assert "one.parquet" in str(error), str(error)
        if votes is not None:
            with in_time():
                try:
                    contribution_report(label(rows, votes), votes)
                except ValueError as error:  # of votes on other rows, or that lack some
                    assert "vote" in str(error) or "rows" in str(error), str(error)


@given(table=made.vote_tables(VOTES), compression=st.sampled_from(("snappy", "none")))
@FEW
def test_a_table_of_votes_is_read_or_named(table: Any, compression: str) -> None:
    with a_folder(votes__parquet=made.parquet(table, compression)) as folder:
        rows = load_rows(questions(), "test", check_audio=False)

        def label() -> None:
            votes = load_votes(folder / "votes.parquet")
            try:
                label_rows(rows, votes, max_bad_fraction=1.0)
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from error

        read_or_named(folder, label)


@given(rule=made.json_files(made.SPLIT), results=made.json_files(made.RESULTS))
@FEW
def test_rules_and_results_are_read_or_named(rule: bytes, results: bytes) -> None:
    with a_folder(m__jsonl=made.json_lines(LINES), results__json=results) as folder:
        (folder / SPLIT_FILE).write_bytes(rule)
        beside = ScoreArguments(
            dataset=str(questions()), predictions=str(folder), other_results=[f"other={folder / 'results.json'}"]
        )
        read_or_named(
            folder, lambda: read_evaluation(folder / "results.json", "m", "org/data"), lambda: score_folder(beside)
        )
        read_or_named(folder, lambda: load_saved_rule(folder))


RECIPES = {
    "score": ("evaluate/score.py", ["--dataset", "{rows}", "--predictions", "{folder}"]),
    "beside": ("evaluate/score.py", ["--dataset", "{rows}", "--predictions", "{folder}/p", "--other_results", "other={folder}/results.json"]),
    "list": ("evaluate/score.py", ["--dataset", "{rows}", "--predictions", "{folder}/p", "--strong_list", "{folder}/strong.json"]),
    "votes": ("evaluate/score.py", ["--dataset", "{rows}", "--predictions", "{folder}/p", "--votes", "{folder}/v"]),
    "split": ("contribution_filter/split.py", ["--dataset", "{rows}", "--dataset_split", "test", "--votes", "{folder}/v"]),
    "table": ("contribution_filter/split.py", ["--dataset", "{rows}", "--dataset_split", "test", "--votes", "{folder}/v.parquet"]),
    "foreign": ("contribution_filter/split.py", ["--dataset", "{rows}", "--dataset_split", "test", "--votes", "{folder}/m.jsonl"]),
    "report": ("contribution_filter/report.py", ["--dataset", "{rows}", "--dataset_split", "test", "--votes", "{folder}/v", "--examples", "0"]),
}  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """A recipe of `RECIPES`, and the files of its folder, one of which is broken."""
    name = draw(st.sampled_from(sorted(RECIPES)))
    good, record = made.json_lines(LINES), json.dumps(made.RECORD).encode()
    if name == "score":
        torn = draw(st.booleans())
        lines = draw(made.line_files(LINES)) if torn else good
        return name, {"m.jsonl": lines, "m.run.json": record if torn else draw(made.json_files(made.RECORD))}
    if name == "beside":
        return name, {"p/m.jsonl": good, "results.json": draw(made.json_files(made.RESULTS))}
    if name == "list":
        return name, {"p/m.jsonl": good, "strong.json": draw(made.json_files([{"id": "1"}, {"id": "2"}]))}
    if name == "table":
        return name, {"v.parquet": made.parquet(draw(made.vote_tables(VOTES)))}
    if name == "foreign":
        return name, {"m.jsonl": draw(made.line_files(LINES))}
    return name, {"p/m.jsonl": good, "v/one.parquet": draw(made.vote_shards(VOTES))}


def exit_code_of(recipe: str, arguments: list[str], capture: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """How a recipe ends in this process, and the last line that it says; any other end than by itself is a defect."""
    before, sys.argv = sys.argv, [recipe, *arguments]
    capture.readouterr()
    try:
        with in_time():
            runpy.run_path(str(ROOT / "recipes" / recipe), run_name="__main__")
    except SystemExit as stop:
        said = capture.readouterr().err.strip().splitlines()
        line = str(stop) if str(stop).startswith("error: ") else said[-1]
        return stop.code if isinstance(stop.code, int) else 1, line
    finally:
        sys.argv = before
    return 0, ""


@pytest.mark.check
@settings(max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def check_files(capture: pytest.CaptureFixture[str], wrong_option: int, case: tuple[str, dict[str, bytes]]) -> None:
    name, files = case
    recipe, arguments = RECIPES[name]
    with a_folder() as folder:
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(content)
        words = [word.format(rows=questions(), folder=folder) for word in arguments]
        code, line = exit_code_of(recipe, [*words, "--output_dir", str(folder / "out")], capture)
        assert code in (0, wrong_option)
        if code:
            files_named = any(Path(file).name in line for file in files)
            # Files of a folder make one table: a row with a vote that is not about it, unreadable, or with none, is named with the folder
            row_named = any(str(folder / name) in line for name in ("v", "p")) and "sound_s_" in line
            assert line.startswith("error: ") and (files_named or row_named), (name, line)


@pytest.mark.check
def test_500_files_of_records_end_a_recipe_well_or_with_one_line_and_the_code_of_a_wrong_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong_option, _ = exit_code_of("evaluate/score.py", ["--nonsense", "1"], capsys)
    assert wrong_option in (1, 2)
    check_files(capsys, wrong_option)


@pytest.mark.check
def test_a_broken_file_ends_a_recipe_with_one_line_and_no_traceback(tmp_path: Path) -> None:
    """As a process of its own: what stands on the screen is all that a person sees."""
    (tmp_path / "v").mkdir()
    whole = made.parquet(made.shard(VOTES))
    (tmp_path / "v" / "one.parquet").write_bytes(whole[:60] + bytes(len(whole) - 120) + whole[-60:])
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "m.jsonl").write_bytes(made.json_lines([*LINES[:2], {**LINES[2], "completion": ["wind"]}]))
    for recipe, arguments, says in (
        (
            "contribution_filter/split.py",
            ["--votes", tmp_path / "v", "--dataset_split", "test"],
            "one.parquet: a torn shard",
        ),
        (
            "evaluate/score.py",
            ["--predictions", tmp_path / "p"],
            "m.jsonl, line 3: 'completion' is ['wind'], expected a text",
        ),
    ):
        command = [
            sys.executable,
            ROOT / "recipes" / recipe,
            "--dataset",
            questions(),
            *arguments,
            "--output_dir",
            tmp_path / "out",
        ]
        done = run_process(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        assert done.returncode not in (0, -11) and "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert says in line
    shutil.rmtree(tmp_path / "v")
