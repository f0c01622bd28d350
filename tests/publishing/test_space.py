"""The app as it is published: a folder that runs by itself, pushed to a Hub, and used by a person in a browser."""

import os
import runpy
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset
from huggingface_hub import SpaceCard

import browsers
import processes
from audiomcq.collation import PromptEncoder
from audiomcq.contribution import row_pages
from audiomcq.contribution.compare import CONTROL_LABELS, compare_controls, summarize
from audiomcq.contribution.html_report import write_report
from audiomcq.contribution.report import contribution_report
from audiomcq.datasets import load_rows
from audiomcq.examples import Row, samples_key
from audiomcq.figure_style import CONTROLS
from audiomcq.models import load_lalm
from audiomcq.publishing.hub import planned_files
from audiomcq.publishing.space import SpaceArguments, pick_rows, publish_space, write_space
from hub.cards import card_problems
from hub.server import Hub

ROOT = Path(__file__).parents[2]
APP = ROOT / "recipes" / "publish" / "space"
SILENCE, TOKENS = 2.0, 8
QUESTION, OPTIONS = "How high is this tone?", ["low", "middle", "high", "highest"]
COLOURS = [[*bytes.fromhex(CONTROLS[control][1:])] for control in ("audio", "silence", "mismatched_audio")]
COUNT_PIXELS = """colour => {
    const image = document.querySelector("#plot img"), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4) count += colour.every((value, k) => Math.abs(value - pixels[i + k]) < 16);
    return count;
}"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sources") / "sources.csv"
    path.write_text("source_dataset,license,attribution,url\ntones,CC BY 4.0,Ann,https://example.org/tones\n")
    return path


def arguments(folder: Path, sources: Path, **changes: object) -> SpaceArguments:
    return SpaceArguments(
        repo_id="org/app",
        model="org/listener",
        audio_root="/",  # those of the fixtures lie in a temporary folder of their own
        num_examples=4,
        sources=[str(sources)],
        output_dir=str(folder),
        **changes,
    )


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, rows: Dataset, sources: Path) -> Path:
    """The Space as it would be uploaded, with a report of its rows."""
    report = tmp_path_factory.mktemp("report")
    write_report(contribution_report(rows), rows, None, report, link_clips=False)
    return write_space(arguments(tmp_path_factory.mktemp("space") / "space", sources, report=str(report)), rows, APP)


def test_the_folder_holds_all_that_a_space_needs(space: Path, rows: Dataset) -> None:
    assert (space / "app.py").read_bytes() == (APP / "app.py").read_bytes()
    assert yaml.safe_load((space / "app.yaml").read_text())["model"] == "org/listener"
    needed = (space / "requirements.txt").read_text().splitlines()
    assert {"torch>=2.13", "transformers<5.25,>=5.23"} <= set(needed)
    assert not [line for line in needed if "extra" in line or "gradio" in line]
    assert [line for line in needed if line.startswith("peft>=")], "the model may be an adapter"
    package = ROOT / "src" / "audiomcq"
    files = (path for path in package.rglob("*.*") if path.suffix != ".pyc" and path.parent != package / "tiny")
    source = {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert {path.relative_to(space).as_posix() for path in (space / "audiomcq").rglob("*.*")} == source
    examples = load_rows(space / "examples")
    assert [row["question"] for row in examples] == [row["question"] for row in pick_rows(rows, 4)]
    for row in examples:
        clip = next(each for each in rows if each["id"] == row["id"])["audio"]
        assert Path(row["audio"]["path"]).read_bytes() == Path(clip["path"]).read_bytes()


def test_the_card_is_valid_and_says_whose_clips_there_are(space: Path) -> None:
    text = (space / "README.md").read_text()
    assert card_problems("space", text) == ([], [])
    data = SpaceCard(text).data
    assert data.models == ["org/listener"]
    assert f"gradio=={data.sdk_version}\n" in (ROOT / "constraints.txt").read_text()
    assert text.count("tones, CC BY 4.0, Ann") == 4


def test_examples_are_of_all_labels_and_of_different_clips(rows: Dataset) -> None:
    doubled = rows.select([index for index in range(len(rows)) for _ in range(2)])
    picked = pick_rows(doubled, 5)
    assert [row["audio-contribution"] for row in picked] == ["strong", "weak", "strong", "weak", "strong"]
    assert len({samples_key(row) for row in picked}) == 5


def test_a_report_goes_with_it_if_it_has_no_clips(space: Path, rows: Dataset, sources: Path, tmp_path: Path) -> None:
    assert yaml.safe_load((space / "app.yaml").read_text())["report"] == "report"
    assert [path.name for path in (space / "report").iterdir()] == ["report.html"]
    write_report(contribution_report(rows), rows, None, tmp_path / "linked")
    with pytest.raises(ValueError, match="holds clips or their paths: write it again with --link_clips false"):
        write_space(arguments(tmp_path / "a", sources, report=str(tmp_path / "linked")), rows, APP)
    with pytest.raises(ValueError, match=r"report.html: no such file; write it with recipes"):
        write_space(arguments(tmp_path / "b", sources, report=str(tmp_path / "none")), rows, APP)
    report = contribution_report(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_pages, "EMBEDDED_ROWS", 1)
        write_report(report, rows, None, tmp_path / "paged", link_clips=False)
    paged = write_space(arguments(tmp_path / "c", sources, report=str(tmp_path / "paged")), rows, APP)
    files = sorted(path.name for path in (paged / "report" / "report_rows").iterdir())
    assert files == ["0001.js", "index.js"]


def test_clips_without_a_licence_and_models_of_this_machine_are_refused(
    tmp_path: Path, rows: Dataset, sources: Path
) -> None:
    with pytest.raises(ValueError, match="no licence is stated"):
        publish_space(SpaceArguments(repo_id="org/app", audio_root="/", output_dir=str(tmp_path / "a")), rows, APP)
    with pytest.raises(ValueError, match="model '/my/model' is not of the form owner/name"):
        publish_space(SpaceArguments(repo_id="org/app", model="/my/model", output_dir=str(tmp_path / "b")), rows, APP)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other things \(thesis.txt\)"):
        publish_space(arguments(tmp_path / "c", sources), rows, APP)


def test_the_recipe_lists_first_and_then_pushes_what_it_listed(
    hub: Hub,
    tmp_path: Path,
    rows_folder: Path,
    sources: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {
        "repo_id": "org/app",
        "dataset": str(rows_folder),
        "sources": [str(sources)],
        "num_examples": 3,
        "private": True,
        "output_dir": str(tmp_path / "space"),
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(options))
    recipe = str(ROOT / "recipes" / "publish" / "space.py")
    given = ["--config", str(tmp_path / "space.yaml")]
    # Offline, as all tests are, this would fail if it asked a Hub
    monkeypatch.setattr("sys.argv", [recipe, *given, "--dry_run", "true"])
    runpy.run_path(recipe, run_name="__main__")
    listed = caplog.text
    hub.run([recipe, *given], token=hub.token)
    assert hub.repo("space", "org/app").private
    kept, files = hub.files("space", "org/app"), planned_files(tmp_path / "space")
    assert "app.py" in kept
    assert set(kept) - {file.path for file in files} <= {".gitattributes"}
    for file in files:
        assert kept[file.path] == (tmp_path / "space" / file.path).read_bytes()
        assert f"would upload {file}" in listed


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("gradio", reason="the app needs gradio: pip install -e '.[space]'")
    with browsers.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def url(browser: Any, space: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served from the Space's folder by a process that has no other audiomcq to import."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tmp_path_factory.mktemp("app") / "stderr"
    options = {"model": model_folder, "dtype": "float32", "port": port}
    options |= {"silence_seconds": SILENCE, "max_new_tokens": TOKENS, "max_upload_mb": 1}
    command = [sys.executable, "app.py", *(word for name, value in options.items() for word in (f"--{name}", value))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with (
        said.open("w") as log,
        processes.running(command, cwd=space, env=environment, stdout=log, stderr=log) as app,
    ):
        deadline = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/"):
            assert app.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=30).status == 200
    except OSError:
        return False


@pytest.fixture
def page(browser: Any, url: str, tmp_path: Path) -> Iterator[Any]:
    # What has no time-out of its own, as `evaluate`, ends with the browser
    with processes.killed_after(600, ()):
        opened = browser.new_page(viewport={"width": 1280, "height": 1500})
        opened.set_default_timeout(120_000)
        opened.goto(url)
        yield opened
        # Where the test leaves its folder (pytest --basetemp), a person can look at what it saw
        opened.screenshot(path=tmp_path / "page.png", full_page=True)
        opened.close()


def pick_example(page: Any, row: Row) -> None:
    """Click on an example and wait until its question stands in the form."""
    page.locator(".gallery-item", has_text=row["question"]).click()
    filled = "text => [...document.querySelectorAll('textarea')].some(box => box.value === text)"
    page.wait_for_function(filled, arg=row["question"])


def click_and_read(page: Any) -> list[list[str]]:
    """Ask, wait for the plot, and read the table."""
    page.get_by_role("button", name="Ask three times").click()
    page.wait_for_function("document.querySelector('#plot img')?.naturalWidth > 300")
    lines = page.locator("#answers").get_by_role("row").all()
    cells = [[cell.inner_text().strip() for cell in line.get_by_role("gridcell").all()] for line in lines]
    return [line for line in cells if line]


def test_a_person_picks_an_example_asks_and_sees_what_the_package_says(
    page: Any, space: Path, model_folder: Path
) -> None:
    first, second = load_rows(space / "examples").select(range(2))
    pick_example(page, first)
    assert page.get_by_label("Right answer").input_value() == first["answer"]
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_label("Options, one per line").fill("\n".join(OPTIONS))
    page.get_by_label("Right answer").fill("highest")
    shown = click_and_read(page)
    lalm = load_lalm(model_folder)
    encoder = PromptEncoder(lalm.processor, lalm.family)
    expected = compare_controls(lalm, encoder, first["audio"], QUESTION, OPTIONS, second["audio"], SILENCE, TOKENS)
    sentence = summarize(expected, OPTIONS, "highest").replace("*", "")
    assert page.locator("#sentence").inner_text().strip() == sentence
    assert [line[0] for line in shown] == list(CONTROL_LABELS.values())
    for line, one in zip(shown, expected, strict=True):
        assert line[1] == (one.no_choice if one.choice is None else OPTIONS[one.choice])
        best = max(one.probabilities)
        assert line[2] == f"{OPTIONS[one.probabilities.index(best)]} ({best:.0%})"
    for colour in COLOURS:
        assert page.evaluate(COUNT_PIXELS, colour) > 1_000


def test_the_report_opens_beside_the_app(page: Any, rows: Dataset) -> None:
    with page.expect_popup() as opened:
        page.get_by_role("link", name="the report of all rows").click()
    report = opened.value
    report.wait_for_selector("body[data-ready]")
    assert report.locator("#count").inner_text() == "16 rows · 8 weak · 8 strong"
    assert report.locator(".question").all_inner_texts() == rows["question"]


def test_an_upload_beyond_the_limit_is_refused(url: str) -> None:
    def upload(size: int) -> int:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="clip.wav"\r\n\r\n'
        body = head + bytes(size) + b"\r\n--x--\r\n"
        request = urllib.request.Request(
            f"{url}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
        )
        try:
            return urllib.request.urlopen(request, timeout=60).status
        except urllib.error.HTTPError as error:
            return error.code

    assert upload(900_000) == 200
    assert upload(2_000_000) == 413


def test_a_person_is_told_what_is_wrong_and_records_a_clip(page: Any, space: Path) -> None:
    button = page.get_by_role("button", name="Ask three times")
    button.click()
    page.get_by_text("Pick or record both clips").wait_for()
    pick_example(page, load_rows(space / "examples")[1])
    page.get_by_label("Options, one per line").fill("low")
    button.click()
    page.get_by_text("1 choices, expected 2 to 26").wait_for()
    page.get_by_label("Options, one per line").fill("low\nhigh")
    page.get_by_label("Right answer").fill("")
    page.get_by_label("Clear").first.click()
    page.get_by_label("Record audio").first.click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1_500)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_label("Download").nth(1).wait_for()
    assert [line[0] for line in click_and_read(page)] == list(CONTROL_LABELS.values())
