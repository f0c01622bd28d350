"""Start stock TRL's GRPO on text-only prompts with as many tokens as the other programs' have: `start_trl.py SETTINGS`."""

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from fixed_rewards import REWARDS
from trl import GRPOConfig, GRPOTrainer

from audiomcq.models import load_lalm
from audiomcq.prompts import PLAIN_STYLE, conversation


def write_prompt(tokenizer: Any, length: int, index: int) -> list[dict[str, Any]]:
    """Return a conversation of exactly `length` tokens in the tokenizer's chat template."""
    text = f"part {index:04d}"
    while True:
        messages = conversation(text, [], None, PLAIN_STYLE)
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        if len(ids) >= length:
            return messages
        text += " sound"


def main(settings: dict[str, Any]) -> None:
    """Train on the prompts."""
    # The thinker by itself: TRL loads the reference by the model's name, as one of the classes that generate
    thinker = Path(settings["options"]["output_dir"]) / "thinker"
    whole = load_lalm(settings["model"])
    whole.model.save_pretrained(thinker)
    whole.processor.save_pretrained(thinker)
    lalm = load_lalm(thinker)
    options = settings["options"]
    length = settings["prompt_tokens"]
    prompts = [{"prompt": write_prompt(lalm.tokenizer, length, index)} for index in range(options["max_steps"])]
    trainer = GRPOTrainer(
        model=lalm.model,
        reward_funcs=list(REWARDS.values()),
        args=GRPOConfig(**options),
        train_dataset=Dataset.from_list(prompts),
        processing_class=lalm.tokenizer,
    )
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
