"""The official rules agree with a second reading of their descriptions, defects included; the strict rule has none of them."""

import random
import re
from collections.abc import Callable, Sequence

import pytest

from audiomcq.answers import is_correct, parse_answer
from audiomcq.evaluation.items import load_benchmark
from audiomcq.evaluation.official import (
    ambiguous_items,
    items_with_repeated_options,
    letter_rule,
    official_score,
    printed_option_rule,
    same_text_rule,
    strip_prefix,
    submit_letter,
    submit_option,
    token_set_rule,
    unprefixed_option_rule,
)
from audiomcq.examples import Row, row_key
from benchmark_files import MMAR_SAMPLE, MMAU_SAMPLE, ODD

CASES_PER_RULE = 4000
TEMPLATES = (
    "{}",
    "<answer>{}</answer>",
    "<answer> {} </answer> ",
    "A. {}",
    "(b) {}",
    "c) {}",
    "The answer is {}",
    "The answer is {}.",
    "'{}'",
    "{}.",
    "{} or {}",
    "not {}",
    "{}\n{}",
    "  {}\n",
)
NOISE = (
    "",
    "a",
    "the",
    "Ａ",
    "é",
    "ﬁre",
    "日本",
    "ß",
    "_",
    "\u00a0",
    "\n",
    "<answer>",
    "</answer>",
    "!",
    "±",
    "C#",
    "None",
    "B",
    "b",
)
BARE = (
    "A",
    "B.",
    "(B)",
    "b",
    "**B**",
    "D",
    "E",
    "",
    " ",
    "None",
    "\n",
    "\nA",
    "AB",
    "Cough",
    "And so B.",
    "A\n.",
    "é",
    "B\u00a0",
)

Item = tuple[list[str], str]


def item(choices: list[str], answer: str, key: str = "q") -> Row:
    return {
        "id": key,
        "source_dataset": "b",
        "question_type": "sound",
        "choices": choices,
        "answer": answer,
        "groups": {},
    }


def random_items(rng: random.Random) -> list[Item]:
    """The odd shapes, permutations of one option, and random options of 2 to 8 words."""
    words = [
        "From",
        "far",
        "to",
        "near",
        "high",
        "low",
        "A",
        "the",
        "C#",
        "C",
        "10",
        "-10",
        "1.5",
        "15",
        "日本",
        "Été",
        "été",
        "x_y",
    ]
    drawn = [[" ".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(rng.randint(2, 8))] for _ in range(60)]
    orders = [
        ["high-low-medium", "low-high-medium", "medium-low-high", "high-medium-low"],
        ["A. x", "B. y", "A. Smith", "Smith"],
    ]
    return [(options, answer) for options, answer, _ in ODD] + [(c, rng.choice(c)) for c in drawn + orders]


def predictions(rng: random.Random, items: Sequence[Item]) -> list[tuple[str, list[str], str]]:
    """Texts of every kind with the item that they answer: options in templates, their words reordered, letters, noise."""
    cases = []
    for _ in range(CASES_PER_RULE):
        choices, answer = rng.choice(items)
        kind = rng.randrange(4)
        if kind == 0:
            text = rng.choice(TEMPLATES)
            while "{}" in text:
                text = text.replace("{}", rng.choice(choices), 1)
        elif kind == 1:
            words = rng.choice(choices).split() or [""]
            text = " ".join(rng.sample(words, len(words)) + rng.choices(words, k=rng.randrange(2)))
        elif kind == 2:
            text = rng.choice(BARE)
        else:
            words = [word for choice in choices for word in choice.split()] + list(NOISE)
            text = " ".join(rng.choices(words, k=rng.randint(0, 6)))
        cases.append((text, choices, answer))
    return cases


def word_list(text: str) -> list[str]:
    """Maximal runs of letters, digits and underscores, one character at a time."""
    runs = [""]
    for character in text.lower():
        if character.isalnum() or character == "_":
            runs[-1] += character
        elif runs[-1]:
            runs.append("")
    return [run for run in runs if run]


