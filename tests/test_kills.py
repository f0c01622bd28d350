"""Thirty kills at random moments, by three signals: the same command goes on, and ends as if nothing had been.

`python benchmarks/kills.py` writes the table of what came of them, docs/results/kills.md.
"""

import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audiomcq.errors import INTERRUPTED_EXIT_CODE
from caption_files import put_audiocaps
from hub.server import Hub
from killed_jobs import Job, asking, building, finish, kill, publishing, training
from scripted_llm import serving
from training_process import LEARNABLE

pytestmark = pytest.mark.check
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
GRPO = {"num_generations": 2, "max_completion_length": 4, "gradient_accumulation_steps": 2, **LEARNABLE}
CYCLE = {"steps_per_generation": 4, "num_iterations": 2}
"""Four optimizer steps train on the rollouts of one generation."""
LORA = {"use_peft": "true", "lora_r": 4, "lora_target_modules": "q_proj"}
SEED = 20


@pytest.fixture(scope="module")
def paths(rows_folder: Path, model_folder: Path) -> dict[str, Path]:
    return {"dataset": rows_folder, "model_name_or_path": model_folder}


@pytest.fixture(scope="module")
def ask(rows_folder: Path, model_folder: Path) -> list[object]:
    return ["--dataset", rows_folder, "--dataset_split", "train", "--batch_size", 2, "--max_new_tokens", 3,
            "--orders", "cyclic", "--silence_seconds", 1.0]  # fmt: skip


@pytest.fixture(scope="module")
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job of the name and number of processes that the test asks for."""
    name, count = request.param
    paths, words = request.getfixturevalue("paths"), request.getfixturevalue("ask")
    folder = tmp_path_factory.mktemp(name)
    if name == "sft":
        yield training("sft", count, paths, gradient_accumulation_steps=2, **(LORA if count == 2 else {}))
    elif name == "grpo":
        yield training("grpo", count, paths, **GRPO, **CYCLE, **(LORA if count == 1 else {}))
    elif name == "probe":
        recipe = "contribution_filter/probe.py"
        config = ["--config", Path(__file__).parents[1] / "recipes" / "contribution_filter" / "tiny" / "probe.yaml"]
        yield asking("probing", recipe, count, "", *config, "--voters", paths["model_name_or_path"], *words)
    elif name == "answer":
        config = ["--config", Path(__file__).parents[1] / "recipes" / "evaluate" / "tiny" / "answer.yaml"]
        model = ["--model", paths["model_name_or_path"]]
        yield asking("answering", "evaluate/answer.py", count, "tiny.answers", *config, *model, *words)
    elif name == "build":
        with serving(folder / "server", "--latency", 0.02, "--steady") as server:
            yield building(put_audiocaps(folder / "captions", 20), server)
    else:
        with Hub(folder / "hub") as hub:
            hub.latency = 0.1  # of each of nine requests: a signal finds the job at work on the fastest machine
            yield publishing(paths["dataset"], hub)


JOBS = [(name, count) for name in ("sft", "grpo", "probe", "answer") for count in (1, 2)] + [
    ("build", 1),
    ("publish", 1),
]


@pytest.mark.parametrize("job", JOBS, ids=[f"{name}-{count}" for name, count in JOBS], indirect=True)
def test_what_is_killed_at_a_random_moment_ends_as_if_it_had_not_been(
    job: Job, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(f"{SEED} {job.name} {job.count}")
    undisturbed = tmp_path / "undisturbed"
    finish(job, undisturbed, go_on=False)
    whole, files, items = job.progress(undisturbed), job.files(undisturbed), job.items(undisturbed)
    assert set(items.values()) == {1} and files
    for number in SIGNALS:
        folder = tmp_path / number.name.lower()
        # All processes die together, as with their machine; one that a user or a batch system asks to end tells the others
        asked = draw.randrange(job.count) if job.together and number != signal.SIGKILL else None
        found = kill(job, folder, number, draw.randrange(max(1, whole - 2)), draw.uniform(0, 0.1), whole, asked)
        lines = [line for line in found.log.splitlines() if line.startswith("stopped by ")]
        if number == signal.SIGKILL:
            assert found.codes == [-signal.SIGKILL] * job.count and not lines
        else:
            assert found.codes == [INTERRUPTED_EXIT_CODE] * job.count, found.log[-4000:]
            assert len(lines) == 1 and lines[0].startswith(f"stopped by {number.name}: "), found.log[-4000:]
            assert "the same command" in lines[0], lines
            assert "Traceback" not in found.log, found.log[-4000:]
        finish(job, folder, go_on=True)
        made = job.items(folder)
        lost, repeated = len(items - made), sum((made - items).values())
        same = job.files(folder) == files
        said = lines[0].replace(str(tmp_path), "outputs") if lines else ""
        record = {"job": job.name, "processes": job.count, "signal": number.name, "at": found.at, "lost": lost,
                  "repeated": repeated, "equal": same, "codes": found.codes, "said": said}  # fmt: skip
        record_property("kill", json.dumps(record))
        assert (lost, repeated, same) == (0, 0, True), record
