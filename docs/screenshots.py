"""Take the screenshots of the documents anew: PNG files in docs/results.

python docs/screenshots.py report    # docs/results/contribution/report.html at 1280 and 400 px, light and dark
python docs/screenshots.py demo      # after `make demo`: what it prints at its end, 80 columns wide
"""

import argparse
import html
import logging
import shutil
from pathlib import Path
from typing import Any

logger = logging.getLogger("screenshots")

RESULTS = Path(__file__).parent / "results"
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["report", "demo"])
    what = parser.parse_args().what
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        parser.error("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=OPTIONS)
        if what == "report":
            shoot_report(browser, RESULTS / "contribution")
        else:
            shoot_terminal(
                browser, RESULTS.parents[1] / "outputs" / "demo" / "summary.txt", RESULTS / "demo" / "terminal.png"
            )
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
