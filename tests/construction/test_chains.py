"""The chains of thought: the published layouts, byte for byte, and what is read behind them."""

import pytest

from audiomcq.answers import has_thinking_format, parse_answer
from audiomcq.construction.chains import (
    StructuredChain,
    parse_structured_chain,
    parse_unstructured_chain,
    structured_chain,
    unstructured_chain,
)
from audiomcq.prompts import completion_target

CHOICES = ["rain", "siren", "answer", "wind"]
CAPTIONS = [
    "Rain falls on a roof.",
    'A man says: "the answer is rain", and laughs.',
    "<answer>rain</answer>",
    "the correct answer is rain.\nFinal answer: rain",
    'it rains, so the correct answer is "rain." <stage3>',
    "a <stage2> b <stage1> c",
    "</simple analysis> <answer>rain</answer>",
    "<think> rain",
    "rain, siren, answer",
    "answer",
    " padded\n\n",
    "Ｒａｉｎ “quoted” 雨",
]
REASONS = [
    "it rains, and no siren is heard",
    'the answer is "rain", not <answer>siren</answer>',
    'first I thought that the correct answer is "rain." but no',
]


def published(caption: str, reasons: str = REASONS[0], answer: str = "siren") -> str:
    return structured_chain("it asks for a sound", "sound", caption, reasons, answer)


def test_the_structured_layout_is_the_published_one() -> None:
    chain = structured_chain("{analysis}", "{t}", "{caption c_i}", "{why right, why others wrong}", "{y}")
    assert chain.split("\n") == [
        "<stage1> According to the question text, {analysis}, so the question type is {t}. <stage1>",
        "<stage2> I need to firstly analyze the audio content: {caption c_i} <stage2>",
        "<stage3> According to the audio content, {why right, why others wrong}, so the correct answer is "
        '"{y}." <stage3>',
    ]


def test_the_unstructured_layout_is_the_published_one() -> None:
    text = "This is a sound-type question asking which specific sound happens."
    assert unstructured_chain(text) == f"<simple analysis> {text} </simple analysis>"


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("reasons", REASONS)
@pytest.mark.parametrize("answer", CHOICES)
def test_a_chain_is_taken_apart_into_what_it_was_made_of(caption: str, reasons: str, answer: str) -> None:
    parts = StructuredChain("it asks for rain, so to say", "sound", caption, reasons, answer)
    assert parse_structured_chain(structured_chain(**vars(parts))) == parts
    assert parse_unstructured_chain(unstructured_chain(caption)) == caption


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("reasons", REASONS)
@pytest.mark.parametrize("gold", CHOICES[:3])
def test_only_the_tag_behind_a_chain_is_read(caption: str, reasons: str, gold: str) -> None:
    for name, chain in (
        ("structured", published(caption, reasons, "rain")),
        ("unstructured", unstructured_chain(f"{caption} {reasons}")),
    ):
        row = {"id": "1", "answer": gold, f"{name}_cot": chain}
        for completion in (completion_target(row, name), f"<|im_start|>assistant\n{completion_target(row, name)}"):
            parsed = parse_answer(completion, CHOICES)
            assert (parsed.tagged, parsed.choice) == (True, CHOICES.index(gold))
        assert has_thinking_format(completion_target(row, name))


def test_a_chain_without_an_answer_behind_it_gives_none() -> None:
    for chain in (published("Rain.", answer="rain"), unstructured_chain("It is rain. <answer>rain</answer>")):
        for end in range(len("<stage1>"), len(chain) + 1):
            if "<answer>" not in chain[:end]:  # in a chain that breaks off, a tag counts
                assert parse_answer(chain[:end], CHOICES[:2]).choice is None, chain[:end]
        assert parse_answer(chain, CHOICES[:2]).choice is None


def test_a_chain_without_its_end_does_not_hide_the_tag() -> None:
    for chain in (
        "<stage1> It asks for a sound.",
        "<stage1> a <stage1>\n<stage3> it is rain",
        "<simple analysis> rain",
    ):
        assert parse_answer(f"{chain} <answer>siren</answer>", CHOICES[:2]).choice == 1


@pytest.mark.parametrize("empty", ["analysis", "question_type", "caption", "reasons", "answer"])
def test_an_empty_part_is_refused(empty: str) -> None:
    parts = dict.fromkeys(("analysis", "question_type", "caption", "reasons", "answer"), "text")
    with pytest.raises(ValueError, match="empty or repeats the layout"):
        structured_chain(**{**parts, empty: ""})
    with pytest.raises(ValueError, match="is empty"):
        unstructured_chain(" ")


def test_a_part_that_repeats_the_layout_is_refused_instead_of_taken_apart_wrongly() -> None:
    with pytest.raises(ValueError, match="repeats the layout"):
        structured_chain(published("Rain."), "sound", "Rain.", "it rains", "rain")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It rains.",
        published("Rain.").replace("<stage1>", "<stage2>"),
        published("Rain.").rpartition(" <stage3>")[0],
        published("Rain.") + "\n<answer>siren</answer>",
        unstructured_chain("Rain."),
    ],
)
def test_other_layouts_are_no_structured_chain(text: str) -> None:
    assert parse_structured_chain(text) is None


def test_other_layouts_are_no_unstructured_chain() -> None:
    assert parse_unstructured_chain("<simple analysis> Rain.") is None
    assert parse_unstructured_chain(published("Rain.")) is None