def token_set_oracle(text: str, choices: list[str], answer: str) -> bool:
    said, gold = word_list(text), word_list(answer)
    if not said or any(word not in said for word in gold):
        return False
    others = [choice for choice in choices if sorted(set(word_list(choice))) != sorted(set(gold))]
    return not [w for choice in others for w in word_list(choice) if w not in gold and w in said]


def letter_oracle(text: str, choices: list[str], answer: str) -> bool | None:
    reply = "".join(text.strip().split("\n"))
    if reply in {"None", ""}:
        return False
    found = re.match(r"([ABCD])", reply) or re.search(r"([ABCD]).\Z", reply, flags=re.DOTALL)
    if not found:
        return None
    return dict(zip("ABCD", choices, strict=False)).get(found[1]) == answer


def without_letter(option: str) -> str:
    text = option.strip()
    if (
        len(text) > 3
        and text[0] == "("
        and text[2] == ")"
        and text[1] in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    ):
        return text[3:].strip()
    if len(text) > 2 and text[0].isascii() and text[0].isalpha() and text[1] in ".):" and text[2].isspace():
        return text[2:].strip()
    return text


def unprefixed_oracle(text: str, choices: list[str], answer: str) -> bool:
    for of_text, of_options in (
        (str.strip, str.strip),
        (without_letter, str.strip),
        (str.strip, without_letter),
        (without_letter,) * 2,
    ):
        for choice in choices:
            if of_options(choice) == of_text(text):
                return choice == answer
    return False


ORACLES: dict[Callable, Callable] = {
    token_set_rule: token_set_oracle,
    letter_rule: letter_oracle,
    printed_option_rule: lambda text, choices, answer: answer.strip() in {text.strip()},
    unprefixed_option_rule: unprefixed_oracle,
    same_text_rule: lambda text, choices, answer: text.lower().strip() == answer.lower().strip(),
}


@pytest.mark.parametrize("rule", ORACLES, ids=lambda rule: rule.__name__)
def test_a_rule_and_a_second_reading_of_its_description_agree_on_thousands_of_predictions(rule: Callable) -> None:
    rng = random.Random(rule.__name__)
    cases = predictions(rng, random_items(rng))
    verdicts = [rule(*case) for case in cases]
    assert verdicts == [ORACLES[rule](*case) for case in cases]
    expected = {True, False, None} if rule is letter_rule else {True, False}
    assert set(verdicts) == expected and min(verdicts.count(verdict) for verdict in expected) > 100


@pytest.mark.parametrize("file, name", [(MMAU_SAMPLE, "mmau-test-mini"), (MMAR_SAMPLE, "mmar")], ids=["mmau", "mmar"])
def test_the_rules_agree_on_the_real_items_too(file, name: str) -> None:
    if not file.is_file():
        pytest.skip("the samples of the benchmarks are not here")
    rows = load_benchmark(name, file, check_audio=False).rows
    rng = random.Random(0)
    cases = predictions(rng, [(row["choices"], row["answer"]) for row in rows])
    assert len(rows) == 40
    for rule, oracle in ORACLES.items():
        assert [rule(*case) for case in cases] == [oracle(*case) for case in cases]


