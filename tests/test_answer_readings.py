"""What a careful person would at once call an answer is read, in many styles and languages, and nothing else is."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from answer_templates import ANSWERS, NO_ANSWERS
from audiomcq.answers import HOW, normalize, parse_answer
from audiomcq.prompts import AUDIOMCQ_STYLE, MMSU_STYLE, find_asked_for

SOUNDS = ["rain", "siren", "dog", "cat"]
SETS = [
    SOUNDS,
    ["Happy", "Sad", "Angry", "Neutral"],
    ["a man", "a woman", "a child"],
    ["from left to right", "from right to left"],
    ["Piano", "Guitar", "Drums", "Bass"],
    ["Speaker A", "Speaker B", "Both", "Neither"],
    ["10 dB", "-10 dB", "1.5 s", "15 s"],
    ["Yes", "No"],
]
CORPUS = Path(__file__).parent / "data" / "reading_corpus.jsonl"


def read(completion: str, choices: list[str] = SOUNDS, asked_for: str = "either") -> int | str | None:
    """The option that is read, "abstained", or None."""
    parsed = parse_answer(completion, choices, asked_for)
    return parsed.how if parsed.how == "abstained" else parsed.choice


@pytest.mark.parametrize(
    "completion",
    [
        "The answer is (B) siren.",
        "Answer: B",
        "Therefore the correct option is: **(B) siren**",
        "<Conclusion>B</Conclusion>",
        r"\boxed{B}",
        "Option B",
        "<think>rain?</think>B",
        "<think>perhaps <answer>rain</answer>?</think>siren",
        "<answer>siren",
        "siren。",
        "答案：B",
        "B\n\nBecause it wails.",
        'B. "siren"',
        "<answer>the siren</answer>",
        "<answer>siren (B)</answer>",
        "<answer>['siren']</answer>",
        '{"answer": "B"}',
        "siren<|im_end|>",
        "\u200bsiren\ufeff",
        "si\u00adren",
        "＜answer＞siren＜/answer＞",
        "𝐁",
        "siren</answer>",
        "<answer>siren</answer",
        "<answer>siren<answer>",
        "It is not <answer>rain</answer>, it is <answer>siren</answer>",
        "Not rain, but siren",
        "It isn't rain; it's a siren.",
        "The second option.",
        "**Answer: A**\n\nWait, that was too quick. I need to correct myself.\n\n**Answer: B**",
        '{"answer": "\\u0073iren"}',
        'submit_answer(choice="siren")',
    ],
)
def test_the_reviews_answers_and_others_of_their_kind_are_read(completion: str) -> None:
    assert read(completion) == 1


@pytest.mark.parametrize("choices", SETS, ids=lambda choices: choices[0])
def test_every_way_to_give_an_answer_names_its_option_in_every_place(choices: list[str]) -> None:
    misread = []
    for place, template in itertools.product(range(len(choices)), ANSWERS):
        completion = template.replace("\\n", "\n").format(a=choices[place], L="ABCD"[place])
        if (found := read(completion, choices, ("text", "either", "letter")[len(completion) % 3])) != place:
            misread.append((completion, found))
    unread = [completion for completion, found in misread if found is None]
    assert len(unread) == len(misread), misread
    assert len(unread) <= 0.01 * len(choices) * len(ANSWERS), unread


@pytest.mark.parametrize("choices", SETS, ids=lambda choices: choices[0])
def test_no_way_to_give_none_is_read(choices: list[str]) -> None:
    for (a, text_a), (b, text_b) in itertools.permutations(enumerate(choices), 2):
        blanks = {"a": text_a, "b": text_b, "LA": "ABCD"[a], "LB": "ABCD"[b]}
        for number, template in enumerate(NO_ANSWERS):
            completion = template.replace("\\n", "\n").format(**blanks)
            asked_for = ("text", "either", "letter")[(number + a + b) % 3]
            assert parse_answer(completion, choices, asked_for).choice is None, completion


@pytest.mark.parametrize(
    "completion",
    [
        "It sounds like a rain stick.",
        "I hear a dog whistle.",
        "It is a cat toy.",
        "The siren-like tone belongs to a bird.",
        "There is no rain.",
        "I hear everything but rain.",
        "It is far from rain.",
        "It is the opposite of rain.",
        "The lack of rain is striking.",
        "It is too soft for rain.",
        "It is louder than rain.",
        "It resembles rain.",
        "It is similar to a siren.",
        "It reminds me of rain.",
        "One might think of rain.",
        "Some people confuse it with rain.",
        "It could have been rain.",
        "Rain would be softer.",
        "Rain was my first thought.",
        "At first I heard rain.",
        "The clip begins with rain.",
        "First, I hear a dog.",
        "I expected rain.",
        "The question is about the dog.",
        "The question asks whether it is rain.",
        "Let me listen for the dog.",
        "I will check for a siren.",
        "Listen to the rain.",
        "Is it rain",
        "The dog and the horse.",
        "I hear rain and thunder.",
        "A dog or something else.",
        "It is a dog-like sound.",
        "The sound of a dogsled.",
        "It is raining cats and dogs.",
        "Not rain.",
        "Never rain.",
        "It was anything but rain.",
        "It isn't rain.",
        "It doesn't sound like rain.",
        "I can't hear rain.",
        "I don't hear a dog.",
        "No dog is heard.",
        "Neither rain.",
        "The rain has been ruled out.",
        "The rain can be excluded.",
        "Rain is impossible.",
        "Rain is not heard.",
        "rain is unlikely",
        "without rain",
        "If there were rain, I would hear it.",
        "Unless it is rain.",
        "I wish it were rain.",
        "It used to be confused with rain.",
        "I am imagining a dog.",
        'The man says "I love the rain and the sun".',
        'Speaker: "there is a dog over here now"',
        "The answer is the sound of rain falling.",
        "The correct answer is raindrops.",
        "The options include rain.",
        "Possible: rain",
        "Excluded: rain",
        "Not: rain",
        "Question: rain",
        "Background: rain?",
        "It is one of rain or siren.",
        "Either rain or",
        "It might be a dog, I guess.",
        "Perhaps a dog.",
        "Could it be a dog?",
        "I'm guessing, maybe a dog.",
        "Dog? No.",
        "Dog? Yes.",
        "The dog, the cat.",
        "the dog, then the cat",
        "dog not cat not sure",
        "It's hard to tell the dog from the cat.",
        "It is between a dog and a cat.",
        "I was told it is rain, but I disagree.",
        "It is not only rain.",
        "a, b, c",
        "I am a",
        "I hear a",
        "Option B or D",
        "It's B or something.",
        "B? D?",
        "A B",
        "I would choose neither B nor C.",
        "Not B, not C.",
        "The answer is B, C, or D.",
        "(B) (C)",
        "[B, C]",
        "B: 60%, C: 40%",
        "I give B 50% and C 50%",
        '{"B": 0.5, "C": 0.5}',
        '["B", "C"]',
        '{"answer": "B or C"}',
        '{"answer": "rain", "answer2": "siren", "option": "siren"}',
        "The first is rain and the second is a siren.",
        "Rain at first, siren later.",
        "1) rain 2) siren 3) dog 4) cat",
        "Answer choices: rain, siren, dog, cat",
        "Answer options are A. rain B. siren",
        "The options are: A. rain, B. siren, C. dog, D. cat.",
        "Which is it: rain?",
        "<answer>rain|siren</answer>",
        "<answer>rain siren</answer>",
        "<answer>B C</answer>",
        "<answer>the rain and the siren</answer>",
        "<answer>no rain</answer>",
        "<answer>rain is not heard</answer>",
        "<answer>probably rain or siren</answer>",
        "<answer>I don't know</answer>",
        "<answer>rain?</answer>",
        "<answer>unrelated</answer> B",
        "B <answer>unrelated</answer>",
        "<think>B</think>",
        "<think>B",
        "<thinking>answer is B</thinking>",
        "[THINK]B",
        "B</think>",
        "<reasoning>so B",
        "◁think▷ B",
        "<|channel|>analysis<|message|>the answer is B",
        "<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>commentary<|message|>C",
        "analysisWe choose B.",
        "The answer is B.</think>",
        "<answer>B</answer></think>",
        "<think><answer>B</answer></think>",
        "<think><answer>B</answer>",
        "The answer is <think>B</think>",
        "The answer is B<think>or C?",
    ],
)
def test_a_sentence_that_names_an_option_without_choosing_it_is_not_read(completion: str) -> None:
    assert all(
        parse_answer(completion, SOUNDS, asked_for).choice is None for asked_for in ("text", "either", "letter")
    )


@pytest.mark.parametrize(
    ("completion", "choices"),
    [
        ("C# minor", ["C minor", "D minor"]),
        ("-10 dB", ["10 dB", "20 dB"]),
        ("The level is -10 dB.", ["10 dB", "20 dB"]),
        ("1.5 s", ["15 s", "2 s"]),
        ("3/4", ["34", "43"]),
        ("a woman", ["Man", "Child"]),
        ("It is a woman.", ["Man", "Child"]),
        ("Fourteen beeps", ["four", "five"]),
        ("There are fourteen beeps.", ["four", "five"]),
        ("rain, siren, dog, cat", SOUNDS),
        ("<answer>rain</answer> and then <answer>siren</answer>", SOUNDS),
        ("", SOUNDS),
        ("<answer></answer>", SOUNDS),
        ("It is a car horn.", ["car", "train"]),
        ("It is a toy train.", ["car", "train"]),
        ("a man-made noise", ["man", "woman"]),
        ("The speaker is unhappy.", ["happy", "sad"]),
        ("10²", ["102", "100"]),
        ("The answer is 10².", ["102", "100"]),
        ("3½ s", ["31/2 s", "3 s"]),
    ],
)
def test_what_other_matchers_pay_for_is_never_read(completion: str, choices: list[str]) -> None:
    assert all(
        parse_answer(completion, choices, asked_for).choice is None for asked_for in ("text", "either", "letter")
    )


def test_a_letter_and_a_text_that_differ_are_told_apart_by_what_was_asked_for() -> None:
    keys = ["G", "D", "E", "C"]
    for completion in ("C", "<answer>C</answer>", "The answer is C.", "**C**", r"\boxed{C}"):
        assert read(completion, keys) is None
        assert read(completion, keys, "text") == 3
        assert read(completion, keys, "letter") == 2
    assert read("E", keys) == 2, "no letter of these four"
    assert read("C", ["G", "D", "C", "E"]) == 2, "both ways the same"
    assert read("C", ["C# minor", "D minor", "E minor"]) is None
    assert read("C", ["C# minor", "D minor", "E minor"], "letter") == 2
    assert read("Option C", ["C#", "D#", "F#", "G#"]) == 2


def test_every_prompt_says_what_it_asks_for() -> None:
    assert (AUDIOMCQ_STYLE.asked_for, MMSU_STYLE.asked_for) == ("text", "letter")
    assert find_asked_for(MMSU_STYLE.version) == "letter"
    assert find_asked_for("another program's") == find_asked_for(None) == "either"


@pytest.mark.parametrize(
    "completion",
    [
        "<think>the answer is B",
        "<think>\n<answer>B</answer>",
        "B<think>or C?",
        "<thinking>siren",
        "<reasoning>siren</reasoning>",
        "<REASONING>siren",
        "[THINK]siren[/THINK]",
        "◁think▷siren",
        "siren</think>",
        "<think>siren</think>",
        "<think>a<think>b</think>siren</think>",
        "<|channel|>analysis<|message|>the answer is B<|end|>",
        "analysisThe answer is B.",
        "<unused94>thought\nsiren",
        "<|START_THINKING|>siren",
    ],
)
def test_thinking_is_not_said(completion: str) -> None:
    assert parse_answer(completion, SOUNDS).how == "unreadable"


@pytest.mark.parametrize(
    "completion",
    [
        "<think>cat</think>dog",
        "cat</think>\n\ndog",
        "<thinking>cat</thinking>The answer is dog.",
        "<reasoning>cat</reasoning><answer>dog</answer>",
        "[THINK]cat[/THINK]dog",
        "◁think▷cat◁/think▷dog",
        "<|START_THINKING|>cat<|END_THINKING|><|START_RESPONSE|>dog<|END_RESPONSE|>",
        "<|channel|>analysis<|message|>cat<|end|><|start|>assistant<|channel|>final<|message|>dog<|return|>",
        "analysisIt is a cat.assistantfinaldog",
        "<unused94>thought cat<unused95>dog",
        "<think>a<think>cat</think>cat</think>dog",
        "Thinking...\ncat\n...done thinking.\n\ndog",
        "<SUMMARY>cat</SUMMARY><CAPTION>cat</CAPTION><REASONING>cat</REASONING><CONCLUSION>dog</CONCLUSION>",
        "<|im_start|>assistant\ndog<|im_end|>\n<|im_start|>user\nNext?<|im_end|>\n<|im_start|>assistant\ncat",
        "dog\nHuman: and this?\nAssistant: cat",
    ],
)
def test_what_is_said_after_thinking_is_read(completion: str) -> None:
    assert read(completion) == 2


@pytest.mark.parametrize(
    "completion",
    [
        "I hear nothing.",
        "I cannot tell.",
        "None of the above",
        "I'm sorry, but I can't hear the audio.",
        "<answer>None of the above</answer>",
        "无法判断",
        "The audio is silent.",
        "I'm unable to determine the answer from the audio provided.",
        "Je n'entends rien.",
        "No puedo determinar la respuesta.",
        "Ich kann nichts hören.",
        "聞こえません。",
        "There is no sound in the audio clip.",
        "Unknown",
        "It is not mentioned in the audio.",
        "Please provide the audio file.",
        "<answer>unknown</answer>",
        '{"answer": "unknown"}',
        "Não consigo ouvir o áudio.",
        "Non riesco a sentire l'audio.",
        "죄송하지만 들을 수 없습니다.",
        "Я не слышу звука.",
        "I can't help with that.",
        "neither of these",
        "无法从音频中判断",
    ],
)
def test_an_abstention_is_told_from_what_cannot_be_read(completion: str) -> None:
    assert parse_answer(completion, SOUNDS).how == "abstained"
    assert parse_answer("gibberish of another kind", SOUNDS).how == "unreadable"


def test_what_sounds_like_an_abstention_is_an_answer_where_it_is_an_option() -> None:
    assert read("None of the above", ["rain", "None of the above"]) == 1
    assert read("I hear nothing.", ["rain", "Nothing"]) == 1
    assert parse_answer("I can't hear a thing.", ["rain", "No sound"]).how == "unreadable"
    assert read("I cannot tell for sure, but the answer is B.") == 1


@pytest.mark.parametrize(
    ("completion", "how"),
    [
        ("<answer>siren</answer>", "tag"),
        ("<answer>B</answer>", "tag"),
        ("<answer>The answer is siren.</answer>", "declared"),
        ("<answer>siren", "declared"),
        ("<conclusion>siren</conclusion>", "declared"),
        ("The answer is B.", "declared"),
        (r"\boxed{siren}", "declared"),
        ("B", "letter"),
        ("(b)\n\nBecause it wails.", "letter"),
        ("siren", "bare"),
        ("B. siren", "bare"),
        ("I cannot tell", "abstained"),
        ("", "unreadable"),
        ("<answer>thunder</answer>", "unreadable"),
    ],
)
def test_it_says_how_it_read(completion: str, how: str) -> None:
    parsed = parse_answer(completion, SOUNDS)
    assert how in HOW
    assert (parsed.how, parsed.tagged) == (how, how == "tag")
    assert (parsed.choice is None) == (how in ("abstained", "unreadable"))


def test_what_breaks_off_is_not_the_beginning_of_another_option() -> None:
    for cut_off in ("<answer>siren", '{"answer": "siren', r"\boxed{siren"):
        assert read(cut_off) == 1
        assert read(cut_off, ["rain", "siren", "siren and rain"]) is None
    assert read("<answer>B", ["Dog", "Cat", "Birds"]) is None
    assert read("<answer>B", ["Dog", "Cat", "Birds"], "letter") == 1
    assert read("The answer is a") is None


def test_folding_keeps_numbers_apart() -> None:
    assert normalize("１０ ｄＢ") == "10 db"
    assert normalize("10²") != normalize("102")
    assert normalize("3½") != normalize("31/2")
    assert normalize("ﬁre\u00adworks\u200b") == "fireworks"


def seconds(task: Callable[[], object]) -> float:
    """The least processor time of two runs."""
    times = []
    for _ in range(2):
        started = time.process_time()
        task()
        times.append(time.process_time() - started)
    return min(times)


HOSTILE = {
    "quotes": '"',
    "brackets": "<",
    "tags": "<answer>",
    "closed tags": "<answer>rain</answer>",
    "thoughts": "<think>",
    "ended thoughts": "</think>",
    "boxes": r"\boxed{",
    "backslashes": "\\",
    "fields": '"answer": "',
    "answers": "answer: ",
    "sentences": "The answer is B. ",
    "links": "the answer is ",
    "verdicts": "B is correct. ",
    "letters": "B. ",
    "lines": "B\n",
    "negations": "not ",
    "blanks": " ",
    "dots": ".",
    "dashes": "- ",
    "commas": ", ",
    "strokes": "~~",
    "stars": "*",
    "options": "rain ",
    "Chinese": "答案是",
    "Chinese sentences": "答案是B。",
    "Korean": "답은 ",
    "invisible": "\u200b",
    "articles": "the ",
    "verbs": "it is ",
    "questions": "?",
}


@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
def test_reading_time_grows_with_the_text_and_no_faster(pattern: str) -> None:
    """Also beyond where a text is too long to be an answer. A quadratic reader takes 16 and 2500 times as long."""
    for before in ("", "The answer is B. "):
        short, long, endless = (before + pattern * (size // len(pattern)) for size in (8_000, 32_000, 400_000))
        base = max(seconds(lambda text=short: parse_answer(text, SOUNDS)), 0.008)
        assert seconds(lambda text=long: parse_answer(text, SOUNDS)) < 9 * base
        assert seconds(lambda text=endless: parse_answer(text, SOUNDS)) < 80 * base


def corpus() -> list[dict]:
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def test_of_answers_in_the_styles_of_many_models_none_is_read_wrongly_and_nearly_all_are_read() -> None:
    """Labelled by hand, without knowledge of the matcher: the option that a person would read, or none, or an abstention."""
    answers = corpus()
    assert len(answers) >= 400
    assert len({answer["style"] for answer in answers}) >= 10
    assert len({answer["language"] for answer in answers}) >= 5
    wrong, unread, states = [], [], []
    for answer in answers:
        parsed = parse_answer(answer["completion"], answer["choices"], answer["asked_for"])
        expected = answer["reading"]
        if not isinstance(expected, int):
            wrong += [answer["id"]] * (parsed.choice is not None)
            states += [answer["id"]] * ((parsed.how == "abstained") != (expected == "abstained"))
        elif parsed.choice is None:
            unread.append(answer["id"])
        elif answer["choices"][parsed.choice] != answer["choices"][expected]:
            wrong.append(answer["id"])
    named = sum(isinstance(answer["reading"], int) for answer in answers)
    assert not wrong
    assert len(unread) <= 0.05 * named, unread
    assert len(states) <= 0.01 * len(answers), states
