"""Whatever a user can set right ends every program with one line and exit code 2; a defect keeps its traceback."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import processes
from audiomcq.audio import AudioError
from audiomcq.errors import UserErrorExit, exit_on_user_error, explain, remove_secrets
from training_process import run_script

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "recipes").glob("*/*.py"), ROOT / "recipes" / "publish" / "space" / "app.py"])
NO_YAML = {"grpo_audio_loop.py"}


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_every_program_says_in_one_line_what_is_wrong_with_its_options(script: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("output_dir: [\n")
    code, log = run_script(script, tmp_path / "log", f"--config={tmp_path}/bad.yaml")
    assert code == 2, log
    (line,) = errors(log)
    assert "Traceback" not in log and "usage:" not in log
    if "gradio is not installed" not in line and script.name not in NO_YAML:
        assert f"{tmp_path}/bad.yaml, line 2, column 1: no valid YAML" in line


def torn_weights(folder: Path, model: Path) -> list[object]:
    shutil.copytree(model, folder / "torn")
    os.truncate(folder / "torn" / "model.safetensors", 5000)
    return ["--model", folder / "torn"]


TINY = ROOT / "recipes" / "evaluate" / "tiny"
INPUTS = {
    "no such rows": ("contribution_filter/split.py", ["--dataset", "nowhere.jsonl"], "nowhere.jsonl: no such file or folder"),
    "no such votes": ("contribution_filter/split.py", ["--dataset", "ROWS", "--votes", "nowhere"], "nowhere: no votes there"),
    "no such source": ("publish/dataset.py", ["--repo_id", "a/b", "--dataset", "nowhere", "--dry_run", "true"], "nowhere"),
    "no repository": ("publish/dataset.py", ["--repo_id", "a", "--dataset", "ROWS"], "repo_id 'a' is not of the form owner/name"),
    "no run": ("publish/model.py", ["--repo_id", "a/b", "--folder", "nowhere"], "nowhere"),
    "no checkpoint": ("publish/export.py", ["--folder", "./nowhere", "--output_dir", "OUT"], "model path nowhere: "),
    "no recordings": ("demo/demo.py", ["--recordings", "nowhere", "--output_dir", "OUT"], "nowhere"),
    "no model": ("minimal/grpo_audio_loop.py", ["--rows", "ROWS", "--paradigm", "single_stage", "--model", "./nowhere", "--log",
                                                "OUT"], "./nowhere: no such folder"),
    "log is there": ("minimal/grpo_audio_loop.py", ["--rows", "ROWS", "--model", "MODEL", "--paradigm", "single_stage", "--log", "ROWS"],
                     "already exists; name another place"),
    "rows without a model": ("minimal/grpo_audio_loop.py", ["--rows", "ROWS"], "--model and --rows: give both, or neither"),
    "wrong number": ("minimal/grpo_audio_loop.py", ["--steps", "many"], "argument --steps: invalid int value: 'many'"),
    "torn weights": ("evaluate/answer.py", torn_weights, "torn"),
    "wrong precision": ("evaluate/answer.py", ["--model", "MODEL", "--dtype", "float12"], "dtype 'float12': known are"),
    "no text questions": ("evaluate/forgetting.py", ["--before", "MODEL", "--after", "MODEL", "--text_questions", "nowhere"],
                          "nowhere: no such file"),
    "no rows": ("contribution_filter/report.py", ["--output_dir", "OUT"], "dataset: name the rows, by --dataset"),
    "no voters": ("contribution_filter/probe.py", ["--dataset", "ROWS"], "voters: give --voters, or a YAML file that has it"),
    "no model to ask": ("evaluate/select_checkpoint.py", ["--benchmark", "mmar"], "run: give --run"),
}  # fmt: skip


@pytest.mark.parametrize("case", INPUTS)
def test_every_program_names_an_input_that_it_cannot_use(
    case: str, rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    script, words, says = INPUTS[case]
    words = words(tmp_path, model_folder) if callable(words) else words
    if script == "evaluate/answer.py":
        words = ["--config", TINY / "answer.yaml", "--dataset", "ROWS", "--dataset_split", "train", *words]
        words += ["--output_dir", "OUT"]
    places = {"ROWS": rows_folder, "MODEL": model_folder, "OUT": tmp_path / "out"}
    code, log = run_script(ROOT / "recipes" / script, tmp_path / "log", *(places.get(word, word) for word in words))
    assert code == 2, log
    (line,) = errors(log)
    assert says in line
    assert "Traceback" not in log


@pytest.mark.check
@pytest.mark.parametrize(
    ("launcher", "report"),
    [
        (
            ["accelerate.commands.launch", "--config_file", ROOT / "accelerate_configs" / "cpu.yaml"],
            "returned non-zero exit status 2",
        ),
        (["torch.distributed.run", "--standalone", "--nproc_per_node", "2"], "exitcode  : 2"),
    ],
    ids=["accelerate", "two processes"],
)
def test_under_a_launcher_one_process_speaks_for_all(
    launcher: list[object], report: str, rows_folder: Path, tmp_path: Path
) -> None:
    """The launcher adds a report of its own, and its own exit code."""
    recipe = ROOT / "recipes" / "weak_to_strong"
    words = [f"--config={recipe / 'tiny' / 'sft.yaml'}", "--use_cpu", "true", "--dataset", rows_folder, "--output_dir"]
    words += [tmp_path / "out", "--model_name_or_path", "./nowhere"]
    done = processes.run([sys.executable, "-m", *launcher, recipe / "sft.py", *words])
    assert errors(done.stderr) == [
        "error: model path ./nowhere: no such folder; train or download the model first, or give a Hub id"
    ]
    assert report in done.stderr
    assert not (tmp_path / "out").exists()


SPEAK = """
import sys
from audiomcq.errors import exit_on_user_error
with exit_on_user_error():
    raise ValueError("the disk is full")
