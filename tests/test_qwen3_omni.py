"""The shipped settings for Qwen3-Omni-30B-A3B train a tiny random model of its classes, and leave adapters for anybody's PEFT."""

import json
import runpy
from pathlib import Path

import pytest
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from audiomcq.models import load_lalm
from small_runs import changed, weights
from voters import write_voter

RECIPE = Path(__file__).parents[1] / "recipes" / "weak_to_strong"


def train(stage: str, model: Path, rows: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage by the settings as they are shipped, but for model, data, steps and device."""
    words = ["--config", RECIPE / "qwen3_omni_30b_lora" / f"{stage}.yaml", "--model_name_or_path", model]
    words += ["--dataset", rows, "--audio_root", rows, "--output_dir", output]
    words += ["--max_steps", "2", "--use_cpu", "true"]
    monkeypatch.setattr("sys.argv", [f"{stage}.py", *map(str, words)])
    runpy.run_path(str(RECIPE / f"{stage}.py"), run_name="__main__")
    assert json.loads((output / "run.json").read_text())["finished"]


def test_the_settings_for_30b_train_an_adapter_of_the_attention_in_both_stages_that_stock_peft_loads(
    rows: Dataset, rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinker = write_voter(tmp_path / "thinker", "Qwen3OmniMoeThinkerForConditionalGeneration", rows)
    base = weights(load_lalm(thinker).model)
    attention = {name for name in base if "language_model" in name and "_proj.weight" in name}
    model, stages = thinker, [tmp_path / "sft", tmp_path / "grpo"]
    for output in stages:
        train(output.name, model, rows_folder, output, monkeypatch)
        tensors = load_file(output / "adapter_model.safetensors")
        assert len(tensors) == 2 * len(attention) == 2 * 2 * 4, "four projections in each of two layers"
        # Two steps of GRPO need not change anything: rollouts of a random model may all earn the same
        assert changed(base, weights(load_lalm(output).model)) == attention
        model = output

    stock = Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(thinker)
    for output in stages:
        stock = PeftModel.from_pretrained(stock, output).merge_and_unload()
        assert not changed(weights(load_lalm(output).model), weights(stock))
