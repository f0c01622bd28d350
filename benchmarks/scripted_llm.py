"""A server that writes questions as a language model would be asked to, and misbehaves as told. A process of its own.

python benchmarks/scripted_llm.py --folder DIR [--latency 0.05] [--faults 0.3]

Writes its port to DIR/port, and a line to DIR/requests.jsonl for every answer, before and after it is sent.
"""

import argparse
import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULTS = (
    "429",
    "500",
    "invalid_json",
    "truncated_json",
    "wrong_schema",
    "refusal",
    "hang",
    "half_a_stream",
    "not_distinct",
    "low_grade",
    "layout",
)
PASSING = ("429", "500", "hang", "half_a_stream")
"""Faults of the transfer, which the client tries again."""
_SOUNDS = (
    "a dog barking twice",
    "rain on a tin roof",
    "a passing train",
    "an engine that starts",
    "footsteps on gravel",
    "a ringing telephone",
    "breaking glass",
    "children laughing",
    "a church bell",
    "boiling water",
)


def write_reply(stage: str, prompt: str, draw: random.Random, deaf: int = 0) -> dict[str, Any]:
    """Return a good reply of a stage; every `deaf`-th of a model that hears picks an option at random."""
    if stage == "question":
        types = re.search(r"question_type is what the question is about: (.*)\.", prompt)[1].split(", ")
        opening = draw.choice(("Which sound is", "What can be", "Which event is"))
        place = draw.choice(("at the start", "near the end", "in the background", "after the pause", "most clearly"))
        return {
            "question": f"{opening} heard {place}?",
            "question_type": draw.choice(types),
            "answer": draw.choice(_SOUNDS),
        }
    if stage == "options":
        answer = re.search(r"Correct answer: (.*)", prompt)[1]
        return {"wrong_options": draw.sample([sound for sound in _SOUNDS if sound != answer], 3)}
    if stage == "paraphrase":
        wrong = re.findall(
            r"^\d+\. (.*)$", prompt.partition("Wrong options:")[2].partition("\nWrite ")[0], re.MULTILINE
        )
        return {"wrong_options": [f"{text}, in other words" for text in wrong]}
    if stage == "structured_cot":
        return {
            "analysis": "the wording asks which of several events is heard",
            "reasons": "the described event fits one option and none of the others",
        }
    if stage == "unstructured_cot":
        return {"text": "The question asks for a sound. The clip holds it, and none of the other sounds is there."}
    if stage == "grades":
        return dict.fromkeys(re.findall(r"^- (\w+): ", prompt.partition("Give a whole")[2], re.MULTILINE), 5)
    if stage == "rubric_grades":
        names = re.findall(r"^\d+\. (.*)$", prompt.partition("Criteria:")[2], re.MULTILINE)
        return {
            "grades": [{"name": name, "score": draw.choice((0, 1)), "justification": "it says so"} for name in names]
        }
    if stage == "audio_cot":
        options = re.findall(r"^- (.*)$", prompt, re.MULTILINE)
        return {
            "thought": "I hear one event that stands out clearly against silence.",
            "answer": draw.choice(options) if deaf and draw.randrange(deaf) == 0 else options[0],
        }
    raise ValueError(stage)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "ScriptedLLM"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.answer(self, body)

    def send(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class ScriptedLLM(ThreadingHTTPServer):
    """Answers by stage. What it does on the n-th request for one prompt depends on prompt and n alone.

    Args:
        latency: seconds before an answer.
        faults: share of requests that meet one of `kinds`; a prompt meets at most one fault of the transfer in a row.
        steady: whether every request for one prompt is answered as the first.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        folder: Path,
        latency: float,
        faults: float,
        kinds: tuple[str, ...],
        deaf: int = 0,
        steady: bool = False,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.steady = steady
        self.latency, self.faults, self.kinds, self.deaf = latency, faults, kinds, deaf
        self.lock, self.times = threading.Lock(), Counter[str]()
        self.log = (folder / "requests.jsonl").open("a", buffering=1)

    def answer(self, handler: Handler, body: dict[str, Any]) -> None:
        key = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
        with self.lock:
            self.times[key] += 1
            time_asked = 1 if self.steady else self.times[key]
        draw = random.Random(f"{key}/{time_asked}")
        fault = draw.choice(self.kinds) if draw.random() < self.faults and time_asked % 2 else None
        stage = body["response_format"]["json_schema"]["name"]
        time.sleep(self.latency)
        self.note(key, stage, fault, "sending")
        self.send(handler, fault, stage, body, draw)
        self.note(key, stage, fault, "sent")

    def note(self, key: str, stage: str, fault: str | None, when: str) -> None:
        with self.lock:
            self.log.write(json.dumps([time.time(), key, stage, fault, when]) + "\n")

    def send(self, handler: Handler, fault: str | None, stage: str, body: dict[str, Any], draw: random.Random) -> None:
        if fault == "429":
            return handler.send(429, b'{"error": {"message": "slow down"}}', Retry_After="0.2")
        if fault == "500":
            return handler.send(500, b'{"error": {"message": "out of memory"}}')
        if fault == "hang":
            time.sleep(3)
            handler.close_connection = True
            return None
        content = body["messages"][0]["content"]
        prompt = content if isinstance(content, str) else content[-1]["text"]
        reply = write_reply(stage, prompt, draw, self.deaf)
        text, finish, refusal = json.dumps(reply), "stop", None
        if fault == "invalid_json":
            text = "Sure! Here it is: " + text
        elif fault == "truncated_json":
            text, finish = text[: len(text) // 2], "length"
        elif fault == "wrong_schema":
            text = json.dumps({"reply": reply})
        elif fault == "refusal":
            text, refusal = None, "I cannot help with that."
        elif fault == "not_distinct" and stage in ("options", "paraphrase"):
            text = json.dumps({"wrong_options": [reply["wrong_options"][0]] * 3})
        elif fault == "layout" and stage == "structured_cot":
            text = json.dumps({**reply, "analysis": "it asks what is heard, so the question type is sound"})
        elif fault == "foreign_score" and stage == "rubric_grades":
            text = json.dumps({"grades": [{**grade, "score": 0.5} for grade in reply["grades"]]})
        elif fault == "low_grade" and stage == "grades":
            text = json.dumps({**reply, "language_fluency": 2})
        message = {"role": "assistant", "content": text, "refusal": refusal}
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text or "") // 4}
        whole = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {**usage, "total_tokens": sum(usage.values())},
            }
        ).encode()
        if fault == "half_a_stream":
            handler.send(200, whole[: len(whole) // 2], length=len(whole))
            handler.close_connection = True
            return None
        return handler.send(200, whole)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--kinds", nargs="*", default=list(FAULTS))
    parser.add_argument("--deaf", type=int, default=0)
    parser.add_argument("--steady", action="store_true")
    args = parser.parse_args()
    server = ScriptedLLM(args.folder, args.latency, args.faults, tuple(args.kinds), args.deaf, args.steady)
    partial = args.folder / "port.partial"
    partial.write_text(str(server.server_port))
    partial.rename(args.folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
