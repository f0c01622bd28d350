"""Score as the paper did before April 2026: by sets of words, which ignore the order of the words in an answer.

The authors of arXiv 2509.21060 withdrew their MMSU figures, since options such as "high-low-medium" and
"low-high-medium" are one set. This rule stands beside the strict one so that the difference can be seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from audiomcq.evaluation.official import ambiguous_items, submit_option, token_set_rule
from audiomcq.evaluation.report import Prediction, estimate_accuracy, estimate_gain
from audiomcq.examples import Row, row_key


def compare_with_token_sets(rows: Iterable[Row], answers: Mapping[str, Prediction]) -> dict[str, Any]:
    """Estimate the accuracy by sets of words, and by how much it exceeds the strict one.

    What is compared is the text of the chosen option, else the completion without its answer tag.

    Args:
        answers: predictions with audio, by row key.

    Returns:
        accuracy; over_strict (with its paired-bootstrap interval); any_order, the row keys of the wrong options that
        were chosen and are right by their words; n_unread, the answers that choose no option and have the right words;
        n_ambiguous, the items on which a wrong option is accepted.
    """
    rows = list(rows)
    strict, ignoring, any_order, unread = [], [], [], 0
    for row in rows:
        key = row_key(row)
        if (answer := answers.get(key)) is None:
            continue
        text = submit_option(row["choices"], answer["choice"], answer["completion"])
        strict.append(bool(answer["correct"]))
        ignoring.append(token_set_rule(text, row["choices"], row["answer"]))
        if ignoring[-1] and not strict[-1]:
            unread += answer["choice"] is None
            any_order += [key] * (answer["choice"] is not None)
    over = [int(loose) - int(exact) for loose, exact in zip(ignoring, strict, strict=True)]
    return {
        "accuracy": asdict(estimate_accuracy(ignoring)),
        "over_strict": asdict(estimate_gain(over)),
        "any_order": any_order,
        "n_unread": unread,
        "n_ambiguous": len(ambiguous_items(rows, token_set_rule)),
    }
