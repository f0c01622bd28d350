"""Write an app with a few example rows to a folder that runs as a Space on the Hub."""

import json
import shutil
from collections import Counter
from importlib.metadata import requires
from pathlib import Path

from datasets import Dataset
from huggingface_hub import SpaceCard

import audiomcq
from audiomcq.arguments.publishing import EXAMPLES, REPORT, AppArguments, SpaceArguments
from audiomcq.audio import audio_bytes, describe, load_audio
from audiomcq.contribution.html_report import NO_CLIPS
from audiomcq.contribution.row_pages import FOLDER as ROWS_FOLDER
from audiomcq.datasets import check_clips_inside
from audiomcq.examples import CONTRIBUTION, samples_key
from audiomcq.more_clips import refuse_several
from audiomcq.publishing import licences
from audiomcq.publishing.hub import CARD_FILE, PlannedFile, check_repo_id, push_folder
from audiomcq.storage import replaced_folder

APP_FILES = (CARD_FILE, "app.py")
SETTINGS_FILE = "app.yaml"
_PAGE_HEAD = 200
"""Characters of a report in which it says that no clip is in it."""


def publish_space(args: SpaceArguments, rows: Dataset, app: Path) -> list[PlannedFile]:
    """Write the folder (`args.output_dir`, replaced if an earlier call wrote it) and push it as a Space.

    Args:
        rows: with or without labels; some of them become examples.
        app: folder with app.py and the Space's README.md.

    Returns:
        the files that were uploaded (or would be, with `args.dry_run`).

    Raises:
        ValueError: the model is no Hub id, or an example's licence does not allow redistribution; see also
            `push_folder`.
    """
    check_repo_id(args.repo_id)
    check_repo_id(args.model, "model")
    write_space(args, rows, app)
    return push_folder(
        args.output_dir,
        args.repo_id,
        "space",
        args.private,
        message="Publish the app",
        delete_patterns=["audiomcq/*", f"{EXAMPLES}/*", f"{REPORT}/*"],
        dry_run=args.dry_run,
    )


def write_space(args: SpaceArguments, rows: Dataset, app: Path) -> Path:
    """Write what a Space runs: the app, its settings and requirements, this package, and examples with their clips."""
    picked = pick_rows(rows, args.num_examples)
    refuse_several(picked, "examples of an app")
    check_clips_inside({"train": picked}, args.clip_home())
    with replaced_folder(args.output_dir) as folder:
        _write_content(folder, args, picked, app)
    return Path(args.output_dir)


def _write_content(folder: Path, args: SpaceArguments, picked: Dataset, app: Path) -> None:
    """Write the content of a Space to an empty folder."""
    picked = licences.add_license_columns({"train": picked}, licences.read_sources(args.sources))["train"]
    files = write_examples(picked, folder / EXAMPLES)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "tiny")  # a wheel leaves out tiny/ as well
    shutil.copytree(Path(audiomcq.__file__).parent, folder / "audiomcq", ignore=ignored)
    shutil.copyfile(app / "app.py", folder / "app.py")
    settings = f"model: {args.model}\ndataset: {EXAMPLES}\n"
    if args.report:
        copy_report(Path(args.report), folder / REPORT)
        settings += f"report: {REPORT}\n"
    (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
    # Without gradio, which the Hub installs in the version of the card; with peft, since the model may be an adapter
    wanted = [
        line for line in requires("audiomcq") or [] if "extra ==" not in line or line.endswith('extra == "peft"')
    ]
    needed = [line.partition(";")[0].strip() for line in wanted]
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in needed), encoding="utf-8")
    card = SpaceCard((app / CARD_FILE).read_text(encoding="utf-8"))
    card.data["title"], card.data["models"] = args.title, [args.model]
    lines = "".join(
        f"- `{EXAMPLES}/{name}`: {row['source_dataset']}, {row['license']}, {row['attribution'] or 'no attribution asked'}\n"
        for name, row in zip(files, picked, strict=True)
    )
    text = f"{str(card).rstrip()}\n\n## Clips\n\n{lines}"
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def copy_report(source: Path, target: Path) -> None:
    """Copy the page of a contribution report, and the rows beside it.

    Raises:
        ValueError: there is none, or it has clips or their paths in it, whose licences nobody has asked for.
    """
    page = source / "report.html"
    if not page.is_file():
        raise ValueError(f"{page}: no such file; write it with recipes/contribution_filter/report.py")
    with page.open(encoding="utf-8") as stream:
        if NO_CLIPS not in stream.read(_PAGE_HEAD):
            raise ValueError(f"{page} holds clips or their paths: write it again with --link_clips false --examples 0")
    target.mkdir()
    shutil.copyfile(page, target / page.name)
    if (rows := source / ROWS_FOLDER).is_dir():
        shutil.copytree(rows, target / ROWS_FOLDER, ignore=shutil.ignore_patterns(".*"))


def pick_rows(rows: Dataset, count: int) -> Dataset:
    """Pick at most `count` rows with different clips, from all question types and contributions in turn."""
    seen: set[object] = set()
    groups: Counter[tuple[str, str | None]] = Counter()
    ranked = []
    for index, row in enumerate(rows):
        if (clip := samples_key(row)) not in seen:
            seen.add(clip)
            groups[group := (row["question_type"], row[CONTRIBUTION])] += 1
            ranked.append((groups[group], index))
    return rows.select([index for _, index in sorted(ranked)[:count]])


def write_examples(rows: Dataset, folder: Path) -> list[str]:
    """Write rows as train.jsonl with copies of their clips, and return the names of the clips.

    Raises:
        AudioError: a clip does not decode.
    """
    (folder / "audio").mkdir(parents=True)
    lines, names = [], []
    for index, row in enumerate(rows):
        names.append(f"audio/{index}{Path(describe(row['audio'])).suffix or '.wav'}")
        load_audio(row["audio"], max_seconds=AppArguments.max_audio_seconds)
        (folder / names[-1]).write_bytes(audio_bytes(row["audio"]))
        plain = {key: value for key, value in row.items() if key != "audio"}
        lines.append(json.dumps({**plain, "audio_path": names[-1]}, ensure_ascii=False) + "\n")
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    return names
