"""How a model that is asked is named: a folder, a Hub id, one of these after `text:` where only its language model is asked, or
an OpenAI-compatible server as `URL#model`.

A voter's name goes into tables, records, logs and messages, so no key may be part of it.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

API_KEY_VARIABLE = "AUDIOMCQ_API_KEY"
"""Environment variable with the key of a server that wants one. Not OPENAI_API_KEY: that one belongs to another company's
server and must not travel to whatever URL a YAML names."""
TEXT_VOTER = "text:"
"""Stands before a folder or Hub id whose language model alone votes: any causal LM, or that of a LALM."""
_KEY_REMEDY = (
    f"a key belongs in the environment variable {API_KEY_VARIABLE}, since voters' names are written to tables and logs"
)


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server as a voter.

    Attributes:
        url: base URL, e.g. http://127.0.0.1:8000/v1.
        model: the name by which the server knows the model.
        concurrency: requests under way at most.
        timeout_seconds: how long to wait for one answer.
        retries: further attempts after a time-out, a lost connection, half an answer, 408, 409, 429 or 5xx; they wait
            0.5, 1, 2, 4, then 8 s each, less up to a quarter, or as long as Retry-After says (120 s at most).

    Raises:
        ValueError: the URL is none, or carries a password or a query. It is not repeated, since it may hold a key.
    """

    url: str
    model: str
    concurrency: int = 16
    timeout_seconds: float = 120.0
    retries: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _plain_url(self.url))
        if re.search(r"[?&=\s]", self.model):
            raise ValueError(f"endpoint {self.url}: what stands after its '#' is no name of a model; {_KEY_REMEDY}")


def _plain_url(url: str) -> str:
    """A base URL in the one spelling that it has here.

    Raises:
        ValueError: see `Endpoint`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Not its own words: they repeat what it could not read
        host, port, parts = None, None, urlsplit("")
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https") or not host:
        raise ValueError(
            f"endpoint: not a URL such as http://127.0.0.1:8000/v1 (it is not repeated here); {_KEY_REMEDY}"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"endpoint at {host}: its URL carries a password or a query; {_KEY_REMEDY}")
    usual = {"http": 80, "https": 443}[scheme]
    place = f"[{host}]" if ":" in host else host
    return f"{scheme}://{place}{'' if port in (None, usual) else f':{port}'}{parts.path.rstrip('/')}"


def parse_voter(text: str, concurrency: int = 16, timeout_seconds: float = 120.0) -> Endpoint | None:
    """Parse a voter's name as an endpoint, `URL#model` (http://127.0.0.1:8000/v1#Qwen/Qwen2-Audio-7B-Instruct);
    None for every other text, which is a local path or a Hub id.

    Raises:
        ValueError: a URL without a model's name, or with a password or a query in it.
    """
    if "://" not in text:
        return None
    url, _, model = text.partition("#")
    endpoint = Endpoint(url, model.strip(), concurrency, timeout_seconds)
    if not endpoint.model:
        raise ValueError(
            f"voter {endpoint.url}: say which model after a '#', e.g. {endpoint.url}#Qwen/Qwen2-Audio-7B-Instruct"
        )
    return endpoint


def is_text_voter(name: str) -> bool:
    """Tell whether a voter is a language model without ears, `text:NAME`."""
    return name.startswith(TEXT_VOTER)


def voter_name(text: str) -> str:
    """Return the one name of a model that votes, however it is spelled: a folder, a Hub id with or without a revision, either of
    them after `text:`, or `URL#model`.

    Raises:
        ValueError: it is none of these; it is not repeated, since it may hold a key.
    """
    text = text.strip()
    if is_text_voter(text):
        name = voter_name(text.removeprefix(TEXT_VOTER))
        if parse_voter(name) or is_text_voter(name):
            raise ValueError(
                f"voter {text}: a server under control no_audio is asked without audio already; give its URL#model alone"
            )
        return TEXT_VOTER + name
    if endpoint := parse_voter(text):
        return f"{endpoint.url}#{endpoint.model}"
    if text and Path(text).exists():
        folder = Path(os.path.abspath(text))  # noqa: PTH100 - a link keeps its name
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
    if re.search(r"[#?&=:\s]", text):
        raise ValueError(
            f"a voter is neither a folder nor a Hub id nor a URL such as http://127.0.0.1:8000/v1#model (not repeated here); {_KEY_REMEDY}"
        )
    return text.removesuffix("@main")


def short_names(names: Sequence[str], longest: int = 24) -> dict[str, str]:
    """Shorten names of models, which may be long paths or ids, to names that still differ from each other.

    A path is reduced to its last part, or to as many as tell it from the others; what is still too long loses its
    middle.
    """
    if texts := [name for name in names if is_text_voter(name)]:
        heard = short_names([name for name in names if name not in texts], longest)
        plain = [name.removeprefix(TEXT_VOTER) for name in texts]
        told = short_names(plain, longest - len(TEXT_VOTER))
        return {
            name: TEXT_VOTER + told[name.removeprefix(TEXT_VOTER)] if name in texts else heard[name] for name in names
        }
    short = {}
    for name in names:
        parts = [part for part in name.rstrip("/").split("/") if part] or [name]
        taken = 1 if len(name) > longest or Path(name).is_absolute() else len(parts)
        while taken < len(parts) and any(_ends_alike(name, other, taken) for other in names if other != name):
            taken += 1
        short[name] = _cut_middle("/".join(parts[-taken:]), longest)
    alike = [name for name in names if sum(short[name] == each for each in short.values()) > 1]
    for number, name in enumerate(alike, 1):
        short[name] = _cut_middle(short[name], longest - len(f" ({number})")) + f" ({number})"
    return short


def _ends_alike(name: str, other: str, parts: int) -> bool:
    return name.rstrip("/").split("/")[-parts:] == other.rstrip("/").split("/")[-parts:]


def _cut_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 2
    return f"{text[: longest - end - 1]}…{text[len(text) - end :]}"
