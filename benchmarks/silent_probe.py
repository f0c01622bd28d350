"""The silent probe from one prefill for all questions against a prefill for each, and by likelihood against by generation.

    python benchmarks/silent_probe.py                  a small model on the CPU; one to three minutes on two idle cores
    python benchmarks/silent_probe.py --preset h200    the published 7B configuration in bf16; needs a GPU

Every question is asked under 30 s of silence, as published. "plain" runs the same code in the same batches, without sharing: the mel
of the silence is computed once per batch there too. Results go to benchmarks/results/silent_probe_<preset>.json.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from asking import SEVEN_B, Preset, asked_model, make_questions, measure, same_answers, timed, without_sharing
from floor import Peak, answer_floor, floor_seconds, measured_peak

from audiomcq.inference.controls import PUBLISHED_SILENCE_SECONDS, silence_control
from audiomcq.inference.local import Answer, answer_questions

PRESETS = {
    "smoke": Preset(4, 2, new_tokens=2, repeats=1, model=({"hidden_size": 64, "num_hidden_layers": 2}, {})),
    "cpu": Preset(128, 32),
    "h200": Preset(512, 128, model=SEVEN_B, repeats=2, device="cuda", dtype="bfloat16"),
}
PUBLISHED_ROWS, PUBLISHED_VOTERS = 571_118, 3


def run(preset: Preset, folder: Path) -> dict[str, Any]:
    """Ask the same questions in three ways."""
    rows = make_questions(folder, 1, preset.questions, (1.0, 1.0))
    with asked_model(preset, folder, rows) as (lalm, encoder):
        ask = partial(answer_questions, lalm, encoder, rows, silence_control(), batch_size=preset.batch_size)

        def plain() -> list[Answer]:
            with without_sharing():
                return ask(max_new_tokens=preset.new_tokens)

        ways = {"plain": plain, "shared": partial(ask, max_new_tokens=preset.new_tokens)}
        took, answers = timed({**ways, "likelihood": partial(ask, mode="likelihood")}, preset)
        floor = floor_of_probe(preset, lalm, encoder, rows)
    seconds, processor = took["seconds"], took["processor_seconds"]
    per_second = {way: preset.questions / median for way, median in seconds.items()}
    hours = {way: PUBLISHED_ROWS * PUBLISHED_VOTERS / rate / 3600 for way, rate in per_second.items()}
    same = same_answers(answers["plain"], answers["shared"])
    return {
        "questions": preset.questions,
        "batch_size": preset.batch_size,
        "new_tokens": preset.new_tokens,
        "silence_seconds": PUBLISHED_SILENCE_SECONDS,
        **took,
        "ratio": seconds["plain"] / seconds["shared"],
        "processor_ratio": processor["plain"] / processor["shared"],
        "likelihood_ratio": seconds["shared"] / seconds["likelihood"],
        "equal_answers": same == 1,
        "same_answers": same,
        "rows_per_second": per_second,
        "floor": floor | {"achieved_over_floor": seconds["shared"] / floor["floor_seconds"]["step"]},
        # A toy's hours would mean nothing
        **({"hours_for_the_published_probe": hours} if preset.model is SEVEN_B else {}),
    }


def floor_of_probe(preset: Preset, lalm: Any, encoder: Any, rows: list) -> dict[str, Any]:
    """The least seconds in which this machine could generate all answers."""
    silence = silence_control().load_waveform(rows[0])
    blank, *prompts = encoder([{**rows[0], "question": "", "choices": []}, *rows], [silence] * (len(rows) + 1))
    audio = lalm.processor.audio_token_id
    prefix = len(blank.input_ids) - blank.input_ids[::-1].index(audio)
    suffix = round(sum(len(prompt.input_ids) - prefix for prompt in prompts) / len(prompts))
    dtype = getattr(torch, preset.dtype)
    peak: Peak = measured_peak(preset.device, dtype)
    work = answer_floor(
        lalm.model.config,
        PUBLISHED_SILENCE_SECONDS,
        1,
        prefix,
        preset.questions,
        suffix,
        preset.new_tokens,
        dtype.itemsize,
    )
    return {"prefix_tokens": prefix, "suffix_tokens": suffix, "floor_seconds": floor_seconds(work, peak)}


if __name__ == "__main__":
    measure("silent_probe", PRESETS, run, __doc__)
