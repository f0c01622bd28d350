"""Predictions against questions: what does not belong is named, what is counted is what counting by hand gives."""

import pytest

from audiomcq.evaluation.orders import measure_robustness
from audiomcq.evaluation.pairs import compare
from audiomcq.evaluation.report import estimate_accuracy, estimate_gain
from audiomcq.evaluation.scoring import Run, questions_by_key, rescore_predictions, run_arrays, score_run
from audiomcq.evaluation.tables import comparisons_table
from audiomcq.examples import row_key
from audiomcq.inference.vote_arrays import question_arrays
from audiomcq.stats import holm, mcnemar, wilson_interval


def question(id: str, choices: str, answer: str, **columns) -> dict:
    return {"id": id, "source_dataset": "x", "question_type": "sound", "question": f"What is {id}?",
            "choices": choices.split(), "answer": answer, **columns}  # fmt: skip


ROWS = questions_by_key(
    [
        question("1", "rain wind sea fire", "rain", groups={"skill": "weather", "level": "easy"}),
        question("2", "dog cat", "cat", groups={"skill": "animals", "level": "easy"}),
        question("3", "horn horn bell drum", "horn", groups={"skill": "sounds", "level": "hard"}),
    ]
)
KEYS = list(ROWS)


def said(completions: list[str], control: str = "audio", order: str = "given", keys=KEYS) -> list[dict]:
    return [
        {"row_key": key, "control": control, "order": order, "completion": text}
        for key, text in zip(keys, completions, strict=True)
    ]


def cyclic(first: list[str], second: list[str], third: list[str]) -> list[dict]:
    """Predictions in all turns: of the rows with four, two and four options."""
    texts = dict(zip(KEYS, (first, second, third), strict=True))
    return [
        {"row_key": key, "control": "audio", "order": f"cyclic-{turn}", "completion": text}
        for key, each in texts.items()
        for turn, text in enumerate(each)
    ]


def test_completions_are_read_again_and_what_the_file_calls_correct_is_not_believed() -> None:
    lines = [{**line, "correct": True, "choice": 0} for line in said(["rain", "dog", "a horn, or a bell"])]
    run = rescore_predictions(ROWS, lines)
    assert run.correct() == dict(zip(KEYS, [True, False, False], strict=True))
    assert run.answers["audio", "given"][KEYS[2]]["choice"] is None


def test_a_letter_names_the_option_that_was_shown_at_its_place() -> None:
    run = rescore_predictions(
        ROWS, said(["A", "A", "B"], order="cyclic-1")
    )  # wind sea fire rain | cat dog | horn bell drum horn
    assert [answer["choice"] for answer in run.answers["audio", "cyclic-1"].values()] == [1, 1, 2]
    assert list(run.correct().values()) == [False, True, False]


