"""The `evaluate` metric: loads from its folder with networking off and agrees with the matcher."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from audiomcq.answers import is_correct, parse_answer

FOLDER = Path(__file__).parents[1] / "metrics" / "audio_mcq_accuracy"
QUESTIONS = [
    ("<answer>Rain</answer>", "rain", ["rain", "a dog"], "sound"),
    ("(B)", "a dog", ["rain", "a dog"], "sound"),
    ("a tall woman", "woman", ["man", "woman"], "speech"),
    ("who knows", "man", ["man", "woman"], "speech"),
    ("From near to far", "From far to near", ["From near to far", "From far to near"], "order"),
    ("", "C", ["C#", "C"], "order"),
    ("thirteen", "thirteen", ["thirteen", "five", "thirteen"], "order"),
]
PROGRAM = """
import json, socket, sys

def refuse(*_):
    raise OSError("networking is off")

socket.socket.connect = socket.getaddrinfo = refuse
import evaluate

folder, questions = sys.argv[1], json.loads(sys.stdin.read())
predictions, references, choices, groups = map(list, zip(*questions))
metric = evaluate.load(folder)
results = {"grouped": metric.compute(predictions=predictions, references=references, choices=choices, groups=groups)}
for start in (0, 3):
    part = slice(start, start + 3 if not start else None)
    metric.add_batch(predictions=predictions[part], references=references[part], choices=choices[part])
results["batched"] = metric.compute()
for name, kwargs in {
    "stranger": {"predictions": ["x"], "references": ["z"], "choices": [["x", "y"]]},
    "groups": {"predictions": ["x"], "references": ["x"], "choices": [["x", "y"]], "groups": []},
    "empty": {"predictions": [], "references": [], "choices": []},
}.items():
    try:
        metric.compute(**kwargs)
    except ValueError as error:
        results[name] = str(error)
print(json.dumps(results))
"""


def without_network() -> list[str]:
    """A prefix that takes the network away from a program, where the system lets us."""
    prefix = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        return prefix if subprocess.run([*prefix, "true"], capture_output=True, timeout=60).returncode == 0 else []
    except FileNotFoundError:
        return []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    environment = os.environ | {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_EVALUATE_OFFLINE": "1"}
    command = [*without_network(), sys.executable, "-c", PROGRAM, str(FOLDER)]
    run = subprocess.run(
        command, input=json.dumps(QUESTIONS), capture_output=True, text=True, env=environment, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_it_loads_without_a_network_and_agrees_with_the_matcher(results: dict) -> None:
    parsed = [(parse_answer(text, choices), choices, gold) for text, gold, choices, _ in QUESTIONS]
    right = [is_correct(*question) for question in parsed]
    assert right == [True, True, False, False, False, False, True]
    read = dict(Counter(answer.how for answer, _, _ in parsed))
    n_parsed = sum(answer.choice is not None for answer, _, _ in parsed)
    counts = {"accuracy": 3 / 7, "n_total": 7, "n_parsed": n_parsed, "read": read}
    assert results["batched"] == counts
    assert {name: results["grouped"][name] for name in counts} == counts


def test_groups_have_their_own_denominators(results: dict) -> None:
    assert results["grouped"]["groups"] == {
        "order": {"accuracy": 1 / 3, "n_total": 3, "n_parsed": 2, "read": {"bare": 2, "unreadable": 1}},
        "sound": {"accuracy": 1.0, "n_total": 2, "n_parsed": 2, "read": {"tag": 1, "letter": 1}},
        "speech": {"accuracy": 0.0, "n_total": 2, "n_parsed": 0, "read": {"unreadable": 2}},
    }


def test_bad_input_is_named(results: dict) -> None:
    assert results["stranger"] == "the reference 'z' is none of the choices ['x', 'y']"
    assert results["empty"] == "there are no predictions: an accuracy needs at least one"
    assert results["groups"] == "0 groups for 1 predictions: give one per prediction"


def test_the_metric_has_no_matcher_of_its_own() -> None:
    code = (FOLDER / "audio_mcq_accuracy.py").read_text()
    assert "parsed = parse_answer(" in code
    assert not re.search(r"import re\b|\.lower\(|casefold", code)
