"""Take the screenshots of the documents anew: PNG files in docs/results.

python docs/screenshots.py report     # docs/results/contribution/report.html at 1280 and 400 px, light and dark
python docs/screenshots.py demo       # after `make demo`: what it prints at its end, 80 columns wide
python docs/screenshots.py app        # after `make demo`: the app, asked one of the demo's questions
python docs/screenshots.py dashboard  # after `make demo`: TensorBoard with the curves of its GRPO runs
"""

import argparse
import html
import logging
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger("screenshots")

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")

# The tiny models were trained on short clips only
APP = (
    "recipes/publish/space/app.py --model outputs/demo/models/base --dtype float32 --silence_seconds 1.5 --max_new_tokens 16 "
    "--num_examples 4 --port PORT"
)
DASHBOARD = "-m tensorboard.main --logdir outputs/demo --port PORT --load_fast false --reload_task blocking --reload_interval 0"


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["report", "demo", "app", "dashboard"])
    what = parser.parse_args().what
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        parser.error("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=OPTIONS)
        if what == "report":
            shoot_report(browser, RESULTS / "contribution")
        elif what == "demo":
            shoot_terminal(browser, ROOT / "outputs" / "demo" / "summary.txt", RESULTS / "demo" / "terminal.png")
        elif what == "dashboard":
            with serve(DASHBOARD) as url:
                shoot_dashboard(browser, url, RESULTS / "dashboards" / "tensorboard.png")
        else:
            (RESULTS / "app").mkdir(exist_ok=True)
            with serve(APP) as url:
                shoot_app(browser, url, RESULTS / "app" / "app_1280.png")
        browser.close()


def shoot_report(browser: Any, folder: Path) -> None:
    """Take the report's rows on a wide and on a narrow screen, with filters and a search in use, and its dark figures."""
    page = _open(browser, folder / "report.html", 1280, 900, "light")
    page.locator("#facets label", has_text="harmed by its audio").click()
    page.locator("#sort").select_option("most voters right")
    page.keyboard.press("j")
    page.keyboard.press("j")
    _save(page, folder / "report_1280.png")
    page = _open(browser, folder / "report.html", 400, 850, "dark")
    page.locator("#search").fill("siren")
    page.locator("#count", has_text=" of ").wait_for()
    page.locator("#search").evaluate("box => { box.blur(); box.scrollIntoView(); scrollBy(0, -12); }")
    _save(page, folder / "report_400.png")


def shoot_terminal(browser: Any, text: Path, picture: Path) -> None:
    """Show a text as a terminal of 80 columns does."""
    page = browser.new_page(viewport={"width": 800, "height": 600})
    style = "display: inline-block; width: 80ch; padding: 1.5ch; margin: 0; font: 14px monospace; color: #eee; background: #1e1e1e"
    page.set_content(f"<pre style='{style}'>{html.escape(text.read_text())}</pre>")
    page.locator("pre").screenshot(path=picture)
    page.close()
    logger.info("%s: %d KB", picture, picture.stat().st_size // 1000)


@contextmanager
def serve(command: str) -> Iterator[str]:
    """Start a server with a free port in place of PORT, and yield its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, *command.replace("PORT", str(port)).split()]
    with subprocess.Popen(words, cwd=ROOT) as server:
        try:
            while not _answers(f"http://127.0.0.1:{port}/"):
                if server.poll() is not None:
                    sys.exit(f"exit code {server.returncode}: {command}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30):
            return True
    except OSError:
        return False


def shoot_dashboard(browser: Any, url: str, picture: Path) -> None:
    """Take TensorBoard's curves of the rewards."""
    page = browser.new_page(viewport={"width": 1280, "height": 1030})
    page.set_default_timeout(120_000)
    tags = "train/reward$|accuracy_reward/mean|answers/(first|parsed)"
    page.goto(f"{url}?{urllib.parse.urlencode({'runFilter': 'grpo', 'tagFilter': tags})}#timeseries")
    page.locator("button", has_text="Settings").last.click()
    page.locator("card-view svg path, card-view canvas").first.wait_for()
    page.wait_for_timeout(3_000)  # the curves are drawn by and by
    page.screenshot(path=picture)
    page.close()
    logger.info("%s: %d KB", picture, picture.stat().st_size // 1000)


def shoot_app(browser: Any, url: str, picture: Path) -> None:
    """Take the app with the answers to a question whose text gives the answer away."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(url)
    page.locator(".gallery-item", has_text="weak").first.click()
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(box => box.value)")
    page.get_by_role("button", name="Ask three times").click()
    page.wait_for_function("document.querySelector('#plot img')?.naturalWidth > 300")
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=picture, full_page=True)
    page.close()
    logger.info("%s: %d KB", picture, picture.stat().st_size // 1000)


def _open(browser: Any, file: Path, width: int, height: int, scheme: str) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("body[data-ready]")
    return page


def _save(page: Any, file: Path) -> None:
    page.screenshot(path=file)
    page.close()
    logger.info("%s: %d KB", file, file.stat().st_size // 1000)


if __name__ == "__main__":
    main()
