"""What is said to a vLLM server that samples rollouts: one request a prompt, and the adapter of each step."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from audiomcq.collation import EncodedPrompt
from audiomcq.conversations import find_clips, replace_clips
from audiomcq.endpoints import Endpoint
from audiomcq.inference.client import EndpointError, audio_part, audio_uri, open_client, request, request_completion
from audiomcq.rollout_options import server_url

logger = logging.getLogger(__name__)

START = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora, and --max-lora-rank of at least the adapter's rank "
    "(docs/server_rollouts.md)"
)
_SAME = 1e-3
"""Log-probs that differ by less are the same: two requests alike may be computed in batches of different size."""


class RolloutError(ValueError):
    """Rollouts of a server that are not there, or not to be used."""


@dataclass(frozen=True)
class Sampled:
    """Completions of one prompt.

    Attributes:
        token_ids: of each completion, with the token that ended it.
        logps: of each of these tokens, in nats, as the server sampled it.
    """

    token_ids: list[list[int]]
    logps: list[list[float]]


class RolloutServer:
    """A vLLM server and the adapter that this run has loaded there.

    Args:
        url: of the server, with or without /v1.
        timeout_seconds: how long one request may take.

    Attributes:
        adapter: the name by which the server knows the adapter; None before one is loaded.

    Raises:
        ValueError: `openai` is not installed, or the URL is none.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.endpoint = Endpoint(server_url(url), "", timeout_seconds=timeout_seconds, retries=0)
        self.client = open_client(self.endpoint)
        self.adapter: str | None = None

    def list_models(self) -> list[str]:
        """List what the server serves: its base model, then adapters.

        Raises:
            EndpointError: it does not answer.
        """
        models = request(self.client.models.list, self.endpoint, "its models").data
        return [model.id for model in models]

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter from a folder that the server can read, and unload the one before.

        Raises:
            EndpointError: the server does not answer.
            RolloutError: it refuses.
        """
        try:
            self._post("load_lora_adapter", {"lora_name": name, "lora_path": str(folder.absolute())})
        except EndpointError as error:
            if error.status is None or error.status in (429, 503):
                raise
            raise RolloutError(f"{error}: the server does not take the adapter {folder}; {START}") from error
        before, self.adapter = self.adapter, name
        if before is not None:
            self.unload(before)

    def unload(self, name: str) -> None:
        """Unload an adapter; one that cannot be unloaded costs the server memory and nothing else."""
        try:
            self._post("unload_lora_adapter", {"lora_name": name})
        except EndpointError as error:
            logger.warning("the adapter %s stays loaded: %s", name, error)

    def _post(self, path: str, body: Mapping[str, str]) -> None:
        post = partial(self.client.post, f"/{path}", cast_to=str, body=body)
        request(post, self.endpoint, f"{path} {body['lora_name']}")

    def ask(
        self, prompt: EncodedPrompt, count: int, seed: int, sampling: Mapping[str, Any], model: str | None = None
    ) -> Sampled:
        """Sample `count` completions of a prompt, which travels once.

        Args:
            model: the base model or an adapter, by name; this run's adapter by default.

        Raises:
            EndpointError: the server does not answer.
            RolloutError: it answers another prompt, or not in full.
        """
        endpoint = replace(self.endpoint, model=model or self.adapter or "")
        messages = _write_messages(prompt)
        completion = request_completion(
            self.client, endpoint, messages, "a rollout", n=count, seed=seed, **sampling
        ).model_dump()
        return _read(completion, prompt, count, endpoint.url)

    def applies(self, adapter: str, prompt: EncodedPrompt, sampling: Mapping[str, Any]) -> bool:
        """Tell whether the answers of the base model are other ones with an adapter.

        vLLM leaves out parts of an adapter whose names it does not know, without a word.
        """
        base = self.ask(prompt, 1, 0, sampling, self.list_models()[0])
        adapted = self.ask(prompt, 1, 0, sampling, adapter)
        pairs = zip(base.logps[0], adapted.logps[0], strict=False)
        return base.token_ids != adapted.token_ids or any(abs(one - other) > _SAME for one, other in pairs)


def _write_messages(prompt: EncodedPrompt) -> list[Any]:
    """Write a prompt's messages for OpenAI's API, with the very samples that were encoded."""
    messages = prompt.messages
    if messages is None or isinstance(messages, str):
        raise RolloutError(
            "rollouts: a prompt is a text; give messages, to which the server applies its chat template"
        )
    uris = [audio_part(audio_uri(samples)) for samples in find_clips(messages)]  # type: ignore[arg-type]
    written, rest = [], iter(uris)
    for message in replace_clips(messages, uris):
        parts = [next(rest) if part["type"] == "audio" else part for part in message["content"]]  # type: ignore[index]
        written.append({**message, "content": parts})  # type: ignore[dict-item]
    return written


def _read(completion: Mapping[str, Any], prompt: EncodedPrompt, count: int, url: str) -> Sampled:
    """Read the tokens and log-probs of an answer, after checking that it is about this prompt."""
    choices = sorted(completion["choices"], key=lambda choice: choice["index"])
    if len(choices) != count:
        raise RolloutError(
            f"endpoint {url}: gave {len(choices)} completions of {count}: does something between cut n?"
        )
    asked = completion.get("prompt_token_ids")
    if asked is None or any(choice.get("token_ids") is None for choice in choices):
        raise RolloutError(
            f"endpoint {url}: gives no token ids (return_token_ids); serve the model with vLLM 0.10.2 or newer"
        )
    if asked != prompt.input_ids:
        raise RolloutError(f"endpoint {url}: {_compare_prompts(asked, prompt.input_ids)}")
    sampled = Sampled(
        [choice["token_ids"] for choice in choices],
        [[each["logprob"] for each in (choice["logprobs"] or {}).get("content") or ()] for choice in choices],
    )
    if any(not ids or len(ids) != len(logps) for ids, logps in zip(sampled.token_ids, sampled.logps, strict=True)):
        raise RolloutError(
            f"endpoint {url}: gives no log-prob for each token; it must not be started with --max-logprobs 0"
        )
    return sampled


def _compare_prompts(theirs: list[int], ours: list[int]) -> str:
    """Say where the server's prompt departs from ours, and why it may."""
    pairs = enumerate(zip(theirs, ours, strict=False))
    place = next((index for index, (one, other) in pairs if one != other), min(len(theirs), len(ours)))
    return (
        f"its prompt has {len(theirs)} tokens and ours {len(ours)}; from token {place} on they are {theirs[place : place + 4]} "
        f"there and {ours[place : place + 4]} here: serve the same model with the same tokenizer, chat template and processor"
    )
