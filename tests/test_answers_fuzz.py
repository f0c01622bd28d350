"""Completions put together at random: never an error, never an option that nobody would call the answer."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from answer_templates import ANSWERS, NO_ANSWERS
from audiomcq.answers import HOW, normalize, parse_answer

FEW = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=5_000)

POOLS = (
    ["rain", "siren", "dog", "cat", "thunder", "church bell"],
    ["Happy", "Sad", "Angry", "Neutral", "Surprised"],
    ["a man", "a woman", "a child", "two women"],
    ["10 dB", "-10 dB", "1.5 s", "15 s", "20 Hz"],
    ["from left to right", "from right to left", "from far to near"],
    ["Piano", "Guitar", "Drums, Bass", "Violin"],
    ["Speaker A", "Speaker B", "Both", "Neither"],
    ["警笛声", "雨声", "狗叫声", "汽车声"],
    ["Sirene", "Regen", "Hund", "Katze"],
)
ASKED = st.sampled_from(("text", "letter", "either"))
FRAMES = (
    "{}",
    "  {}\n",
    "{}<|im_end|>",
    "{}</s>",
    "\ufeff{}",
    "<think>\nIt could be any of them: {other}?\n</think>\n\n{}",
    "<thinking>The answer is {other}.</thinking>{}",
    "The answer is {other}.</think>\n{}",
    "<|channel|>analysis<|message|>{other}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "<|im_start|>assistant\n{}<|im_end|>\n<|im_start|>user\n{other}",
)
PIECES = (
    *("<answer>", "</answer>", "<think>", "</think>", "\\boxed{", "}", '{"answer": "', '"}', "The answer is ", "Answer: ", "答案是"),
    *("Final answer: ", "So ", "not ", "or ", "and ", "maybe ", "Wait, no, ", "? ", ". ", ", ", "\n", "\n\n", "**", '"', "(", ")", "option "),
    *("is correct", " is wrong", "because ", "I hear ", "It is ", "None of the above", "I cannot tell", "<|im_end|>", "\u200b", "。", " "),
)  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> list[str]:
    pool = draw(st.sampled_from(POOLS))
    return draw(st.permutations(pool))[: draw(st.integers(2, len(pool)))]


@st.composite
def framed(draw: st.DrawFn, templates: list[str]) -> tuple[str, list[str], int]:
    """A completion in a frame that changes nothing, its options, and the option that stands first in it."""
    choices = draw(questions())
    a, b = draw(st.permutations(range(len(choices))))[:2]
    letters = string.ascii_uppercase
    blanks = {"a": choices[a], "b": choices[b], "LA": letters[a], "LB": letters[b], "L": letters[a]}
    text = draw(st.sampled_from(templates)).replace("\\n", "\n").format(**blanks)
    frame = draw(st.sampled_from(FRAMES)).replace("{other}", choices[b])
    return frame.replace("{}", text), choices, a


def reads_no_other_option(case: tuple[str, list[str], int], asked_for: str) -> None:
    completion, choices, meant = case
    assert parse_answer(completion, choices, asked_for).choice in (meant, None), completion


def reads_nothing(case: tuple[str, list[str], int], asked_for: str) -> None:
    completion, choices, _ = case
    assert parse_answer(completion, choices, asked_for).choice is None, completion


def reads_only_what_is_said(pieces: list[str], choices: list[str], picks: list[int], asked_for: str) -> None:
    """Whatever stands in a completion: no error, and an option that is read stands there, by its words or its letter."""
    words = [*PIECES, *choices, *string.ascii_uppercase[: len(choices)]]
    completion = "".join(pieces) + "".join(words[pick % len(words)] for pick in picks)
    parsed = parse_answer(completion, choices, asked_for)
    assert parsed.how in HOW
    assert (parsed.choice is None) == (parsed.how in ("abstained", "unreadable"))
    if parsed.choice is not None:
        option = normalize(choices[parsed.choice]).removeprefix("a ")
        said = normalize(completion)
        assert option in said or string.ascii_lowercase[parsed.choice] in said, completion


def reads_the_same_option_in_any_order(case: tuple[str, list[str], int], choices_again: list[int]) -> None:
    """A text without letters names an option by its words, wherever that one stands."""
    completion, choices, _ = case
    order = sorted(range(len(choices)), key=lambda place: choices_again[place % len(choices_again)])
    shuffled = [choices[place] for place in order]
    one, other = (parse_answer(completion, shown, "text").choice for shown in (choices, shuffled))
    assert one is None or other is None or choices[one] == shuffled[other], completion


WITHOUT_LETTERS = [template for template in (*ANSWERS, *NO_ANSWERS) if "{L" not in template]
NOISE = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12)
PICKS = st.lists(st.integers(0, 200), max_size=12)


@FEW
@given(framed(ANSWERS), ASKED)
def test_an_answer_is_never_read_as_another_option(case: tuple[str, list[str], int], asked_for: str) -> None:
    reads_no_other_option(case, asked_for)


@FEW
@given(framed(NO_ANSWERS), ASKED)
def test_what_is_no_answer_is_not_read_in_any_frame(case: tuple[str, list[str], int], asked_for: str) -> None:
    reads_nothing(case, asked_for)


@FEW
@given(NOISE, questions(), PICKS, ASKED)
def test_nothing_is_read_that_does_not_stand_there(
    pieces: list[str], choices: list[str], picks: list[int], asked_for: str
) -> None:
    reads_only_what_is_said(pieces, choices, picks, asked_for)


@FEW
@given(framed(WITHOUT_LETTERS), st.lists(st.integers(), min_size=6, max_size=6))
def test_words_name_the_same_option_wherever_it_stands(case: tuple[str, list[str], int], places: list[int]) -> None:
    reads_the_same_option_in_any_order(case, places)


@pytest.mark.check
@MANY
@given(
    st.one_of(framed(ANSWERS).map(lambda case: (case, True)), framed(NO_ANSWERS).map(lambda case: (case, False))),
    ASKED,
)
def test_of_five_thousand_completions_none_is_read_as_what_it_is_not(
    case: tuple[tuple[str, list[str], int], bool], asked_for: str
) -> None:
    (reads_no_other_option if case[1] else reads_nothing)(case[0], asked_for)


@pytest.mark.check
@MANY
@given(NOISE, questions(), PICKS, ASKED)
def test_of_five_thousand_random_completions_none_is_an_error(
    pieces: list[str], choices: list[str], picks: list[int], asked_for: str
) -> None:
    reads_only_what_is_said(pieces, choices, picks, asked_for)