"""


def test_a_further_process_waits_for_the_first_to_speak() -> None:
    command = [sys.executable, "-c", SPEAK]
    begun = time.monotonic()
    ranks = {
        rank: subprocess.Popen(
            command, env={**os.environ, "RANK": rank, "WORLD_SIZE": "2"}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    }
    first = ranks["0"].communicate(timeout=60)[1]
    assert (first, ranks["0"].returncode) == ("error: the disk is full\n", 2)
    # As the launcher does when one of its processes has failed
    ranks["1"].terminate()
    assert ranks["1"].communicate(timeout=60)[1] == ""
    assert time.monotonic() - begun < 60
    alone = subprocess.run(
        command, env={**os.environ, "RANK": "1", "WORLD_SIZE": "2"}, capture_output=True, text=True, timeout=60
    )
    assert (alone.stderr, alone.returncode) == ("error: the disk is full\n", 2), "no error of another process is lost"


def test_a_defect_keeps_its_traceback() -> None:
    for error in (
        KeyError("x"),
        TypeError("x"),
        RuntimeError("x"),
        AssertionError("x"),
        ModuleNotFoundError("x", name="numpy"),
    ):
        assert explain(error) is None
        with pytest.raises(type(error)), exit_on_user_error():
            raise error


def test_an_exit_is_one_line_without_a_chain_of_errors() -> None:
    with pytest.raises(UserErrorExit) as end, exit_on_user_error():
        raise ValueError("first\n   second\n\nthird \ud83d")
    assert str(end.value) == r"error: first second third \ud83d", "half of a pair is no UTF-8"
    assert end.value.code == 2
    assert end.value.__cause__ is None and end.value.__suppress_context__


WORKER = """Caught AudioError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "audio.py", line 1, in load
audiomcq.audio.AudioError: 5.flac: the file is empty (0 bytes)
"""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "a file: No space left on device; what was written before is kept",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied; change its rights"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: Read-only file system; change its rights"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.yaml"), "x.yaml: no such file or folder; check the path"),
        (FileExistsError(errno.EEXIST, "File exists", "x"), "x already exists; name another place, or move it away"),
        (OSError("the repository is gone"), "the repository is gone"),
        (FloatingPointError("the loss is nan"), "the loss is nan"),
        (AudioError(WORKER), "5.flac: the file is empty (0 bytes)"),
        (
            ModuleNotFoundError("no", name="gradio.themes"),
            "gradio.themes is not installed; run `pip install 'audiomcq[space]'`",
        ),
    ],
)
def test_what_the_system_says_is_said_with_the_file_and_what_to_do(error: Exception, says: str) -> None:
    assert explain(error).startswith(says)


def test_errors_of_libraries_are_said_with_their_cause() -> None:
    class DatasetsError(Exception):
        pass

    class OutOfMemoryError(RuntimeError):
        pass

    error = DatasetsError("while generating")
    error.__cause__ = ValueError("column x")
    assert explain(error) == "while generating: column x"
    assert "lower the batch size" in explain(OutOfMemoryError("CUDA out of memory"))


def test_keys_and_passwords_are_blacked_out_of_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOMCQ_API_KEY", "k3y-of-mine")
    text = (
        "https://user:s3cret@host/v1 http://h/v1?api_key=s3cret&x=s3cret, hf_s3cret4567890123456 sk-s3cret4567890123456 "
        "Authorization: Bearer s3cret k3y-of-mine"
    )
    told = remove_secrets(text)
    assert "s3cret" not in told and "k3y-of-mine" not in told
    assert "host/v1" in told and "http://h/v1?api_key=***" in told
