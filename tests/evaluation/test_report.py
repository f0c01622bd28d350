"""One evaluation, from predictions to numbers and a table."""

import subprocess
import sys
from dataclasses import asdict

import pytest

from audiomcq.evaluation.report import markdown_table, score
from audiomcq.stats import paired_bootstrap, wilson_interval


def predictions(control: str, outcomes: dict[str, bool | None]) -> list[dict]:
    """One record per row; an outcome of None is a completion that chose nothing."""
    return [
        {
            "row_key": key,
            "control": control,
            "completion": "",
            "choice": None if right is None else 0,
            "correct": bool(right),
        }
        for key, right in outcomes.items()
    ]


HEARD = {"a": True, "b": True, "c": False, "d": None, "e": True}
UNHEARD = {"e": False, "d": None, "c": True, "b": False, "a": True}
STRONG = {"b", "d", "e"}


@pytest.fixture
def scores():
    return score(predictions("audio", HEARD), predictions("silence", UNHEARD), STRONG)


def test_every_measure_is_what_counting_by_hand_gives(scores):
    assert (scores.n_total, scores.n_strong, scores.n_parsed, scores.n_parsed_silent) == (5, 3, 4, 4)
    assert scores.accuracy.value == 3 / 5
    assert scores.strong.value == 2 / 3
    assert scores.weak.value == 1 / 2
    assert scores.silent.value == 2 / 5
    assert scores.audio_gain.value == pytest.approx(1 / 5)
    assert scores.strong_audio_gain.value == pytest.approx(2 / 3)


def test_accuracies_have_wilson_and_gains_paired_bootstrap_intervals(scores):
    assert scores.accuracy.interval == wilson_interval(3, 5)
    assert scores.strong.interval == wilson_interval(2, 3)
    assert scores.weak.interval == wilson_interval(1, 2)
    assert scores.silent.interval == wilson_interval(2, 5)
    assert scores.audio_gain.interval == paired_bootstrap([0, 1, -1, 0, 1])
    assert scores.strong_audio_gain.interval == paired_bootstrap([1, 0, 1])


def test_unparsed_answers_stay_in_the_denominator():
    heard = dict.fromkeys("abcdefgh") | {"a": True}
    result = score(predictions("audio", heard), predictions("silence", dict.fromkeys("abcdefgh")), {"a", "b"})
    assert (result.n_total, result.n_parsed, result.n_parsed_silent) == (8, 1, 0)
    assert (result.accuracy.value, result.strong.value, result.silent.value) == (1 / 8, 1 / 2, 0.0)


def test_without_labels_the_number_of_strong_rows_is_not_known_and_not_zero():
    result = score(predictions("audio", HEARD), None, None)
    assert (result.n_strong, result.strong, result.weak) == (None, None, None)
    assert "| 5 (–) |" in markdown_table({"m": result}, {})


def test_pairs_are_made_by_row_and_not_by_place(scores):
    backwards = score(reversed(predictions("audio", HEARD)), predictions("silence", UNHEARD), STRONG)
    assert backwards == scores


def test_without_strong_or_without_weak_rows_that_measure_is_absent():
    all_weak = score(predictions("audio", HEARD), predictions("silence", UNHEARD), set())
    assert (all_weak.n_strong, all_weak.strong, all_weak.strong_audio_gain) == (0, None, None)
    assert all_weak.weak == all_weak.accuracy
    all_strong = score(predictions("audio", HEARD), predictions("silence", UNHEARD), set(HEARD))
    assert all_strong.weak is None
    assert all_strong.strong_audio_gain == all_strong.audio_gain
    assert "–" in markdown_table({"m": all_weak}, {})


@pytest.mark.parametrize(
    ("audio", "silence", "strong", "message"),
    [
        (["a", "b", "x1"], ["a", "b"], [], "with audio but not with silence: x1"),
        (["a", "b"], ["a", "b", "x1", "x2"], [], "2 rows are answered with silence but not with audio: x1, x2"),
        (["a", "b", "b"], ["a", "b"], [], "1 predictions with audio repeat a row key: b"),
        (["a", "b"], ["a", "a", "b"], [], "1 predictions with silence repeat a row key: a"),
        (["a"], ["a"], ["a", "z"], "strong rows have no prediction: z"),
        ([], [], [], "no predictions with audio"),
        (["a"], [], [], "no predictions with silence"),
        (["a"], [f"k{i}" for i in range(10)] + ["a"], [], "k0, k1, k2, k3, k4 and 5 more"),
    ],
)
def test_predictions_that_do_not_pair_up_are_named(audio, silence, strong, message):
    heard = [record for key in audio for record in predictions("audio", {key: True})]
    unheard = [record for key in silence for record in predictions("silence", {key: True})]
    with pytest.raises(ValueError, match=message):
        score(heard, unheard, set(strong))


def test_answers_of_the_wrong_control_are_refused():
    with pytest.raises(ValueError, match="with audio have another control: a"):
        score(predictions("silence", {"a": True}), predictions("silence", {"a": True}), set())
    with pytest.raises(ValueError, match="with silence have the control 'audio': a"):
        score(predictions("audio", {"a": True}), predictions("audio", {"a": True}), set())


def test_the_markdown_table_has_a_line_per_model_and_per_baseline(scores):
    table = markdown_table({"base|tuned": scores}, {"always_first": 0.398, "random": 0.264})
    head, rule, model, first, random = table.splitlines()
    assert head == (
        "| model | rows (strong) | parsed | parsed, silent | accuracy | strong | weak | silent | audio gain "
        "| strong audio gain |"
    )
    assert rule.count("---") == 10
    assert model.startswith(r"| base\|tuned | 5 (3) | 4 | 4 | 60.0 [23.1, 88.2] | 66.7 [")
    assert first == "| always first | – | – | – | 39.8 | – | – | – | – | – |"
    assert random == "| random | – | – | – | 26.4 | – | – | – | – | – |"


def test_scores_become_plain_data_for_json(scores):
    assert asdict(scores)["accuracy"]["interval"]["low"] == pytest.approx(0.2307, abs=1e-4)


def test_scoring_needs_no_plotting_library():
    code = "import sys, audiomcq.evaluation.report; sys.exit('matplotlib' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
