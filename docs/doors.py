"""Take the README's three doors literally in a fresh clone, and write what was typed, what it took and what it printed.

    python docs/doors.py                              # all of it: docs/results/doors.md
    python docs/doors.py --venv .venv --demo outputs/demo --page outputs/doors.md    # without installing and without make demo

The commands are those of the README, from "Install" to the end of the doors, in their order. Where weights, a benchmark or
GPUs would be needed, `STAND_INS` puts tiny models, rows and the CPU in their place. The first command that fails ends the walk.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODELS = "outputs/demo/models"
ON_CPU = "--use_cpu true --bf16 false --dtype float32 --max_steps 5"
ROWS = f"--dataset outputs/labelled --audio_root null {ON_CPU}"
ASKED = "--benchmark null --dataset outputs/labelled --dataset_split train"
LEFT_OUT = {
    "make test": "it takes half an hour, and CI runs it at every change",
    "pip install -c constraints.txt -e '.[deepspeed]'": "for several GPUs, and there is none",
}
STAND_INS = {
    "https://github.com/OWNER/audiomcq": "file://localhostHERE/audiomcq",
    "pip install 'audiomcq[peft] @ git+": "pip install --dry-run 'audiomcq[peft] @ git+",
    "--voters Qwen/Qwen2.5-Omni-3B Qwen/Qwen2-Audio-7B-Instruct mispeech/r1-aqa": f"--voters {MODELS}/voter1 {MODELS}/voter2 "
    f"{MODELS}/voter3 --silence_seconds 1.5 --max_new_tokens 16",
    '["mispeech/r1-aqa", "Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2.5-Omni-3B"], controls=["silence"]': f'["{MODELS}/voter1", '
    f'"{MODELS}/voter2", "{MODELS}/voter3"], controls=["silence"], silence_seconds=1.5, max_new_tokens=16',
    "--model Qwen/Qwen2.5-Omni-3B --lora --steps 200": f"--model {MODELS}/base --lora --steps 5",
    "--model_name_or_path Qwen/Qwen2.5-Omni-3B": f"--model_name_or_path {MODELS}/base {ON_CPU}",
    "--model_name_or_path outputs/sft": f"--model_name_or_path outputs/sft {ON_CPU}",
    "accelerate_configs/single_gpu.yaml": "accelerate_configs/cpu.yaml",
    "accelerate_configs/zero2.yaml": "accelerate_configs/cpu.yaml",
    "quickstart/grpo.yaml": f"quickstart/grpo.yaml --model_name_or_path {MODELS}/base {ROWS} --audio_contribution null",
    "quickstart/answer.yaml": f"quickstart/answer.yaml --dtype float32 --silence_seconds 1.5 --max_new_tokens 16 {ASKED}",
    "quickstart/score.yaml": f"quickstart/score.yaml {ASKED}",
    "weak_to_strong/sft.py": "weak_to_strong/sft.py --config recipes/weak_to_strong/qwen2_5_omni_7b/sft.yaml "
    f"--model_name_or_path {MODELS}/base {ROWS}",
    "cpu.yaml recipes/weak_to_strong/grpo.py$": "cpu.yaml recipes/weak_to_strong/grpo.py --config "
    f"recipes/weak_to_strong/qwen2_5_omni_7b/grpo.yaml {ROWS}",
}
"""What is typed instead of words of the README; `$` is the end of a command."""
PROGRAMS = ("accelerate", "audiomcq", "make", "pip", "pytest", "python")
LINES, COLUMNS, QUESTIONS = 6, 150, 200


@dataclass
class Typed:
    """A command: the README's heading and words, what was typed, and what came of it, or why it was left out."""

    door: str
    words: str
    typed: str
    seconds: float = 0.0
    exit_code: int = 0
    said: str = ""
    left_out: str = ""


