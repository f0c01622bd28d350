"""What is wrong with a question by itself is found, and what only looks wrong is left alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomcq.construction.captions import Event
from audiomcq.construction.row_checks import comparison_key, find_defect, parse_times, reason_kind

OPTIONS = ("Rain on a roof", "A dog barking", "Engine noise", "Children laughing")
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
DOG, BELL = Event("a dog barks", 2.04, 5.5), Event("a bell", 9.0, 21.23)
AGAIN = Event("another dog", 24.0, 25.0)


def spell(number: int) -> str:
    if number < 20:
        return ONES[number]
    ten = TENS[number // 10 - 2]
    return f"{ten}-{ONES[number % 10]}" if number % 10 else ten


def defect(question: str = "What can be heard?", choices=OPTIONS, answer: str | None = None, kind="sound", **more):
    return find_defect(question, list(choices), choices[0] if answer is None else answer, kind, **more)


def kind_of(*args, **more) -> str | None:
    found = defect(*args, **more)
    return found and reason_kind(found)


def at(*times: str, question: str = "When does the dog stop?", events=(DOG, BELL), seconds=30.0) -> str | None:
    return kind_of(question, times, kind="temporal", events=events, seconds=seconds)


def test_a_sound_question_has_no_defect() -> None:
    assert defect() is None


@pytest.mark.parametrize(
    "same",
    [
        ["5 s", "5 seconds", "five seconds", "5.0s", "05 s", "Five Seconds.", "5-second", "5 sec."],
        ["twenty-five seconds", "25s", "Twenty five seconds"],
        ["1,000 Hz", "1000 hertz", "1000Hz"],
        ["50%", "50 percent", "fifty per cent"],
        ["120 BPM", "120 beats per minute"],
        ["twice", "2 times", "two times", "2x"],
        ["A dog barking", "the dog barking!", "Dog-barking", "ｄｏｇ　ｂａｒｋｉｎｇ"],
        [".5 seconds", "0.50 s"],
        ["C#", "c sharp", "C♯"],
        ["5-10 s", "5 to 10 seconds", "5–10 s"],
        ["one hundred", "100", "a hundred", "100.0"],
        ["“Stop!”", "stop"],
    ],
    ids=lambda same: same[0],
)
def test_spellings_of_one_option_are_the_same(same: list[str]) -> None:
    assert len({comparison_key(text) for text in same}) == 1
    assert kind_of(choices=(same[0], same[-1], "wind", "hail")) == "options are the same"


def test_options_that_differ_in_what_is_heard_stay_apart() -> None:
    apart = ["1", "10", "100", "1.5", "15", "1.05", "-1", "1 s", "1 ms", "1 min", "1 h", "10 s", "1:05", "1/2", "12",
             "10²", "C", "C#", "Cm", "A minor", "minor", "an hour", "की", "का", "+", "?", "no one", "2 times",
             "1-2", "Hz 5", "5 Hz", "5 kHz", "1950s", "1960s", "forty", "fourteen", "2,5", "2.5"]  # fmt: skip
    assert len({comparison_key(text) for text in apart}) == len(apart)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 99), st.sampled_from([("s", "seconds"), ("min", "minutes"), ("Hz", "hertz"), ("", "")]))
def test_a_spelled_number_is_the_number_with_any_unit(number: int, unit: tuple[str, str]) -> None:
    short, long = unit
    spellings = [f"{number}{short}", f"{number} {long}", f"{number}.0 {short}", f"{spell(number)} {long}".title()]
    assert len({comparison_key(text) for text in spellings}) == 1


@settings(max_examples=500, deadline=None)
@given(
    st.decimals(0, 9999, places=2),
    st.one_of(st.decimals(0, 9999, places=2), st.sampled_from([10, 100, 1000])),
    st.sampled_from(["", " s", "s", " seconds", " Hz", "%"]),
)
def test_two_numbers_are_the_same_only_if_they_are_equal(one, other, unit: str) -> None:
    other = one * other if isinstance(other, int) else other  # 1 and 10, 5 s and 50 s
    assert (comparison_key(f"{one}{unit}") == comparison_key(f"{other}{unit}")) == (one == other)


def test_the_answer_has_to_be_an_option_as_it_is_written() -> None:
    assert kind_of(answer="rain on a roof") == "answer not among the options"
    assert kind_of(answer="Rain on a roof") is None


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_question_has_four_options_unless_others_are_allowed(count: int) -> None:
    options = ("rain", "wind", "hail", "snow", "thunder")[:count]
    assert kind_of(choices=options) == "number of options"
    assert (kind_of(choices=options, min_choices=2, max_choices=26) is None) == (count > 1)


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("dog", "Dog barking"),
        ("A guitar", "guitar and drums"),
        ("Barking", "dog barking"),
        ("2", "2 dogs"),
        ("one", "one dog"),
    ],
)
@pytest.mark.parametrize("answer", [0, 1, 2])
def test_no_option_may_contain_another_one(inner: str, outer: str, answer: int) -> None:
    options = (inner, outer, "wind", "hail")
    assert kind_of(choices=options, answer=options[answer]) == "option contains another"


@pytest.mark.parametrize(
    ("inner", "outer"),
    [("1", "10"), ("5 s", "15 s"), ("5 s", "1 min 5 s"), ("male", "female"), ("C", "C minor"), ("music", "No music"),
     ("happy", "Not happy at all"), ("corn", "Popcorn")],
)  # fmt: skip
def test_options_that_only_share_letters_or_say_the_opposite_are_apart(inner: str, outer: str) -> None:
    assert kind_of(choices=(inner, outer, "wind", "hail")) is None


@pytest.mark.parametrize(
    ("question", "stated"),
    [
        ("A dog is barking behind the rain on the roof. What else is heard?", True),
        ("Which roof does the rain fall on?", False),
        ("Is it rain on a roof, a dog barking, engine noise or children laughing?", False),
        ("Is it rain on a roof or a dog barking?", True),
        ("What can be heard on the roof?", False),
    ],
)
def test_the_question_must_not_state_the_answer(question: str, stated: bool) -> None:
    assert (kind_of(question) == "question states the answer") == stated


def test_control_tokens_and_what_the_matcher_cannot_read_are_refused() -> None:
    assert "control token" in defect("What is heard in <|audio_bos|> this?")
    assert "control token" in defect(choices=("rain", "<think>", "wind", "hail"))
    assert kind_of("") == kind_of(kind=" ") == kind_of(choices=("rain", " ", "wind", "hail")) == "no valid row"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("21.2s", (21.2,)),
        ("At about 21.2 seconds", (21.2,)),
        ("1:05", (65.0,)),
        ("0:05.3", (5.3,)),
        ("1 min 5 s", (65.0,)),
        ("two minutes", (120.0,)),
        ("500 ms", (0.5,)),
        ("between 3.5 and 7.2 seconds", (3.5, 7.2)),
        ("3.5s - 7.2s", (3.5, 7.2)),
        ("2 to 4 s", (2.0, 4.0)),
        ("1:30-2:00", (90.0, 120.0)),
        ("after the dog", None),
        ("the first 5 s", None),
        ("5", None),
        ("1 s, 2 s and 3 s", None),
    ],
)
def test_times_are_read_in_the_forms_that_writers_use(text: str, times: tuple[float, ...] | None) -> None:
    assert parse_times(text) == (times and pytest.approx(times))
    assert parse_times("5", bare=True) == (5.0,)


def test_an_answer_that_is_an_annotated_time_passes_and_another_one_does_not() -> None:
    assert at("5.5s", "7.7s", "12.4s", "25.0s") is None
    assert at("2.1s", "7.7s", "12.4s", "25.0s") is None  # 2.04 rounded up
    assert at("3.5 s", "7.7s", "12.4s", "25.0s", question="How long does the dog bark?") is None
    assert at("2.0 to 5.5 s", "3.0 to 5.5 s", "9.0 to 11.0 s", "7 to 8 s") is None
    assert at("5.7s", "7.7s", "12.4s", "25.0s") == "time not annotated"
    assert at("2.0 to 21.2 s", "3.0 to 5.5 s", "9.0 to 11.0 s", "7 to 8 s") == "time not annotated"
    assert at("5.7", "7.7", "12.4", "25.0", question="At what second does it stop?") == "time not annotated"


def test_a_wrong_option_that_is_the_time_of_a_similar_event_is_a_defect() -> None:
    assert at("5.5s", "7.7s", "9.0s", "25.0s") is None  # of the bell
    assert at("5.5s", "7.7s", "9.0s", "25.0s", events=(DOG, BELL, AGAIN)) == "wrong option is annotated"
    assert at("5.5s", "7.7s", "2.0s", "25.0s") == "wrong option is annotated"  # where the dog begins
    assert at("5.5s", "7.7s", "3.46s", "25.0s") is None  # a length among points of time
    assert at("never", "5.5s", "7.7s", "25.0s") == "wrong option is annotated"


def test_times_beyond_the_end_and_times_that_cannot_be_told_apart_are_defects() -> None:
    assert at("5.5s", "7.7s", "12.4s", "30.2s") == "time beyond the end"
    assert at("5.5s", "7.7s", "12.4s", "30.1s") is None
    assert at("5.5s", "7.75s", "7.8s", "25.0s") == "times too close"
    assert at("5.5s", "65 s", "1:05", "25.0s", seconds=None) == "times too close"


def test_times_of_other_questions_are_not_compared_with_the_clip() -> None:
    stated = ("Five minutes", "Ten minutes", "An hour", "A day")
    assert kind_of("How long does the speaker want to wait?", stated, kind="speech", seconds=10.0) is None
    assert at("five minutes", "ten minutes", "one hour", "a day", seconds=10.0, events=()) == "time beyond the end"


def test_a_reason_has_a_kind_without_details() -> None:
    found = defect(choices=("5 s", "five seconds", "rain: light", "wind"))
    assert found == "options are the same: '5 s' and 'five seconds'" and reason_kind(found) == "options are the same"