def test_of_scored_options_the_likeliest_is_chosen_whatever_the_file_says() -> None:
    scores = ([-2.0, -1.0, -3.0, -3.0], [-2.0, -1.0], [-1.0, -1.5, -2.0, -2.0])
    lines = [
        {**line, "choice": 3, "option_logps": each} for line, each in zip(said(["", "", ""]), scores, strict=True)
    ]
    run = rescore_predictions(ROWS, lines)
    assert list(run.correct().values()) == [False, True, True]
    assert run.answers["audio", "given"][KEYS[0]]["choice"] == 1
    with pytest.raises(
        ValueError, match=r"prediction for sound_x_2 \(audio\): it has log-probs of 1 options, the row has 2"
    ):
        rescore_predictions(ROWS, [*lines[:1], {**lines[1], "option_logps": [-1.0]}, lines[2]])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([*KEYS, "sound_x_9"], "1 predictions are for questions that are not there: sound_x_9"),
        ([*KEYS, KEYS[0]], "1 questions are answered twice: sound_x_1"),
        (KEYS[:1], "2 predictions are missing: sound_x_2, sound_x_3; finish the run"),
        (
            [KEYS[0], KEYS[0], "z"],
            "not there: z; 1 questions are answered twice: sound_x_1; 2 predictions are missing",
        ),
    ],
)
def test_unknown_repeated_and_missing_predictions_are_counted_and_named(keys: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rescore_predictions(ROWS, said(["rain"] * len(keys), keys=keys))


def test_rows_that_are_missing_on_purpose_are_wrong_and_stay_in_the_denominator() -> None:
    run = rescore_predictions(ROWS, said(["rain", "cat"], keys=KEYS[:2]), missing_as_wrong=True)
    scores, _ = score_run(ROWS, run, None)
    assert (scores.n_total, scores.n_parsed, scores.n_missing, scores.accuracy.value) == (3, 2, 1, 2 / 3)


def test_what_the_record_says_was_asked_must_be_there() -> None:
    with pytest.raises(ValueError, match="10 predictions are missing"):
        rescore_predictions(ROWS, said(["", "", ""]), {"audio": ["given", "cyclic"]})
    with pytest.raises(ValueError, match="3 predictions are missing"):
        rescore_predictions(ROWS, said(["", "", ""]), {"audio": ["given"], "silence": ["given"]})


def test_a_row_has_no_more_turns_than_options() -> None:
    with pytest.raises(ValueError, match=r"not there: sound_x_2 has no order cyclic-2"):
        rescore_predictions(ROWS, cyclic(["", "", "", ""], ["", "", ""], ["", "", "", ""]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no questions"),
        ([question("1", "a b", "c")], "the gold answer of 1 questions is not among their choices: sound_x_1"),
        ([question("1", "a b", None)], "1 questions have no gold answer: sound_x_1; export"),
        (
            [question("1", "a b", "a"), question("1", "a b", "b")],
            "1 row keys occur twice among the questions: sound_x_1",
        ),
    ],
)
def test_questions_that_cannot_be_scored_are_named(rows: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        questions_by_key(rows)


def test_groups_positions_and_other_controls_are_what_counting_by_hand_gives() -> None:
    lines = (
        said(["rain", "dog", "horn"]) + said(["rain", "cat", "?"], "silence") + said(["sea", "cat", "?"], "no_audio")
    )
    scores, details = score_run(ROWS, rescore_predictions(ROWS, lines), {KEYS[0], KEYS[1]})
    assert (scores.accuracy.value, scores.silent.value, scores.strong.value) == (2 / 3, 2 / 3, 1 / 2)
    easy = details["groups"]["level"]["easy"]
    assert (easy["n"], easy["accuracy"]["value"], easy["silent"]["value"]) == (2, 0.5, 1.0)
    assert set(details["groups"]["skill"]) == {"weather", "animals", "sounds"}
    places = {place: (cell["n"], cell["accuracy"]["value"]) for place, cell in details["gold_position"].items()}
    assert places == {"0": (2, 1.0), "1": (1, 0.0)}
    assert details["chosen_position"] == {"0": 3, "unparsed": 0}
    other = details["controls"]["no_audio"]
    assert (other["n_parsed"], other["accuracy"]["value"]) == (2, 1 / 3)
    assert other["gain"]["value"] == estimate_gain([1, -1, 1]).value
    assert "silence" not in details["controls"]


def test_the_official_rule_stands_beside_the_strict_one() -> None:
    def first_letter(rows, answers, raw):
        texts = [
            answer["completion"] if raw else answer["completion"][1:] for _, answer in zip(rows, answers, strict=True)
        ]
        verdicts = [text[0] == "r" for text in texts]
        return estimate_accuracy(verdicts), len(verdicts) - 1

    lines = said(["rather", "cat", "horn"])
    scores, details = score_run(ROWS, rescore_predictions(ROWS, lines), None, first_letter)
    assert (scores.accuracy.value, scores.official.value, scores.n_official) == (2 / 3, 0.0, 2)
    assert (scores.official_raw.value, scores.n_official_raw) == (1 / 3, 2)
    assert details["groups"]["level"]["hard"]["official"]["value"] == 0.0
    scored = [
        {**line, "option_logps": [-1.0, *[-2.0] * (len(ROWS[line["row_key"]]["choices"]) - 1)]} for line in lines
    ]
    assert score_run(ROWS, rescore_predictions(ROWS, scored), None, first_letter)[0].official_raw is None


def test_without_silence_there_is_an_accuracy_and_no_gain() -> None:
    scores, _ = score_run(ROWS, rescore_predictions(ROWS, said(["rain", "cat", "?"])), None)
    assert (scores.accuracy.value, scores.silent, scores.audio_gain, scores.strong, scores.weak) == (
        2 / 3,
        *[None] * 4,
    )
    with pytest.raises(ValueError, match="no predictions with audio"):
        score_run(ROWS, rescore_predictions(ROWS, said(["rain", "cat", "?"], "silence")), None)


def test_orders_are_averaged_by_row_voted_on_and_asked_to_agree() -> None:
    run = rescore_predictions(
        ROWS,
        cyclic(
            ["rain", "rain", "wind", "?"],  # two of four right; the majority says rain
            ["cat", "dog"],  # one of two right; a tie, which the first order decides
            ["horn", "horn", "horn", "horn"],  # of two equal options, either is the answer
        ),
    )
    robust = measure_robustness(run_arrays(ROWS, run), question_arrays(ROWS.values()))
    assert {order: (cell["n"], cell["accuracy"]) for order, cell in robust.orders.items()} == {
        "cyclic-0": (3, 1.0),
        "cyclic-1": (3, 2 / 3),
        "cyclic-2": (2, 1 / 2),
        "cyclic-3": (2, 1 / 2),
    }
    assert robust.mean.value == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert (robust.all_right.value, robust.same_choice.value, robust.majority.value) == (1 / 3, 1 / 3, 1.0)
    assert robust.all_right.interval == wilson_interval(1, 3)
    # Turned by k, gold option g is shown at place (g - k) mod n; of two equal ones the first counts.
    places = {place: (cell["n"], cell["accuracy"]["value"]) for place, cell in robust.by_gold_position.items()}
    assert places == {"0": (4, 0.75), "1": (3, 2 / 3), "2": (2, 0.5), "3": (1, 1.0)}
    assert run.order == "cyclic-0"
    assert score_run(ROWS, run, None)[0].accuracy.value == 1.0


def test_the_given_order_and_turned_by_none_are_one_prompt_and_count_once() -> None:
    turned = said(["rain", "cat", "horn"], order="cyclic-0") + said(["wind", "cat", "horn"], order="cyclic-1")
    once, twice = (
        measure_robustness(run_arrays(ROWS, rescore_predictions(ROWS, lines)), question_arrays(ROWS.values()))
        for lines in (turned, turned + said(["rain", "cat", "horn"]))
    )
    assert once.mean == twice.mean and once.by_gold_position == twice.by_gold_position
    assert once.mean.value == pytest.approx((0.5 + 1 + 1) / 3)


def test_no_answer_in_any_order_is_no_agreement_and_no_majority() -> None:
    run = rescore_predictions(ROWS, cyclic(["?"] * 4, ["?"] * 2, ["?"] * 4))
    robust = measure_robustness(run_arrays(ROWS, run), question_arrays(ROWS.values()))
    assert (robust.mean.value, robust.same_choice.value, robust.majority.value) == (0.0, 0.0, 0.0)


def test_an_order_that_some_rows_have_too_few_options_for_is_no_headline_over_fewer_rows() -> None:
    run = rescore_predictions(ROWS, said(["rain", "horn"], order="cyclic-3", keys=[KEYS[0], KEYS[2]]))
    with pytest.raises(ValueError, match=r"1 rows have too few options for the order cyclic-3: sound_x_2"):
        score_run(ROWS, run, None)


def test_two_shuffles_without_the_given_order_have_no_headline() -> None:
    run = rescore_predictions(
        ROWS, said(["a", "b", "c"], order="shuffle-1") + said(["a", "b", "c"], order="shuffle-2")
    )
    with pytest.raises(ValueError, match="2 option orders"):
        _ = run.order


def test_every_pair_of_models_is_compared_row_by_row() -> None:
    keys = [f"k{index}" for index in range(10)]
    right = {"a": [1, 1, 1, 0, 0, 0, 0, 0, 0, 0], "b": [1, 0, 0, 1, 1, 1, 1, 1, 0, 0], "c": [1] * 10}
    runs = {
        name: Run({("audio", "given"): {key: {"correct": bool(one)} for key, one in zip(keys, each, strict=True)}})
        for name, each in right.items()
    }
    pairs = compare(runs, lambda a, b: frozenset(keys[:4]))
    assert [(pair.a, pair.b) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    first = pairs[0]
    assert (first.only_a, first.only_b) == (2, 5)
    assert first.difference == estimate_gain([0, -1, -1, 1, 1, 1, 1, 1, 0, 0])
    assert first.p_value == mcnemar([1, 1] + [0] * 5, [0, 0] + [1] * 5) == pytest.approx(0.453125)
    assert first.strong_difference.value == -1 / 4
    assert first.strong_p_value == 1.0
    assert [pair.p_holm for pair in pairs] == holm([pair.p_value for pair in pairs])
    assert [pair.strong_p_holm for pair in pairs] == holm([pair.strong_p_value for pair in pairs])
    assert (pairs[1].p_value, pairs[1].p_holm) == pytest.approx((2 / 2**7, 3 * 2 / 2**7))
    assert f"| {pairs[1].p_holm:.2g} |" in comparisons_table(pairs)
    assert "corrected for the 3 pairs by Holm" in comparisons_table(pairs)
    assert compare(runs)[0].strong_difference is None
    some = compare(runs, lambda a, b: frozenset(keys[:4]) if "a" in (a, b) else None)
    assert [pair.strong_p_holm for pair in some] == [*holm([pair.strong_p_value for pair in some[:2]]), None]


def test_rows_keep_their_key() -> None:
    assert [row_key(row) for row in ROWS.values()] == KEYS
