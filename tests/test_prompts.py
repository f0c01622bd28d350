"""The published texts, byte for byte: whoever changes one changes every score."""

import json
from pathlib import Path

import numpy as np
import pytest

from audiomcq.prompts import (
    CONTROL_TOKENS,
    SYSTEM_PROMPT,
    answer_target,
    completion_target,
    conversation,
    question_prompt,
)

PUBLISHED_SYSTEM = (
    "You are an audio understanding model that answers multiple choice questions based on audio content."
)
PUBLISHED_USER = (
    "What is heard? Please choose the answer from the following options: ['Rain', 'A dog', 'Wind', 'A door']. "
    "Output the final answer in <answer> </answer>."
)
CHOICES = ["Rain", "A dog", "Wind", "A door"]


def test_the_prompts_are_the_published_ones():
    assert SYSTEM_PROMPT == PUBLISHED_SYSTEM
    assert question_prompt("What is heard?", CHOICES) == PUBLISHED_USER


@pytest.mark.parametrize(
    ("choices", "literal"),
    [
        (["it's", 'a "b"'], """["it's", 'a "b"']"""),
        (["a\nb", "c\\d"], r"['a\nb', 'c\\d']"),
        (["{question}", "{0}"], "['{question}', '{0}']"),
        (["日本", "café"], "['日本', 'café']"),
        (("Rain", "Wind"), "['Rain', 'Wind']"),
        (np.array(["Rain", "Wind"]), "['Rain', 'Wind']"),
    ],
)
def test_options_are_written_as_a_python_list_literal(choices, literal):
    assert f"following options: {literal}. Output" in question_prompt("What {is} heard?", choices)
    assert question_prompt("What {is} heard?", choices).startswith("What {is} heard? Please")


def test_the_conversation_puts_the_audio_before_the_question():
    assert conversation("What is heard?", CHOICES, "clip.wav") == [
        {"role": "system", "content": [{"type": "text", "text": PUBLISHED_SYSTEM}]},
        {
            "role": "user",
            "content": [{"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": PUBLISHED_USER}],
        },
    ]


def test_a_waveform_of_silence_is_not_mistaken_for_no_audio():
    silence = np.zeros(480, dtype=np.float32)
    assert conversation("What?", CHOICES, silence)[1]["content"][0]["audio"] is silence


def test_no_audio_leaves_the_audio_part_out():
    assert [part["type"] for part in conversation("What?", CHOICES, None)[1]["content"]] == ["text"]


def test_the_target_is_the_tagged_answer():
    assert answer_target("Rain") == "<answer>Rain</answer>"
    assert completion_target({"answer": "Rain"}) == "<answer>Rain</answer>"


@pytest.mark.parametrize("cot", ["structured", "unstructured"])
def test_a_chain_of_thought_comes_before_the_answer(cot):
    row = {"id": "7", "answer": "Rain", f"{cot}_cot": "It is wet."}
    assert completion_target(row, cot) == "It is wet.\n<answer>Rain</answer>"


@pytest.mark.parametrize("row", [{"id": "7"}, {"id": "7", "structured_cot": None}, {"id": "7", "structured_cot": ""}])
def test_a_row_without_the_asked_chain_of_thought_is_named(row):
    with pytest.raises(ValueError, match="'7' has no structured_cot"):
        completion_target(row | {"answer": "Rain"}, "structured")


OMNI = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|AUDIO|>", "<|IMAGE|>", "<|VIDEO|>", "<|audio_bos|>", "<|audio_eos|>",
        "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|object_ref_start|>", "<|box_end|>", "<|fim_prefix|>", "<|repo_name|>",
        "<tool_call>", "</tool_call>")  # fmt: skip
OMNI3 = ("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<|image_pad|>", "<|video_pad|>", "<think>", "</think>", "<tool_response>",
         "<tts_pad>", "<tts_text_bos>", "<tts_text_bos_single>")  # fmt: skip
AUDIO = ("<|en|>", "<|0.00|>", "<|startoftranscript|>", "<|unknown|>", "<|extra_0|>")
FLAMINGO = ("<sound>", "<|sound_bos|>", "<|sound_eos|>")


@pytest.mark.parametrize("token", [*OMNI, *OMNI3, *AUDIO, *FLAMINGO, "<audio>", "<image>"])
def test_control_tokens_of_all_families_are_known(token):
    assert CONTROL_TOKENS.search(f"What {token} is heard?")[0] == token


def test_control_tokens_of_a_real_tokenizer_are_known(lalm):
    tokens = [token.content for token in lalm.tokenizer.added_tokens_decoder.values()]
    assert "<|AUDIO|>" in tokens and all(CONTROL_TOKENS.fullmatch(token) for token in tokens)
    kept = Path(__file__).parents[2] / "shared" / "data" / "qwen2_tokenizer" / "tokenizer_config.json"
    if kept.is_file():
        added = json.loads(kept.read_text())["added_tokens_decoder"].values()
        assert all(CONTROL_TOKENS.fullmatch(token["content"]) for token in added)


@pytest.mark.parametrize(
    "text",
    ["a < b > c", "<b>bold</b>", "x <= |y|", "<|", "<answer>", "the <sounds> of it", "<| a pipe |>", "C<sharp>"],
)
def test_texts_that_only_look_like_them_are_none(text):
    assert CONTROL_TOKENS.search(text) is None
