"""Run the thirty kills of tests/test_kills.py and write what came of them to docs/results/kills.md.

python benchmarks/kills.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "kills.md"
HEAD = """# Thirty kills

`python benchmarks/kills.py`, which runs `tests/test_kills.py` (`make check`) and writes this page. Every job is killed at a random moment and started
again with the documented line. *Killed at*: how far it was, in steps of training, shards of answers, answers of a model, or requests to the Hub. *Lost* and
*repeated*: steps, votes, answers or published files that are missing or there twice at the end. *Equal*: the final files are those of a job that nobody
disturbed, byte for byte (votes: with the same completions).

| job | processes | signal | exit codes | killed at | lost | repeated | equal |
| --- | ---: | --- | --- | --- | ---: | ---: | --- |
"""
WORDS = """
## What they say at their end

Of SIGTERM and SIGINT, the last line on stderr; the exit code is 75.

"""


def write_page(kills: list[dict[str, Any]]) -> str:
    """Return the page of what became of the killed jobs."""
    lines = []
    for each in kills:
        codes = ", ".join(map(str, each["codes"]))
        equal = "yes" if each["equal"] else "**no**"
        row = [
            each["job"],
            each["processes"],
            each["signal"],
            codes,
            each["at"],
            each["lost"],
            each["repeated"],
            equal,
        ]
        lines.append(f"| {' | '.join(map(str, row))} |")
    said = {each["job"].split(",")[0]: each["said"] for each in kills if each["said"]}
    words = [f"- {job}: `{line}`" for job, line in said.items()]
    return HEAD + "\n".join(lines) + "\n" + WORDS + "\n".join(words) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "check",
            "tests/test_kills.py",
            f"--junitxml={report}",
            *sys.argv[1:],
        ]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        found = ElementTree.parse(report).iterfind(".//property[@name='kill']")
        kills = [json.loads(each.attrib["value"]) for each in found]
    PAGE.write_text(write_page(kills))
    sys.exit(code)


if __name__ == "__main__":
    main()
