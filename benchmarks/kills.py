"""Run the thirty kills of tests/test_kills.py and write what came of them to docs/results/kills.md.

python benchmarks/kills.py                  # run them
python benchmarks/kills.py report.xml ...   # or read reports of parts (pytest -m check tests/test_kills.py -k sft-1 --junitxml=report.xml)
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
again with the documented line. *Killed at*: how far it was, in steps of training, shards of answers, answers of a model, or requests to the Hub.
*Lost* and *repeated*: steps, votes, answers or published files that are missing or there twice at the end. *Equal*: the final files are those of a
job that nobody disturbed, byte for byte (votes: with the same completions).

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
    said: dict[str, str] = {}
    for each in kills:  # the longest says most
        job = each["job"].split(",")[0]
        said[job] = max(said.get(job, ""), each["said"], key=len)
    words = [f"- {job}: `{line}`" for job, line in said.items()]
    return HEAD + "\n".join(lines) + "\n" + WORDS + "\n".join(words) + "\n"


def read_kills(reports: list[Path]) -> list[dict[str, Any]]:
    """Return the outcomes in pytest's reports, training first."""
    found = [each for report in reports for each in ElementTree.parse(report).iterfind(".//property[@name='kill']")]
    kills = [json.loads(each.attrib["value"]) for each in found]
    order = ["SFT", "GRPO", "probing", "answering", "building", "publishing"]
    return sorted(kills, key=lambda each: (order.index(each["job"].split(",")[0]), each["processes"]))


def main() -> None:
    code, reports = 0, [Path(name) for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        if not reports:
            reports = [Path(folder) / "report.xml"]
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-m",
                "check",
                "tests/test_kills.py",
                f"--junitxml={reports[0]}",
            ]
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
        kills = read_kills(reports)
    PAGE.write_text(write_page(kills))
    sys.exit(code)


if __name__ == "__main__":
    main()
