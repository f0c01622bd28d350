"""Answering a benchmark in batches against one item at a time, and four option orders per item against one.

    python benchmarks/answering.py                  a small model on the CPU; one to two minutes on two idle cores
    python benchmarks/answering.py --preset h200    the published 7B configuration in bf16; needs a GPU

One question per clip, clips of 5 to 15 s. "one at a time" is what evaluation harnesses do with Omni models: the stock processor, which
pads every mel to 300 s, and `generate` on a batch of one; "one at a time, true length" spares it the padding. Four orders are asked
in batches of as many clips as one. Results go to benchmarks/results/answering_<preset>.json.
"""

from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from asking import SEVEN_B, Preset, asked_model, make_questions, measure, same_answers, timed, without_sharing

from audiomcq.collation import PromptEncoder
from audiomcq.inference.local import Answer, answer_questions

PRESETS = {
    "smoke": Preset(4, 2, new_tokens=2, repeats=1, model=({"hidden_size": 64, "num_hidden_layers": 2}, {})),
    "cpu": Preset(64, 16, model=({"hidden_size": 128, "num_hidden_layers": 3}, {})),
    "h200": Preset(48, 48, model=SEVEN_B, repeats=2, device="cuda", dtype="bfloat16"),
}


def run(preset: Preset, folder: Path) -> dict[str, Any]:
    """Ask the same questions in four ways."""
    rows = make_questions(folder, preset.questions, 1, (5.0, 15.0))
    with asked_model(preset, folder, rows) as (lalm, encoder):
        ask = partial(answer_questions, lalm, encoder, rows, max_new_tokens=preset.new_tokens)

        def one_at_a_time() -> list[Answer]:
            with without_sharing():
                return ask(batch_size=1)

        def with_the_stock_mel() -> list[Answer]:
            with patch.object(PromptEncoder, "_audio_kwargs", lambda encoder, audios: {}):
                return one_at_a_time()

        ways = {
            "one at a time": with_the_stock_mel,
            "one at a time, true length": one_at_a_time,
            "batched": partial(ask, batch_size=preset.batch_size),
            "four orders": partial(ask, batch_size=4 * preset.batch_size, orders=["cyclic"]),
        }
        took, answers = timed(ways, preset)
    seconds = took["seconds"]
    same = same_answers(answers["one at a time"], answers["batched"])
    return {
        "questions": preset.questions,
        "clips_per_batch": preset.batch_size,
        "new_tokens": preset.new_tokens,
        **took,
        "ratio": seconds["one at a time"] / seconds["batched"],
        "ratio_at_true_length": seconds["one at a time, true length"] / seconds["batched"],
        "equal_answers": same == 1,
        "same_answers": same,
        "four_orders_cost": seconds["four orders"] / seconds["batched"],
        "items_per_second": {way: preset.questions / took for way, took in seconds.items()},
    }


if __name__ == "__main__":
    measure("answering", PRESETS, run, __doc__)
