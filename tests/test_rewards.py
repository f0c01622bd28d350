"""The rewards: every public way of being paid for a wrong answer pays nothing here."""

import pytest

from audiomcq.prompts import completion_target
from audiomcq.rewards import (
    REWARDS,
    accuracy_reward,
    completion_text,
    format_reward,
    gated_format_reward,
    gated_thinking_format_reward,
)

CHOICES = ["Man", "Woman", "Child", "Dog"]
ROWS = [
    ("rain", ["rain", "wind"]),
    ("C# minor", ["C minor", "C# minor", "Cb minor", "c minor 7"]),
    ("C", ["C#", "C", "D", "E"]),
    ("B", ["A", "C", "B", "D"]),
    ("A", ["B", "C", "D", "A"]),
    ("-10 dB", ["10 dB", "-10 dB"]),
    ("1.5 s", ["15 s", "1.5 s"]),
    ("3/4", ["34", "3/4"]),
    ("A man", ["A man", "man", "A woman", "woman"]),
    ("B. wind", ["A. rain", "B. wind"]),
    ("A. rain", ["B. wind", "A. rain"]),
    ("B. rain", ["rain", "B. rain"]),
    ("Piano, Guitar", ["Guitar, Piano", "Piano, Guitar"]),
    ("Yes!", ["Yes", "Yes!", "Yes.", '"Yes"']),
    ("...", ["...", "!"]),
    ('"', ['"', "'"]),
    (" padded ", ["plain", " padded "]),
    ("two\nlines", ["two\nlines", "one line"]),
    ("Ｃａｆé", ["Ｃａｆé", "tea"]),
    ("5 > 4 & 3 < 4", ["5 > 4 & 3 < 4", "{x}"]),
    ("{x}", ["5 > 4", "{x}"]),
    ("twice", ["twice", "twice", "once"]),
    ("24.4s", ["21.2s", "24.4s", "27.9s", "18.6s"]),
]


def pay(completion, choices=CHOICES, gold="Man", reward=accuracy_reward):
    return reward([completion], choices=[choices], answer=[gold])[0]


@pytest.mark.parametrize(("gold", "choices"), ROWS)
@pytest.mark.parametrize("cot", ["none", "structured", "unstructured"])
def test_what_the_model_is_trained_to_write_is_paid_in_full(gold, choices, cot):
    thought = "Is it a dog? Or no: listen."
    row = {"id": "1", "answer": gold, "structured_cot": thought, "unstructured_cot": thought}
    assert pay(completion_target(row, cot), choices, gold) == 1.0


@pytest.mark.parametrize(("gold", "choices"), ROWS)
def test_what_names_another_option_is_never_paid(gold, choices):
    for wrong in set(choices) - {gold}:
        assert pay(completion_target({"answer": wrong}), choices, gold) == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "Man",
        "The answer is Man",
        "",
        "<answer></answer>",
        "<answer> </answer>",
        "<answer>a woman</answer>",
        "<answer>Man, Woman, Child, Dog</answer>",
        "<answer>A B C D</answer>",
        f"<answer>{CHOICES}</answer>",
        "<answer>Man</answer><answer>Dog</answer>",
        "<answer>Man",
        "Man</answer>",
    ],
)
def test_known_reward_hacks_are_not_paid(completion):
    assert pay(completion) == 0.0
    assert pay(completion, reward=gated_format_reward) == 0.0


def test_the_format_is_paid_whether_the_answer_is_right_or_not_but_the_gated_one_is_not():
    completions = ["<answer>Man</answer>", "<answer>Dog</answer>", "So: <answer>Man</answer>", "Man"]
    columns = {"choices": [CHOICES] * 4, "answer": ["Man"] * 4}
    assert accuracy_reward(completions, **columns) == [1.0, 0.0, 1.0, 0.0]
    assert format_reward(completions, **columns) == [1.0, 1.0, 0.0, 0.0]
    assert gated_format_reward(completions, **columns) == [1.0, 0.0, 0.0, 0.0]


STRUCTURED = (
    "<stage1> According to the question text, it asks who speaks, so the question type is speech. <stage1>\n"
    "<stage2> I need to firstly analyze the audio content: a dog barks. <stage2>\n"
    '<stage3> According to the audio content, it is a dog, so the correct answer is "Dog." <stage3>'
)
SIMPLE = "<simple analysis> The answer is Dog. </simple analysis>"


@pytest.mark.parametrize("thought", [STRUCTURED, SIMPLE, "<think>Dog? No.</think>"])
def test_a_chain_before_a_right_answer_is_paid_whatever_it_says_and_before_a_wrong_one_nothing_is(thought):
    right, wrong = (f"{thought}\n<answer>{answer}</answer>" for answer in ("Man", "Dog"))
    assert (pay(right), pay(right, reward=gated_thinking_format_reward)) == (1.0, 1.0)
    assert (pay(wrong), pay(wrong, reward=gated_thinking_format_reward)) == (0.0, 0.0)
    assert pay(right, reward=format_reward) == 0.0  # the published rule begins with the tag


@pytest.mark.parametrize(
    "completion",
    [
        "<answer>Man</answer>",
        "So: <answer>Man</answer>",
        "<simple analysis> </simple analysis> <answer>Man</answer>",
        "<stage1> <stage1> <stage2> <stage2> <stage3> <stage3> <answer>Man</answer>",
        "<think></think><answer>Man</answer>",
        SIMPLE,
        f"{SIMPLE} Man",
        f"{SIMPLE} so <answer>Man</answer>",
        f"{SIMPLE} <answer>Man</answer> done",
        f"{SIMPLE} <answer>Man</answer><answer>Man</answer>",
        f"{STRUCTURED.replace('<stage2>', '<stage3>')} <answer>Man</answer>",
        f"{STRUCTURED.rpartition('<stage3>')[0]} <answer>Man</answer>",
        f"<answer>Man</answer> {SIMPLE}",
        f"well {SIMPLE} <answer>Man</answer>",
    ],
)
def test_what_is_not_a_chain_and_then_one_answer_gets_no_reward_for_thinking(completion):
    assert pay(completion, reward=gated_thinking_format_reward) == 0.0


def test_completions_keep_their_own_row():
    completions = ["<answer>rain</answer>"] * 2
    choices = [["rain", "wind"], ["wind", "rain"]]
    assert accuracy_reward(completions, choices=choices, answer=["rain", "wind"]) == [1.0, 0.0]


def test_a_column_that_is_too_short_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        accuracy_reward(["<answer>Man</answer>"] * 2, choices=[CHOICES], answer=["Man"])


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "one"}], "one"),
        ([{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}], "two"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "ab"),
        ([{"role": "assistant", "content": None}], ""),
    ],
)
def test_completions_come_as_strings_or_as_messages(completion, text):
    assert completion_text(completion) == text


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_every_reward_takes_what_the_trainer_hands_over(name):
    """TRL passes prompts, completions, completion_ids, the trainer state and every column of the data set."""
    thought = SIMPLE if "thinking" in name else ""
    paid = REWARDS[name](
        prompts=["?"],
        completions=[[{"role": "assistant", "content": f"{thought}<answer>Man</answer>"}]],
        completion_ids=[[1, 2]],
        choices=[CHOICES],
        answer=["Man"],
        question=["Who?"],
        trainer_state=None,
    )
    assert paid == [1.0]
    assert all(type(value) is float for value in paid)
