"""Answers of a model as a build keeps them, made up."""

from audiomcq.construction.responses import Response, make_key


def response(number: int, **changes: object) -> Response:
    values = {
        "key": make_key("m", f"prompt {number}", "s/1", 0, {}),
        "source_row": f"s/{number}",
        "stage": "question",
        "prompt_version": "question-1.abc",
        "model": "m",
        "attempt": 0,
        "finish_reason": "stop",
        "text": f"text {number} \u2028 ü",
        "refusal": None,
        "prompt_tokens": number,
        "completion_tokens": 2,
        "seconds": 0.5,
    }
    return Response(**{**values, **changes})