def main() -> None:
    """Type the commands and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="environment to use, instead of installing one")
    parser.add_argument("--demo", type=Path, help="outputs of `make demo` to use, instead of running it")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "doors.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="doors_") as folder:
        place = Path(folder)
        # The copy that is cloned has the repository's name, whatever this folder is called
        subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(place / "here" / "audiomcq")], check=True)
        readme = ["git", "show", "HEAD:README.md"]  # as it will be in the clone
        commands = read_commands(subprocess.run(readme, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for command in commands:
            walk(command, place, args.venv, args.demo)
        head = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(
            head, cwd=place / "audiomcq", capture_output=True, text=True, check=True
        ).stdout.strip()
    args.page.parent.mkdir(parents=True, exist_ok=True)
    args.page.write_text(describe(commands, commit))


def read_commands(readme: str) -> list[Typed]:
    """Read the commands of the doors: lines of shell blocks, whole Python blocks, and programs named in the text."""
    doors = readme[readme.index("## Install") : readme.index("## Every run")]
    door, commands = "", []
    found = re.finditer(
        r"^#+ (?P<heading>[^\n]+)$|^```(?P<kind>\w+)\n(?P<block>.*?)^```|`(?P<span>[^`]+)`", doors, re.M | re.S
    )
    for match in found:
        if match["heading"]:
            door = match["heading"]
        elif match["kind"] == "bash":
            lines = [re.sub(r"(^|\s+)# .*", "", line) for line in match["block"].splitlines()]
            commands += [Typed(door, line, replace(line)) for line in lines if line]
        elif match["kind"] == "python":
            commands.append(Typed(door, "this block of Python", f"python - <<'END'\n{replace(match['block'])}END"))
        elif match["span"] and match["span"].split()[0] in PROGRAMS and " " in match["span"]:
            words = " ".join(match["span"].split())
            commands.append(Typed(door, words, replace(words)))
    return commands


def replace(words: str) -> str:
    """Put stand-ins for what a machine without network and GPU does not have."""
    for readme, stand_in in STAND_INS.items():
        pattern = re.escape(readme.removesuffix("$")) + ("$" if readme.endswith("$") else "")
        words = re.sub(pattern, lambda _, own=stand_in: own, words)
    return words


def walk(command: Typed, place: Path, venv: Path | None, demo: Path | None) -> None:
    """Type one command in the clone and note what came of it, or why it is left out."""
    clone = place / "audiomcq"
    command.left_out = LEFT_OUT.get(command.words, "")
    if venv and command.door == "Install" and re.match(r"python3 -m venv|pip", command.words):
        command.left_out = "an environment was given (`--venv`)"
    if demo and command.words == "make demo":
        command.left_out = "its outputs were given (`--demo`)"
    if command.left_out:
        return
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} $ {command.typed}\n")
    paths = f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"  # as activate does
    environment = {**os.environ, "PATH": paths, "HF_HOME": str(place / "cache"), "COLUMNS": "80"}
    environment.pop("PYTHONPATH", None)
    if venv:
        environment["PYTHONPATH"] = str(clone / "src")
    started = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command.typed.replace("HERE", str(place / "here"))], cwd=clone if clone.exists() else place,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    command.seconds, command.exit_code = time.monotonic() - started, done.returncode
    printed = done.stdout.decode(errors="replace")
    command.said = last_lines(printed, place, venv)
    sys.stderr.write(f"{command.said}\n")
    if command.exit_code:
        sys.exit(f"exit code {command.exit_code}: {command.words}\n{printed[-5000:]}")
    if clone.exists() and not (clone / "my_questions.jsonl").exists():
        prepare(clone, venv, demo)


def prepare(clone: Path, venv: Path | None, demo: Path | None) -> None:
    """Put what was given into the clone, and then, from the demo's rows, the reader's questions."""
    if venv and not (clone / ".venv").exists():
        (clone / ".venv").symlink_to(venv.absolute())
        for name in ("setup.cfg", "constraints.txt", "pyproject.toml"):
            os.utime(clone / name, (0, 0))  # or make would install again
    if demo and not (clone / "outputs" / "demo").exists():
        shutil.copytree(demo, clone / "outputs" / "demo")
    data = clone / "outputs" / "demo" / "data"
    if not (clone / "outputs" / "demo" / "report.md").exists():
        return
    columns = ("id", "source_dataset", "question_type", "audio_path", "question", "choices", "answer")
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()[:QUESTIONS]]
    (clone / "clips").mkdir()
    for row in rows:
        own = Path("clips") / Path(row["audio_path"]).name
        shutil.copyfile(data / row["audio_path"], clone / own)
        row["audio_path"] = str(own)
    lines = [json.dumps({name: row[name] for name in columns}) for row in rows]
    # The README's own row comes first, with a clip of the demo
    readme = (clone / "README.md").read_text()
    shutil.copyfile(clone / rows[0]["audio_path"], clone / "clips" / "1.wav")
    lines.insert(0, re.search(r"```json\n(.*)\n```", readme)[1])  # type: ignore[index]  # the README has one
    (clone / "my_questions.jsonl").write_text("\n".join(lines) + "\n")


def last_lines(text: str, place: Path, venv: Path | None) -> str:
    """Return the last lines that a terminal shows, without colours, bars, Python's warnings and the names of this machine's folders."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    text = re.sub(r"^.*\.py:\d+: \w*Warning: .*\n(  .*\n)?", "", text, flags=re.M)
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    shown = [line for line in lines if line and "%|" not in line][-LINES:]
    names = {str(place / "here"): "HERE", f"{place}/": "", str(Path.home()): "~"}
    if venv:
        names[str(venv.resolve())] = ".venv"
    for own, name in names.items():
        shown = [line.replace(own, name) for line in shown]
    return "\n".join(line[:COLUMNS] for line in shown)


def describe(commands: list[Typed], commit: str) -> str:
    """Write the page: the times, what stood in for what, and the transcript."""
    done = [each for each in commands if not each.left_out]
    lines = [
        "# The README's doors, taken literally",
        "",
        f"Written by `python docs/doors.py` at commit {commit} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        "no GPU,",
        f"Python {platform.python_version()}: {len(done)} commands of the README in a fresh clone, in their order, "
        f"{sum(each.seconds for each in done) / 60:.0f} minutes in all.",
    ]
    lines += ["", "| command in the README | seconds | exit code |", "|---|---:|---:|"]
    door = ""
    for each in done:
        if each.door != door:
            door = each.door
            lines.append(f"| **{door}** | | |")
        lines.append(f"| `{each.words}` | {each.seconds:.0f} | {each.exit_code} |")
    lines += ["", "Not typed:", "", *(f"- `{each.words}`: {each.left_out}" for each in commands if each.left_out)]
    lines += [
        "",
        "## What stood in for what",
        "",
        f"`my_questions.jsonl`: the README's row and {QUESTIONS} of the demo's test rows, with clips of two seconds, beyond which the tiny voters know nothing.",
        "",
        "| words of the README | typed instead |",
        "|---|---|",
        *(f"| `{words.removesuffix('$')}` | `{stand_in}` |" for words, stand_in in STAND_INS.items()),
        "",
        "## Transcript",
        "",
        "What was typed, and the last lines that it printed, without progress bars and warnings of Python.",
    ]
    for each in done:
        lines += ["", f"{each.seconds:.0f} s, exit code {each.exit_code}:", "", "```text", f"$ {each.typed}"]
        lines += [each.said, "```"] if each.said else ["```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
