"""The machine's own Chromium, headless, for tests of pages; they are skipped where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import processes

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright that ends with the block, also when it hangs."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[browser]'")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    spared = psutil.Process().children()
    with processes.killed_after(120, spared):
        driver = playwright.sync_playwright().start()
        running = driver.chromium.launch(executable_path=found, args=OPTIONS)
    yield running
    # Neither has a time-out of its own
    with processes.killed_after(60, spared):
        running.close()
        driver.stop()