@pytest.mark.parametrize(
    ("text", "choices", "answer", "right"),
    [
        ("Tunnel", ["Tunnel", "In the open", "Bridge"], "Tunnel", True),
        ("the tunnel", ["Tunnel", "In the open", "Bridge"], "Tunnel", False),
        ("A tunnel, surely", ["Tunnel", "In the open", "Bridge"], "Tunnel", True),
        ("Tunnel or Bridge", ["Tunnel", "In the open", "Bridge"], "Tunnel", False),
        ("", ["±", "Bridge"], "±", False),
        ("A", ["Tunnel", "Bridge"], "Tunnel", False),
        (
            "first: frustration, second: neutral",
            ["first: neutral, second: frustration", "x"],
            "first: neutral, second: frustration",
            True,
        ),
        ("far far near from to near", ["From near to far", "From far to near"], "From far to near", True),
        ("nine", ["four", "nine", "fourteen", "fourteen"], "nine", True),
        ("C", ["C#", "D"], "C#", True),
        ("<answer>Sharp</answer>", ["Sharp", "The answer"], "Sharp", False),
    ],
)
def test_the_token_set_rule_by_hand(text: str, choices: list[str], answer: str, right: bool) -> None:
    assert token_set_rule(text, choices, answer) is right


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("B", True),
        ("B.", True),
        ("(B)", True),
        ("The answer is B.", True),
        ("<answer>B</answer>", None),
        ("The answer is B", None),
        ("b", None),
        ("**B**", None),
        ("wind", None),
        ("Answer: B", False),
        ("And so B.", False),
        ("Because of the hum the answer is C.", True),
        ("Clearly the answer is B.", False),
        ("", False),
        ("None", False),
        ("so B\n.", True),
        ("\nB\n", True),
    ],
)
def test_the_letter_rule_by_hand_where_b_is_right(text: str, verdict: bool | None) -> None:
    assert letter_rule(text, ["rain", "wind", "a dog", "a door"], "wind") is verdict


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("wind", True),
        ("B. wind", True),
        ("(b) wind", True),
        ("(B)wind", True),
        ("b) wind ", True),
        ("Wind", False),
        ("wind.", False),
        ("B", False),
        ("", False),
        ("rain", False),
    ],
)
def test_the_rule_of_dcase_2026_by_hand(text: str, right: bool) -> None:
    assert unprefixed_option_rule(text, ["rain", "wind"], "wind") is right


def test_an_option_that_looks_prefixed_keeps_its_name() -> None:
    names = ["Smith", "A. Smith", "B. Smith"]
    assert unprefixed_option_rule("A. Smith", names, "A. Smith") and not unprefixed_option_rule(
        "Smith", names, "A. Smith"
    )
    assert strip_prefix("e.g. rain") == "e.g. rain" and strip_prefix("0.242") == "0.242" and strip_prefix("A") == "A"


def test_dcase_2025_asks_for_the_option_as_printed() -> None:
    said = (" B. wind\n", "wind", "B")
    assert [printed_option_rule(text, ["A. rain", "B. wind"], "B. wind") for text in said] == [True, False, False]


def test_the_token_set_rule_accepts_wrong_options_that_the_strict_one_does_not() -> None:
    choices, gold = ["From near to far", "From far to near", "Remain the same"], "From far to near"
    found = ambiguous_items([item(choices, gold), item(["rain", "wind"], "rain", "r")], token_set_rule)
    assert [(bad.row_key, bad.accepted) for bad in found] == [("sound_b_q", ("From near to far",))]
    assert not is_correct(parse_answer("From near to far", choices), choices, gold)
    assert is_correct(parse_answer("<answer>from far to near</answer>", choices), choices, gold)


def test_the_letter_rule_loses_items_that_the_strict_denominator_keeps() -> None:
    rows = [item(["rain", "wind"], "wind", str(index)) for index in range(4)]
    said = ["B", "<answer>B</answer>", "wind", "A"]
    score = official_score(letter_rule, rows, dict(zip(map(row_key, rows), said, strict=True)))
    assert (score.n_total, score.n_scored, score.n_correct, score.accuracy) == (4, 2, 1, 0.5)
    parsed = [parse_answer(text, ["rain", "wind"]) for text in said]
    strict = [is_correct(answer, ["rain", "wind"], "wind") for answer in parsed]
    assert strict == [True, True, True, False]


