"""Start benchmarks/scripted_llm.py beside a test, and read what it was asked."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import processes

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scripted_llm.py"


@dataclass(frozen=True)
class Asked:
    """One answer of the server; `key` is the same for the same request."""

    time: float
    key: str
    stage: str
    fault: str | None
    when: str


@dataclass(frozen=True)
class Server:
    folder: Path

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{(self.folder / 'port').read_text()}/v1#scripted"

    def asked(self) -> list[Asked]:
        lines = (self.folder / "requests.jsonl").read_text().splitlines()
        return [Asked(*json.loads(line)) for line in lines]

    def count(self, when: str = "sent") -> Counter[str | None]:
        return Counter(each.fault for each in self.asked() if each.when == when)


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[Server]:
    folder.mkdir()
    with processes.running([sys.executable, SCRIPT, "--folder", folder, *options]) as process:
        while not (folder / "port").exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield Server(folder)
