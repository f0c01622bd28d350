"""GRPO with audio: every forward of a training step against single-sample, unpadded forwards of the same rows."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from audiomcq.collation import audio_batch
from audiomcq.configs import AudioGRPOConfig
from audiomcq.grpo import AudioGRPOTrainer
from audiomcq.models import load_lalm

LORA = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)


def grpo_config(folder: Path, **options) -> AudioGRPOConfig:
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return AudioGRPOConfig(**{**settings, **options})


class CheckedTrainer(AudioGRPOTrainer):
    """Recomputes every log-prob alone and unpadded, and notes the largest difference per kind of forward."""

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        prompts = list(self._prompts)
        result = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        for index, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            kept = ids[mask.bool()][None]
            with torch.no_grad():
                logits = (
                    model(input_ids=kept, **audio_batch([prompts[index * len(prompts) // len(input_ids)]])).logits[0]
                    / self.temperature
                )
            completion = int(mask[-logits_to_keep:].sum())
            alone = logits[:-1].log_softmax(-1).gather(1, kept[0, 1:, None])[-completion:, 0]
            padded = result[0][index][mask[-logits_to_keep:].bool()]
            self.largest_difference = max(
                getattr(self, "largest_difference", 0.0), float((padded.detach() - alone).abs().max())
            )
        self.forwards = getattr(self, "forwards", 0) + 1
        return result


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize(
    ("options", "peft_config", "forwards"),
    [
        ({}, None, 2),
        ({"beta": 0.04}, None, 4),
        ({"beta": 0.04}, LORA, 4),
        ({"num_iterations": 2, "steps_per_generation": 2, "max_steps": 4, "beta": 0.04}, None, 6),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, None, 4),
    ],
    ids=["beta 0", "beta > 0 with a reference model", "beta > 0 with LoRA", "num_iterations 2", "accumulation 2"],
)
def test_log_probs_of_every_forward_equal_those_of_each_sample_alone(
    model_folder: Path,
    rows: Dataset,
    tmp_path: Path,
    options: dict,
    peft_config: LoraConfig | None,
    forwards: int,
    shared_prefix: bool,
) -> None:
    trainer = CheckedTrainer(
        load_lalm(model_folder),
        grpo_config(tmp_path, shared_prefix=shared_prefix, **options),
        rows,
        peft_config=peft_config,
    )
    trainer.train()
    assert trainer.shares_prefix == shared_prefix
    assert trainer.forwards >= forwards
    assert trainer.largest_difference < 1e-5