def test_letters_are_read_out_of_words_by_the_letter_rule_alone() -> None:
    choices = ["a dog", "Australia", "Cough", "rain"]
    for word, gold in (("Australia", "a dog"), ("Cough drops", "Cough")):
        assert letter_rule(word, choices, gold) is True
        assert not is_correct(parse_answer(word, choices), choices, gold)


def test_a_submitted_letter_is_always_scored_and_an_unparsed_answer_is_wrong_not_lost() -> None:
    choices = ["a dog", "Australia", "Cough", "rain"]
    assert [submit_letter(choices, choice, "whatever") for choice in range(4)] == list("ABCD")
    assert letter_rule(submit_letter(choices, None, "Australia"), choices, "a dog") is False
    tones = ["C major", "A major", "B major", "D major"]
    assert [submit_letter(tones, None, text) for text in ("B", "<answer>D</answer>", "b", "AB", "E", "")] == [
        "B",
        "D",
        *[""] * 4,
    ]
    rows = [
        item([option.strip(".") + "?" for option in options[:4]], answer.strip(".") + "?")
        for options, answer, _ in ODD[:5]
    ]
    assert not ambiguous_items([row for row in rows if row["answer"] in row["choices"]], letter_rule, submit_letter)


def test_an_option_is_submitted_alone_and_unparsed_text_without_its_tag() -> None:
    choices = ["rain", "wind"]
    assert submit_option(choices, 1, "<answer>B</answer>") == "wind"
    assert submit_option(choices, None, "hm <answer>rainy wind</answer>") == "rainy wind"
    assert submit_option(choices, None, "it rains") == "it rains"


def test_subsets_weigh_equally_where_the_benchmark_says_so_and_no_text_is_an_empty_one() -> None:
    rows = [item(["x", "y"], "x", str(i)) | {"groups": {"subset": "BQA" if i < 3 else "CQA"}} for i in range(4)]
    texts = {row_key(row): "x" for row in rows[:3]}
    score = official_score(printed_option_rule, rows, texts, "subset")
    assert score.parts == {"BQA": 1.0, "CQA": 0.0} and score.accuracy == 0.5 and score.n_correct == 3
    assert official_score(printed_option_rule, rows, texts).accuracy == 0.75
    assert official_score(letter_rule, rows, dict.fromkeys(map(row_key, rows), "hm")).accuracy == 0.0


def test_a_benchmark_without_gold_answers_is_not_scored() -> None:
    with pytest.raises(ValueError, match="sound_b_q has no gold answer"):
        official_score(token_set_rule, [item(["x", "y"], None)], {})


def test_items_that_print_an_option_twice_are_listed_and_either_copy_is_right() -> None:
    rows = [item(options, answer, str(index)) for index, (options, answer, _) in enumerate(ODD)]
    assert items_with_repeated_options(rows) == ["sound_b_1", "sound_b_2"]
    choices = ODD[2][0]
    assert all(is_correct(parse_answer(text, choices), choices, "thirteen") for text in ("thirteen", "A", "c)"))
    assert not is_correct(parse_answer("B", choices), choices, "thirteen")


@pytest.mark.parametrize(
    ("file", "name", "wrong", "sentences"),
    [(MMAU_SAMPLE, "mmau-test-mini", 3, 35), (MMAR_SAMPLE, "mmar", 4, 39)],
    ids=["mmau", "mmar"],
)
def test_the_defects_of_the_real_samples_are_found(file, name: str, wrong: int, sentences: int) -> None:
    if not file.is_file():
        pytest.skip("the samples of the benchmarks are not here")
    rows = load_benchmark(name, file, check_audio=False).rows
    assert sum(len(bad.accepted) for bad in ambiguous_items(rows, token_set_rule)) == wrong
    perfect = {row_key(row): row["answer"] for row in rows}
    assert official_score(token_set_rule, rows, perfect).accuracy == 1
    said = {key: f"The answer is {answer}" for key, answer in perfect.items()}
    assert official_score(token_set_rule, rows, said).n_correct == sentences
