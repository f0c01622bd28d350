"""What surrounds a training run: bad input ends in one clear line, nothing is overwritten, stages never share rows, and what is
saved loads again without this package."""

import inspect
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from datasets import Dataset
from peft import get_peft_model
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, Trainer, TrainerCallback
from trl import ModelConfig, get_peft_config

import processes
import random_lalms
from audiomcq import grpo, sft
from audiomcq.audio import SAMPLE_RATE
from audiomcq.errors import exit_on_user_error
from audiomcq.examples import row_key
from audiomcq.models import FAMILIES, LALM, load_lalm, parameter_group
from audiomcq.options import parse_stage
from audiomcq.run import device_name
from audiomcq.run_record import RUN_FILE, check_output, check_unseen, hash_rows
from audiomcq.safe_trainer import EpochSeedCallback, SafeTrainer
from audiomcq.sft import AudioSFTTrainer
from audiomcq.trainer_setup import fit_lora
from small_runs import build, changed, sft_config, weights

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "weak_to_strong"
SMALL = {
    "per_device_train_batch_size": 4,
    "max_steps": 2,
    "learning_rate": "1e-3",
    "warmup_steps": 0,
    "use_cpu": "true",
    "disable_tqdm": "true",
}


def words(options: dict) -> list[str]:
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


def train(stage: str, rows: Path, model: Path | str, output: Path, **options) -> None:
    """What a recipe does with its tiny YAML, in this process."""
    settings = {**SMALL, "dataset": rows, "model_name_or_path": model, "output_dir": output, **options}
    if stage == "grpo":
        settings = {"num_generations": 2, "max_completion_length": 4, **settings}
    argv = ["--config", str(RECIPE / "tiny" / f"{stage}.yaml"), *words(settings)]
    with exit_on_user_error():
        {"sft": sft, "grpo": grpo}[stage].train(*parse_stage(stage, RECIPE / "unused.yaml", argv))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def own_rows(rows_folder: Path, tmp_path: Path) -> Path:
    """A copy of the rows that a test may break."""
    return Path(shutil.copytree(rows_folder, tmp_path / "own"))


def change_row(folder: Path, index: int, **changes) -> None:
    lines = (folder / "train.jsonl").read_text().splitlines()
    lines[index] = json.dumps({**json.loads(lines[index]), **changes})
    (folder / "train.jsonl").write_text("\n".join(lines))


def lose_clip(folder: Path) -> None:
    (folder / "audio" / "5.flac").unlink()


def empty_clip(folder: Path) -> None:
    (folder / "audio" / "5.flac").write_bytes(b"")


def nan_clip(folder: Path) -> None:
    soundfile.write(folder / "audio" / "5.wav", np.full(8_000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    change_row(folder, 5, audio_path="audio/5.wav")


def too_short_clip(folder: Path) -> None:
    soundfile.write(folder / "audio" / "5.flac", np.zeros(479), SAMPLE_RATE)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lose_clip, "5.flac: no such audio file; check the path and the audio root"),
        (empty_clip, "5.flac: the file is empty (0 bytes)"),
        (nan_clip, "5.wav: 8000 samples are NaN or infinite; re-export the clip"),
        (too_short_clip, "5.flac: 479 samples at 16000 Hz are too short"),
        (lambda folder: change_row(folder, 5, answer="deep"), "the answer 'deep' is not among the choices"),
        (lambda folder: change_row(folder, 5, choices=["low", "Low"], answer="low"), "duplicate choices"),
    ],
    ids=["missing clip", "empty clip", "NaN clip", "too short clip", "foreign answer", "duplicate choices"],
)
def test_a_broken_row_ends_the_run_with_one_line_that_names_it(
    own_rows: Path, model_folder: Path, tmp_path: Path, breaks, says: str
) -> None:
    breaks(own_rows)
    with pytest.raises(SystemExit) as end:
        train("sft", own_rows, model_folder, tmp_path / "out")
    line = str(end.value)
    assert line.startswith("error: 1 of 16 rows are broken")
    assert "tones 5: " in line
    assert says in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


