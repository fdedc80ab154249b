"""The reports in a real browser: nothing is wider than the page, no picture is blank, nothing is fetched, paper has everything.

Needs Chromium (``make browser``), which draws without a screen; skipped where there is none. Each page is shown in a frame of the
width asked for, as a window of Chromium's is never narrower than about 500 pixels.
"""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_hardware_benchmark_page import some_facts, some_run, thin
from test_hardware_parity_page import gates, some_pictures
from test_hardware_parity_page import some_facts as parity_facts

from eventnet.hardware.benchmark_page import page as benchmark_page
from eventnet.hardware.parity import ParityReport
from eventnet.hardware.parity_page import page as parity_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1"]
SECONDS = 120
WIDTHS = (390, 1280)  # a phone, a desktop
INKED = 0.001  # share of the middle of a picture that is not its ground, at least

# Measures the frame and writes what it finds as JSON. Only the frame of the test has a script, never the page.
HARNESS = """<!DOCTYPE html><html><body style="margin:0"><iframe id="frame" srcdoc="{page}"
style="border:0;display:block;width:{width}px;height:{height}px"></iframe><pre id="found"></pre><script>
document.getElementById("frame").onload = event => {{
  const inner = event.target.contentWindow, root = inner.document.documentElement;
  const boxes = [...inner.document.querySelectorAll("svg")].map(each => {{
    const box = each.getBoundingClientRect(), shown = [box.x, box.y, box.width, box.height].map(Math.round);
    return {{box: shown, label: each.getAttribute("aria-label") || ""}};
  }});
  const outside = [...inner.document.querySelectorAll("main *")].filter(each =>
    !each.closest("svg, .scroll, details") && each.getBoundingClientRect().right > inner.innerWidth + 1).length;
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.scrollWidth, height: root.scrollHeight, outside: outside, pictures: boxes,
    fetched: inner.performance.getEntriesByType("resource").map(each => each.name)}});
}};
</script></body></html>"""


def browser() -> str | None:
    """Where Chromium is, if it is anywhere."""
    asked = os.environ.get("EVENTNET_BROWSER")
    return shutil.which(asked) if asked else next(filter(None, map(shutil.which, NAMES)), None)


pytestmark = pytest.mark.skipif(
    browser() is None,
    reason=f"no browser: none of {', '.join(NAMES)} is on PATH, nor is $EVENTNET_BROWSER one; `make browser` installs one",
)


@dataclass
class Shown:
    """A page as it was drawn: what the frame measured, and its pixels."""

    found: dict
    pixels: np.ndarray

    def blank(self) -> list[str]:
        """The labels of pictures with nothing but their ground in the middle, where no axis is."""
        return [each["label"] for each in self.found["pictures"] if self.inked(each["box"]) < INKED]

    def inked(self, box: list[int]) -> float:
        """The share of pixels that differ from the most frequent colour, in the middle of a picture."""
        x, y, width, height = box
        middle = self.pixels[y + height // 5 : y + height - height // 3, x + width // 4 : x + width - width // 20]
        if not middle.size:
            return 0.0
        colours, counts = np.unique(middle.reshape(-1, 3), axis=0, return_counts=True)
        far = np.abs(colours.astype(int) - colours[counts.argmax()].astype(int)).max(1) > 48
        return float(counts[far].sum() / counts.sum())


def chromium(folder: Path, *arguments: str) -> str:
    """What a run of the browser prints; it has a profile of its own."""
    command = [str(browser()), *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def show(text: str, width: int, folder: Path) -> Shown:
    """Draw a page in a frame of a width: once to learn how high it is, once for a picture of all of it."""
    harness, picture = folder / "frame.html", folder / f"page{width}.png"

    def run(height: int, action: str) -> str:
        harness.write_text(HARNESS.format(page=html.escape(text), width=width, height=height), encoding="utf-8")
        return chromium(folder, f"--window-size={max(width, 600)},{height}", action, harness.as_uri())

    told = re.search(r'<pre id="found">(.+?)</pre>', run(800, "--dump-dom"), re.DOTALL)
    assert told, "the frame was not measured"
    found = json.loads(html.unescape(told[1]))
    run(found["height"], f"--screenshot={picture}")
    with Image.open(picture) as image:
        return Shown(found, np.asarray(image.convert("RGB")))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    runs = [some_run(thin(some_facts()), "digits"), some_run(thin(some_facts()), "a" * 60)]
    return {
        "benchmark": benchmark_page([some_run()]),
        "several": benchmark_page(runs),
        "parity": parity_page(ParityReport(parity_facts(), gates(), some_pictures())),
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["benchmark", "several", "parity"])
def test_a_page_fits_and_is_drawn(pages, name, width, tmp_path):
    shown = show(pages[name], width, tmp_path)
    assert shown.found["width"] <= width and shown.found["outside"] == 0
    assert len(shown.found["pictures"]) == pages[name].count("<svg") > 4
    assert all(box[2] > 200 and box[3] > 60 for box in (each["box"] for each in shown.found["pictures"]))
    assert not shown.blank()
    assert not shown.found["fetched"]


def test_a_blank_or_a_wide_page_is_seen(tmp_path):
    """The checks above can fail."""
    axes = '<path d="M40 10V80H390" stroke="black" fill="none"/>'
    blank = f'<svg viewBox="0 0 400 100" width="400" aria-label="blank" style="background:#fff">{axes}</svg>'
    drawn = blank.replace("</svg>", '<path d="M100 70L300 20" stroke="blue"/></svg>').replace("blank", "drawn")
    text = f'<!DOCTYPE html><body><main style="width:900px">{blank}{drawn}<p>wide</p></main></body>'
    shown = show(text, 640, tmp_path)
    assert shown.blank() == ["blank"] and shown.found["width"] > 640 and shown.found["outside"] > 0


def test_what_is_folded_is_on_paper(tmp_path):
    """Sources of the coefficients are folded on a screen only: with them there are more sheets."""
    facts = thin(some_facts())
    sheets = []
    for kept in (True, False):
        for each in (*facts["energy"].values(), *facts["baselines"]):
            each["coefficients"] = each["coefficients"] if kept else {}
        source, paper = tmp_path / "page.html", tmp_path / "page.pdf"
        source.write_text(benchmark_page([some_run(facts)]), encoding="utf-8")
        chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", source.as_uri())
        sheets.append(len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())))
    assert sheets[0] >= sheets[1] + 2 > 4
