"""Training with a chain of thought before the answer: what is learnt, and that GRPO after SFT is paid more and more."""

import json
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from audiomcq.answers import has_thinking_format
from audiomcq.collation import IGNORED
from audiomcq.commands import training
from audiomcq.construction.chains import structured_chain, unstructured_chain
from audiomcq.examples import Row
from audiomcq.models import LALM, load_lalm
from audiomcq.options import parse_stage
from audiomcq.prompts import completion_target
from audiomcq.sft import AudioSFTTrainer
from audiomcq.tiny.data import plan
from audiomcq.tiny.model import make_tiny_lalm, train_tokenizer
from small_runs import build, sft_config
from test_recipes import ROOT, SMOKE, arguments

COTS = ("structured", "unstructured")
SETTINGS = ROOT / "recipes" / "weak_to_strong"


def with_chains(row: Row) -> Row:
    answer = row["answer"]
    caption = f"A tone that is {answer}."
    return {
        "structured_cot": structured_chain("it asks for a tone", "sound", caption, f"it is {answer}", answer),
        "unstructured_cot": unstructured_chain(f"It asks for a tone. {caption}"),
    }


@pytest.fixture(scope="module")
def thinking_rows(rows: Dataset) -> Dataset:
    return rows.map(with_chains)


@pytest.fixture(scope="module")
def thinking_folder(rows_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as a file, with their clips named where they are."""
    folder = tmp_path_factory.mktemp("thinking")
    lines = [json.loads(line) for line in (rows_folder / "train.jsonl").read_text().splitlines()]
    (folder / "train.jsonl").write_text("".join(json.dumps({**row, **with_chains(row)}) + "\n" for row in lines))
    return folder


def run(stage: str, cot: str, source: Path, output: Path, rows_folder: Path, thinking: Path, **options) -> dict:
    """Run a recipe with the tiny settings of a chain of thought, and return the log of its steps."""
    words = {**SMOKE, "dataset": thinking, "audio_root": rows_folder, "model_name_or_path": source, **options}
    config = ["--config", str(SETTINGS / "tiny" / f"{stage}_{cot}.yaml")]
    train = {"sft": training.sft, "grpo": training.grpo}[stage]
    train(*parse_stage(stage, argv=[*config, *arguments({**words, "output_dir": output})]))
    return json.loads((output / "trainer_state.json").read_text())["log_history"]


@pytest.mark.parametrize("cot", COTS)
def test_the_whole_chain_and_its_answer_are_learnt_and_nothing_is_cut(
    cot: str, lalm: LALM, thinking_rows: Dataset, tmp_path: Path
) -> None:
    trainer = build(AudioSFTTrainer, lalm, sft_config(tmp_path, cot=cot), thinking_rows)
    long = {**thinking_rows[3], f"{cot}_cot": unstructured_chain("It is a tone. " * 500)}
    for row in (thinking_rows[3], long):
        batch = trainer.data_collator([row])
        learnt = lalm.tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != IGNORED])
        assert learnt.removesuffix("\n").removesuffix("<|im_end|>") == completion_target(row, cot)


@pytest.mark.parametrize("cot", COTS)
def test_both_stages_train_with_the_settings_of_a_chain(
    cot: str, model_folder: Path, rows_folder: Path, thinking_folder: Path, tmp_path: Path
) -> None:
    run("sft", cot, model_folder, tmp_path / "sft", rows_folder, thinking_folder)
    small = {"num_generations": 2, "max_completion_length": 4}
    steps = run("grpo", cot, tmp_path / "sft", tmp_path / "grpo", rows_folder, thinking_folder, **small)
    assert "rewards/gated_thinking_format_reward/mean" in steps[0]


def test_the_embedded_chains_fit_the_length_of_the_tiny_settings() -> None:
    planned = plan(scale=0.2)
    rows = [row for split in ("pretrain", "train") for row, _ in planned[split][1]]
    tokenizer = train_tokenizer(rows)
    for cot in COTS:
        targets = [completion_target(row, cot) for row in rows]
        assert all(map(has_thinking_format, targets))
        longest = max(map(len, tokenizer(targets)["input_ids"]))
        options = yaml.safe_load((SETTINGS / "tiny" / f"grpo_{cot}.yaml").read_text())
        assert options["max_completion_length"] >= 256 and longest < options["max_completion_length"] / 1.5


@pytest.mark.parametrize("size", ["tiny", "qwen2_5_omni_3b_lora", "qwen2_5_omni_7b"])
def test_the_settings_of_both_chains_differ_in_the_chain_alone(size: str) -> None:
    for stage in ("sft", "grpo"):
        one, other = (yaml.safe_load((SETTINGS / size / f"{stage}_{cot}.yaml").read_text()) for cot in COTS)
        assert one.pop("base") == other.pop("base") == f"{stage}.yaml"
        told = {key for key in one if one[key] != other[key]}
        assert one.keys() == other.keys() and told <= {"cot", "output_dir", "model_name_or_path"}


@pytest.mark.check
@pytest.mark.parametrize(("cot", "taught"), [("structured", 60), ("unstructured", 42)])
def test_the_reward_of_chains_rises_in_grpo_after_sft(
    cot: str, taught: int, rows_folder: Path, thinking_folder: Path, thinking_rows: Dataset, tmp_path: Path
) -> None:
    """SFT ends while the answers are still wrong in part; then only the reward tells which chains are right."""
    source = make_tiny_lalm(tmp_path / "random", thinking_rows, width=64, layers=2)
    # All rows in both stages: the four tones have too few of them for a split
    common = {"paradigm": "single_stage"}
    learnt = {"max_steps": taught, "per_device_train_batch_size": 16, **common}
    run("sft", cot, source, tmp_path / "sft", rows_folder, thinking_folder, **learnt)
    paid = {"max_steps": 80, "per_device_train_batch_size": 32, "max_completion_length": 100, **common}
    steps = run("grpo", cot, tmp_path / "sft", tmp_path / "grpo", rows_folder, thinking_folder, **paid)
    for name in ("reward", "rewards/accuracy_reward/mean", "rewards/gated_thinking_format_reward/mean"):
        curve = [step[name] for step in steps if name in step]
        assert len(curve) == 80
        assert sum(curve[-20:]) / 20 > sum(curve[:20]) / 20 + 0.05, (name, curve)
    assert load_lalm(tmp_path / "grpo").model is not None