def test_rows_to_evaluate_on_are_checked_as_strictly_as_those_to_train_on(
    own_rows: Path, model_folder: Path, tmp_path: Path
) -> None:
    lines = (own_rows / "train.jsonl").read_text().splitlines()
    (own_rows / "test.jsonl").write_text(
        "\n".join([lines[0].replace('"answer": "low"', '"answer": "deep"'), lines[1]])
    )
    options = {"eval_split": "test", "eval_strategy": "steps", "eval_steps": 2}
    with pytest.raises(SystemExit, match="1 of 2 rows are broken"):
        train("sft", own_rows, model_folder, tmp_path / "strict", **options)
    train("sft", own_rows, model_folder, tmp_path / "lenient", **options, max_bad_fraction=0.5)
    history = json.loads((tmp_path / "lenient" / "trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in entry for entry in history)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_clip_that_is_not_there_counts_as_broken_even_when_no_clip_is_decoded_first(
    own_rows: Path, model_folder: Path, tmp_path: Path, stage: str
) -> None:
    lose_clip(own_rows)
    options = {"check_audio": "false", "paradigm": "single_stage"}
    with pytest.raises(
        SystemExit, match=r"^error: 1 of 16 rows are broken, .* tones 5: \S+5.flac: no such audio file"
    ):
        train(stage, own_rows, model_folder, tmp_path / "out", **options)
    assert not (tmp_path / "out" / RUN_FILE).exists()
    train(stage, own_rows, model_folder, tmp_path / "lenient", **options, max_bad_fraction=0.1)
    assert json.loads((tmp_path / "lenient" / RUN_FILE).read_text())["rows"] == 15


@pytest.mark.parametrize("workers", [0, 1], ids=["in the process", "in a worker"])
def test_unusual_but_usable_clips_train(
    workers: int, own_rows: Path, model_folder: Path, tmp_path: Path, caplog
) -> None:
    noise = 0.1 * np.random.default_rng(0).normal(size=(SAMPLE_RATE, 2))
    for index, samples, rate, subtype in (
        (1, noise[:1600, 0], SAMPLE_RATE, "PCM_16"),  # 100 ms
        (3, noise, SAMPLE_RATE, "PCM_16"),  # stereo
        (5, noise[:, 0], 8_000, "PCM_16"),  # 8 kHz
        (7, noise[:, 0], SAMPLE_RATE, "PCM_24"),
    ):
        soundfile.write(own_rows / "audio" / f"{index}.flac", samples, rate, subtype=subtype)
    with caplog.at_level(logging.DEBUG, logger="audiomcq.audio"):
        options = {"max_audio_seconds": 1.7, "dataloader_num_workers": workers, "max_steps": 4}  # two epochs
        train("sft", own_rows, model_folder, tmp_path / "out", **options)
    assert "3.flac: 2 channels averaged to mono" in caplog.text
    assert "5.flac: resampled from 8000 Hz to 16000 Hz" in caplog.text
    assert "1.flac: only 0.10 s long" in caplog.text
    record = json.loads((tmp_path / "out" / RUN_FILE).read_text())
    assert record["finished"]
    assert record["cut_clips"] == 1  # of 5.flac's two seconds


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"learning_rat": 1}, "learning_rat"),
        (
            {"model_name_or_path": "outputs/no/such/model"},
            "model path outputs/no/such/model: neither a checkpoint folder",
        ),
        ({"dataset": "nothing.jsonl"}, "nothing.jsonl: no such file or folder of rows"),
        ({"paradigm": "strong_to_weak"}, "known are weak_to_strong"),
        ({"max_length": 512}, "set max_audio_seconds"),
        ({"dataloader_num_workers": 1, "dataloader_persistent_workers": "true"}, "workers that live on do not hear"),
        ({"cot": "unstructured"}, "8 of 8 rows have no unstructured_cot: train with cot: none"),
        ({"train_modules": "vision"}, "known: audio_tower, aligner, llm"),
        ({"resume_from_checkpoint": "true"}, "holds no run to resume; leave resume_from_checkpoint out"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_option_ends_the_run_with_one_line_and_leaves_no_trace(
    rows_folder: Path, model_folder: Path, tmp_path: Path, options: dict, says: str
) -> None:
    with pytest.raises(SystemExit) as end:
        train("sft", rows_folder, model_folder, tmp_path / "out", **options)
    assert str(end.value).startswith("error: ")
    assert says in str(end.value)
    assert not [name for name in files_of(tmp_path) if name.startswith("out/")]
    # ... so that the corrected command can be typed again as it is.


@pytest.fixture(scope="module")
def trained(rows_folder: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT stage of Mixed-to-Strong, with a checkpoint after its first step."""
    output = tmp_path_factory.mktemp("trained") / "sft"
    options = {"paradigm": "mixed_to_strong", "mixed_seed": 1, "save_strategy": "steps", "save_steps": 1}
    train("sft", rows_folder, model_folder, output, **options)
    return output


MIXED = {"paradigm": "mixed_to_strong", "mixed_seed": 1}


@pytest.mark.parametrize(
    ("resume", "says"), [(None, "delete that folder"), ("true", "leave resume_from_checkpoint out")]
)
def test_a_folder_without_a_run_says_what_to_do_with_it(tmp_path: Path, resume: str | None, says: str) -> None:
    """Such as a run leaves that ended while it was loaded, after it had saved its reference model."""
    (tmp_path / "reference_model").mkdir()
    with pytest.raises(ValueError, match=says):
        check_output(tmp_path, {}, resume)


def test_an_output_folder_that_holds_a_run_is_neither_overwritten_nor_resumed_with_other_settings(
    trained: Path, rows_folder: Path, model_folder: Path
) -> None:
    before = files_of(trained)
    saved = {**MIXED, "save_strategy": "steps", "save_steps": 1}
    for options, says in (
        (saved, "already holds another run; choose another --output_dir, or continue that run with"),
        (
            {**saved, "resume_from_checkpoint": "true", "learning_rate": "1e-4"},
            "other settings: learning_rate is 0.001 and 0.0001",
        ),
    ):
        with pytest.raises(SystemExit) as end:
            train("sft", rows_folder, model_folder, trained, **options)
        assert str(trained) in str(end.value)
        assert says in str(end.value)
    assert files_of(trained) == before


def test_a_run_whose_weights_are_lost_and_that_was_moved_ends_the_same_when_it_is_resumed(
    trained: Path, rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoint-2")
    (copy / "model.safetensors").unlink()
    options = {**MIXED, "save_strategy": "steps", "save_steps": 1, "resume_from_checkpoint": "true"}
    train("sft", rows_folder, model_folder, copy, **options)
    assert not changed(weights(load_lalm(trained).model), weights(load_lalm(copy).model))


def test_a_run_that_ended_before_its_first_checkpoint_starts_from_its_beginning(
    trained: Path, rows_folder: Path, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint-*", "*.safetensors"))
    options = {**MIXED, "save_strategy": "steps", "save_steps": 1, "resume_from_checkpoint": "true"}
    train("sft", rows_folder, model_folder, copy, **options)
    assert f"the run in {copy} ended before its first checkpoint: it starts from its beginning" in caplog.text
    assert not changed(weights(load_lalm(trained).model), weights(load_lalm(copy).model))


def test_grpo_on_rows_that_its_checkpoint_was_fine_tuned_on_is_refused(
    trained: Path, rows_folder: Path, tmp_path: Path
) -> None:
    for source in (trained, trained / "checkpoint-1"):
        with pytest.raises(SystemExit, match=r"rows were already trained on by .* mixed_seed in both stages"):
            train("grpo", rows_folder, source, tmp_path / "grpo", **{**MIXED, "mixed_seed": 3})


def test_rows_of_earlier_stages_are_handed_on_and_overlap_is_refused(
    trained: Path, rows: Dataset, tmp_path: Path
) -> None:
    seen = json.loads((trained / "trained_rows.json").read_text())
    assert len(seen) == 8
    unseen = rows.filter(lambda row: row_key(row) not in seen)
    assert check_unseen(hash_rows(unseen), trained) == seen
    assert check_unseen(hash_rows(rows), tmp_path) == {}
    with pytest.raises(ValueError, match=f"8 of 16 rows were already trained on by .*, e.g. {min(seen)}"):
        check_unseen(hash_rows(rows), trained)


LOAD_ELSEWHERE = """
import json, sys
sys.modules["audiomcq"] = None  # importing it is now an error
import torch
from transformers import AutoModelForMultimodalLM, Qwen2_5OmniThinkerForConditionalGeneration
sums = []
for folder in sys.argv[1:]:
    for kind in (Qwen2_5OmniThinkerForConditionalGeneration, AutoModelForMultimodalLM):
        model, info = kind.from_pretrained(folder, output_loading_info=True, dtype="auto")
        assert type(model) is Qwen2_5OmniThinkerForConditionalGeneration
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    sums.append({name: value.double().sum().item() for name, value in model.state_dict().items()})
print(json.dumps(sums))
"""


def test_what_sft_and_grpo_save_loads_with_no_missing_key_where_this_package_is_not_installed(
    trained: Path, rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    train("grpo", rows_folder, trained, tmp_path / "grpo", **MIXED)
    folders = [trained, trained / "checkpoint-1", tmp_path / "grpo"]
    done = processes.run([sys.executable, "-c", LOAD_ELSEWHERE, *folders])
    assert done.returncode == 0, done.stderr[-2000:]
    for folder, sums in zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True):
        state = load_lalm(folder).model.state_dict()
        assert sums == {name: value.double().sum().item() for name, value in state.items()}
        for name in ("preprocessor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
            assert (folder / name).read_bytes() == (model_folder / name).read_bytes(), f"{folder} {name}"
    assert changed(weights(load_lalm(model_folder).model), weights(load_lalm(trained).model))
    rows_of_both = json.loads((tmp_path / "grpo" / "trained_rows.json").read_text())
    assert set(rows_of_both) > set(json.loads((trained / "trained_rows.json").read_text()))


def lora_options() -> dict:
    """As the LoRA recipes have them, with their very pattern of target modules."""
    settings = yaml.safe_load((RECIPE.parent / "settings" / "qwen2_5_omni_3b_lora" / "sft.yaml").read_text())
    (pattern,) = settings["lora_target_modules"]
    return {"use_peft": "true", "lora_r": 4, "lora_target_modules": pattern, "learning_rate": "1e-2"}


def test_a_lora_run_adapts_the_language_model_alone_and_a_second_stage_builds_on_it(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    sft_folder, grpo_folder = tmp_path / "sft", tmp_path / "grpo"
    evaluated = {"eval_split": "train", "eval_strategy": "steps", "eval_steps": 1}
    train("sft", rows_folder, model_folder, sft_folder, **MIXED, **lora_options(), **evaluated)
    base, after_sft = (weights(load_lalm(folder).model) for folder in (model_folder, sft_folder))
    adapted = changed(base, after_sft)
    assert adapted
    assert all("language_model" in name and "proj" in name for name in adapted)
    train("grpo", rows_folder, sft_folder, grpo_folder, **MIXED, **lora_options(), beta=0.04)
    reference = json.loads((grpo_folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert reference == str(sft_folder)
    assert changed(base, weights(load_lalm(grpo_folder).model)) == adapted


@pytest.mark.parametrize("family", ["Qwen2.5-Omni", "Qwen3-Omni", "Qwen2-Audio"])
@pytest.mark.parametrize(
    "targets", ["all-linear", None, "gate_proj", "q_proj k_proj qkv", r".*\.(q|k|v|qkv|q_proj|linear_fc1)"]
)
def test_lora_never_adapts_what_audio_and_text_do_not_reach(family: str, targets: str | None) -> None:
    model = random_lalms.FAMILIES[family]("sdpa")
    lalm = LALM(model, None, FAMILIES[model.config.model_type], "here")
    if family == "Qwen3-Omni" and targets == "gate_proj":
        targets = "q_proj"  # its LLM has experts
    options = {"use_peft": True, "lora_target_modules": targets.split() if targets else None}
    config = fit_lora(get_peft_config(ModelConfig(**options)), lalm)
    adapted = {name for name, _ in get_peft_model(model, config).named_parameters() if "lora_" in name}
    groups = {parameter_group(name, lalm.family) for name in adapted}
    assert "unused" not in groups
    assert "llm" in groups
    assert ("audio_tower" in groups) == (targets not in (None, "gate_proj"))


def test_lora_without_targets_is_trained_and_merged(rows_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    options = {"use_peft": "true", "lora_r": 4, "learning_rate": "1e-2", "paradigm": "single_stage"}
    for name, targets in (("default", {}), ("linear", {"lora_target_modules": "all-linear"})):
        train("sft", rows_folder, model_folder, tmp_path / name, **options, **targets)
        adapted = changed(weights(load_lalm(model_folder).model), weights(load_lalm(tmp_path / name).model))
        assert adapted and not any("visual" in each for each in adapted)
        assert any("audio_tower" in each for each in adapted) == (name == "linear")


def test_lora_on_modules_that_are_not_there_ends_with_one_line(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    options = {"use_peft": "true", "lora_target_modules": "nowhere_proj", "paradigm": "single_stage"}
    with pytest.raises(SystemExit, match=r"nowhere_proj.* not found in the base model"):
        train("sft", rows_folder, model_folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_full_grpo_with_a_reference_model_starts_from_a_lora_folder(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    train("sft", rows_folder, model_folder, tmp_path / "sft", **MIXED, **lora_options())
    train("grpo", rows_folder, tmp_path / "sft", tmp_path / "grpo", **MIXED, beta=0.04, max_steps=1)
    reference = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(tmp_path / "grpo" / "reference_model")
    assert not changed(weights(load_lalm(tmp_path / "sft").model), weights(reference))


def test_the_record_of_a_run_says_what_was_trained_on_what(trained: Path) -> None:
    record = json.loads((trained / RUN_FILE).read_text())
    assert record["rows"] == sum(record["rows_by_contribution"].values()) == 8
    assert record["parameter_groups"]["unused"]["trainable"] == 0
    assert record["parameter_groups"]["llm"]["trainable"] == record["parameter_groups"]["llm"]["parameters"] > 0
    assert record["settings"]["mixed_seed"] == 1
    assert set(record["versions"]) == {"audiomcq", "torch", "transformers", "trl", "datasets", "accelerate"}


def test_a_diverged_run_is_a_process_that_fails_with_one_line_and_keeps_its_earlier_checkpoints(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    options = {
        **SMALL, "dataset": rows_folder, "model_name_or_path": model_folder, "output_dir": tmp_path / "out",
        "max_steps": 6, "learning_rate": "1e30", "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1,
        "save_strategy": "steps", "save_steps": 1,
    }  # fmt: skip
    command = [sys.executable, RECIPE / "sft.py", "--config", RECIPE / "tiny" / "sft.yaml", *words(options)]
    done = processes.run(command)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "the loss is nan at step" in lines[0]
    assert "lower learning_rate" in lines[0]
    assert "Traceback" not in done.stderr
    # Warm-up leaves the first step without an update.
    assert not changed(weights(load_lalm(model_folder).model), weights(load_lalm(tmp_path / "out/checkpoint-1").model))
    assert not json.loads((tmp_path / "out" / RUN_FILE).read_text())["finished"]
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_wrong_model_path_is_a_process_that_fails_with_one_line(rows_folder: Path, tmp_path: Path) -> None:
    options = {
        **SMALL, "dataset": rows_folder, "model_name_or_path": "./nothing", "output_dir": tmp_path / "out",
        "num_generations": 4,
    }  # fmt: skip
    command = [sys.executable, RECIPE / "grpo.py", "--config", RECIPE / "tiny" / "grpo.yaml", *words(options)]
    done = processes.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: model path ./nothing: no such folder; train or download")
    assert "Traceback" not in done.stderr


def test_the_private_methods_that_are_overridden_still_have_their_signatures() -> None:
    assert list(inspect.signature(Trainer._load_from_checkpoint).parameters) == [
        "self", "resume_from_checkpoint", "model",
    ]  # fmt: skip
    assert list(inspect.signature(Trainer._load_best_model).parameters) == ["self"]
    assert isinstance(EpochSeedCallback(None, None), TrainerCallback)
    assert AudioSFTTrainer.__mro__.index(SafeTrainer) < AudioSFTTrainer.__mro__.index(Trainer)


def test_the_best_model_at_the_end_is_the_best_and_not_the_last(
    model_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    lalm = load_lalm(model_folder)
    config = sft_config(
        tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, max_steps=3,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=True,  # so the first is best
    )  # fmt: skip
    trainer = build(AudioSFTTrainer, lalm, config, rows, rows.select(range(8)))
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == "checkpoint-1"
    assert not changed(weights(lalm.model), weights(load_lalm(best).model))


def test_a_run_records_what_it_ran_on_without_cuda_too() -> None:
    assert device_name(torch.device("cpu"))
    assert device_name(torch.device("mps")).startswith("mps (")
