"""A server that samples as vLLM does: OpenAI's API over real HTTP, computed by a tiny model with the adapters that it is told of."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import soundfile
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file

from answer_server import Handler, Reply
from audiomcq.collation import ConversationEncoder, prompt_batch
from audiomcq.models import load_lalm

BASE = "base"


class Sampler:
    """A tiny model behind the server.

    Attributes:
        adapters: names of those that are loaded now.
        loads, unloads: what was asked, in order.
        raw: give log-probs from before the temperature, as vLLM does without processed_logprobs.
        deaf_to_names: load adapters under names that the model does not have, as vLLM would those of another layout.
    """

    def __init__(self, folder: Path) -> None:
        lalm = load_lalm(folder)
        self.encoder = ConversationEncoder(lalm.processor, lalm.family)
        self.model = get_peft_model(lalm.model, LoraConfig(r=1, target_modules=lalm.family.lora_targets))
        self.adapters: list[str] = []
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.raw = self.deaf_to_names = False
        self.lock = threading.Lock()

    def load(self, name: str, folder: Path) -> None:
        # As vLLM's `hf_to_vllm_mapper` reads names: those of the full layout, and without a word no others
        ours = "nowhere." if self.deaf_to_names else "model.model.language_model."
        tensors = {
            key.replace("model.thinker.model.", ours): value
            for key, value in load_file(folder / "adapter_model.safetensors").items()
        }
        # A new adapter draws random numbers first, and the trainer in this process must not miss them
        with self.lock, torch.random.fork_rng(devices=[]):
            self.model.add_adapter(name, LoraConfig.from_pretrained(folder))
            set_peft_model_state_dict(self.model, tensors, adapter_name=name)
            self.adapters.append(name)
            self.loads.append(name)

    def unload(self, name: str) -> None:
        with self.lock:
            self.model.set_adapter("default")
            self.model.delete_adapter(name)
            self.adapters.remove(name)
            self.unloads.append(name)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Sample `n` completions as the body says, each token from a forward of all that stands before it."""
        prompt = self.encoder.encode([[_hear(message) for message in body["messages"]]])[0]
        rows, generator = body["n"], torch.Generator().manual_seed(body["seed"] % 2**62)
        bias = torch.zeros(self.model.config.text_config.vocab_size)
        for token, penalty in body["logit_bias"].items():
            bias[int(token)] = penalty
        batch = prompt_batch([prompt] * rows, 0)
        ids, logps = torch.zeros(rows, 0, dtype=torch.long), torch.zeros(rows, 0)
        with self.lock, torch.no_grad():
            scale = self._choose(body["model"])
            for _ in range(body["max_completion_tokens"]):
                whole = torch.cat([batch["input_ids"], ids], 1)
                inputs = {**batch, "input_ids": whole, "attention_mask": torch.ones_like(whole)}
                logits = scale(inputs)[:, -1] + bias
                scores = (logits / body["temperature"]).log_softmax(-1)
                if body["top_k"] > 0:
                    cut = scores < scores.topk(body["top_k"]).values[:, -1:]
                    scores = scores.masked_fill(cut, -torch.inf).log_softmax(-1)
                token = torch.multinomial(scores.exp(), 1, generator=generator)
                shown = logits.log_softmax(-1) if self.raw else scores
                ids, logps = torch.cat([ids, token], 1), torch.cat([logps, shown.gather(1, token)], 1)
        choices = []
        for index, (tokens, scores) in enumerate(zip(ids.tolist(), logps.tolist(), strict=True)):
            ends = [place for place, token in enumerate(tokens) if token in body["stop_token_ids"]]
            length = ends[0] + 1 if ends else len(tokens)
            content = [{"token": "", "logprob": score, "bytes": None, "top_logprobs": []} for score in scores[:length]]
            choices.append(
                {"index": index, "message": {"role": "assistant", "content": ""}, "token_ids": tokens[:length],
                 "logprobs": {"content": content}, "finish_reason": "stop" if ends else "length"}
            )  # fmt: skip
        return {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices,
                "prompt_token_ids": prompt.input_ids}  # fmt: skip

    def _choose(self, name: str) -> Any:
        if name == BASE:

            def alone(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
                with self.model.disable_adapter():
                    return self.model(**inputs).logits

            return alone
        self.model.set_adapter(name)
        self.model.eval()
        return lambda inputs: self.model(**inputs).logits


def _hear(message: dict[str, Any]) -> dict[str, Any]:
    parts = []
    for part in message["content"]:
        if part["type"] == "audio_url":
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(part["audio_url"]["url"].partition(",")[2])))
            assert rate == 16_000
            part = {"type": "audio", "audio": samples.astype("float32")}
        parts.append(part)
    return {**message, "content": parts}


class _Handler(Handler):
    protocol_version = "HTTP/1.0"  # a connection for each request, so that none outlives the server

    def do_GET(self) -> None:
        names = [BASE, *self.server.sampler.adapters]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in names]
        self.send(200, json.dumps({"object": "list", "data": data}).encode())


def compute(handler: Handler, body: dict[str, Any]) -> None:
    """Answer as vLLM would."""
    sampler = handler.server.sampler
    if handler.path == "/v1/load_lora_adapter":
        sampler.load(body["lora_name"], Path(body["lora_path"]))
        handler.send(200, b"Success")
    elif (name := body.get("model") or body["lora_name"]) not in (BASE, *sampler.adapters):
        handler.send(404, json.dumps({"error": {"message": f"The model `{name}` does not exist."}}).encode())
    elif handler.path == "/v1/unload_lora_adapter":
        sampler.unload(name)
        handler.send(200, b"Success")
    else:
        handler.send(200, json.dumps(sampler.complete(body)).encode())


def change(edit: Any) -> Reply:
    """An answer as vLLM's, with something changed in it."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        answer = handler.server.sampler.complete(body)
        edit(answer)
        handler.send(200, json.dumps(answer).encode())

    return reply


class RolloutEndpoint:
    """The server, which can die and come back at the same port.

    Attributes:
        sampler: its model.
        script: replies to the next completions, one each; then it computes.
        before_load: called with the name of an adapter that is about to be loaded; where it says so, there is no answer.
    """

    def __init__(self, folder: Path) -> None:
        self.sampler, self.script, self.bodies = Sampler(folder), [], []
        self.before_load: Any = None
        self._port, self._http = 0, None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), _Handler)
        self._port, self._http.daemon_threads = self._http.server_address[1], True
        self._http.sampler, self._http.script, self._http.otherwise = self.sampler, [], self._reply
        self._http.asked, self._http.lock = [], threading.Lock()
        self._http.running = self._http.most = 0
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _reply(self, handler: Handler, body: dict[str, Any]) -> None:
        if handler.path == "/v1/chat/completions":
            with self._http.lock:
                self.bodies.append(body)
                reply = self.script.pop(0) if self.script else compute
            reply(handler, body)
            return
        if handler.path == "/v1/load_lora_adapter" and self.before_load and self.before_load(body["lora_name"]):
            return
        compute(handler, body)

    def die(self) -> None:
        """Stop listening, and forget all adapters as a process does that ends."""
        self._http.shutdown()
        self._http.server_close()
        for name in list(self.sampler.adapters):
            self.sampler.unload(name)


@contextmanager
def sampling(folder: Path) -> Iterator[RolloutEndpoint]:
    endpoint = RolloutEndpoint(folder)
    try:
        yield endpoint
    finally:
        endpoint.die()
