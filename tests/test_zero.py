"""ZeRO-2, ZeRO-3 and plain data parallelism: two processes on the CPU train the same model and save it whole."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

import processes
from audiomcq.models import load_lalm
from audiomcq.sft import AudioSFTTrainer
from small_runs import build, sft_config

ROOT = Path(__file__).parents[1]
WITH_DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the extra `deepspeed`, which is built at installation"
)
KINDS = ["ddp", pytest.param("zero2", marks=WITH_DEEPSPEED), pytest.param("zero3", marks=WITH_DEEPSPEED)]


def launch(kind: str, stage: str, model: Path, rows: Path, output: Path, *options: str) -> list[dict]:
    """Two steps of a recipe in two processes; returns what the steps logged."""
    if kind == "ddp":  # accelerate starts one process for this kind on a CPU
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    else:
        config = yaml.safe_load((ROOT / "accelerate_configs" / f"{kind}.yaml").read_text())
        config |= {"num_processes": 2, "use_cpu": True, "mixed_precision": "no", "main_process_port": 0}
        file = output.parent / f"{output.name}.yaml"
        file.write_text(yaml.safe_dump(config))
        launcher = ["accelerate.commands.launch", "--config_file", file]
    done = processes.run(
        [
            sys.executable, "-m", *launcher, ROOT / "tests" / "leaving_process.py",
            ROOT / "recipes" / "single_stage" / f"{stage}.py",
            "--config", ROOT / "recipes" / "single_stage" / "tiny" / f"{stage}.yaml",
            "--model_name_or_path", model, "--dataset", rows, "--output_dir", output, "--max_steps", "2",
            "--per_device_train_batch_size", "8", "--use_cpu", "true", "--logging_steps", "1", *options,
        ],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "a wrapper outlives its process group" not in done.stderr
    # Not by the exit status: gloo (torch 2.13) at times aborts a process that has finished and leaves
    assert (output / "run.json").is_file(), done.stderr[-3000:]
    record = json.loads((output / "run.json").read_text())
    assert record.get("finished"), done.stderr[-3000:]
    assert record["processes"] == 2
    return json.loads((output / "trainer_state.json").read_text())["log_history"][:2]


@pytest.mark.check
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_trained_by_two_processes_is_saved_whole_and_learns_the_same_however_it_is_sharded(
    kind: str, model_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    steps = launch(kind, "sft", model_folder, rows_folder, tmp_path / kind)
    _, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tmp_path / kind, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    groups = json.loads((tmp_path / kind / "run.json").read_text())["parameter_groups"]
    assert groups["llm"]["trainable"] == groups["llm"]["parameters"] > 0
    if kind != "ddp":
        expected = launch("ddp", "sft", model_folder, rows_folder, tmp_path / "ddp")
        for name in ("loss", "grad_norm", "mean_token_accuracy"):
            found, plain = ([step[name] for step in run] for run in (steps, expected))
            assert found == pytest.approx(plain, rel=1e-4), name


@pytest.fixture(scope="module")
def answering_folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, rows: Dataset) -> Path:
    """A model that answers in tags, at times rightly: rollouts of a random one all earn nothing, and teach nothing."""
    folder = tmp_path_factory.mktemp("model") / "answering"
    options = {"max_steps": 25, "learning_rate": 3e-3, "per_device_train_batch_size": 16}
    lalm = load_lalm(model_folder)
    trainer = build(AudioSFTTrainer, lalm, sft_config(folder, **options), rows)
    trainer.train()
    trainer.save_model()
    lalm.processor.save_pretrained(folder)
    return folder


@pytest.mark.check
@pytest.mark.parametrize("kind", KINDS[:2])
def test_sharing_prompts_changes_nothing_in_two_processes(
    kind: str, answering_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    options = ("--num_generations", "4", "--warmup_steps", "0")
    # The second step draws other numbers: groups are shuffled where stock shuffles rows
    (shared, *_), (stock, *_) = (
        launch(kind, "grpo", answering_folder, rows_folder, tmp_path / flag, "--shared_prefix", flag, *options)
        for flag in ("true", "false")
    )
    measured = ("seconds/", "speed/", "padding_share/")  # what a step took, which is not the same both ways
    compared = [
        name for name in shared if "time" not in name and "per_second" not in name and not name.startswith(measured)
    ]
    assert len(compared) > 10
    assert shared["reward_std"] > 0
    assert shared["grad_norm"] > 0.1
    for name in compared:
        assert shared[name] == pytest.approx(stock[name], rel=1e-4, abs=1e-6), name
