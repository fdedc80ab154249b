"""Write the README's pictures: one digit through the demo's network, before and after training; and the report of that run.

    python benchmarks/picture.py [RUN]      writes benchmarks/results/readme.png and, where a Chromium is found, report.png

RUN is the folder of a finished run of the recipe ``digits``; without it one is trained now, in a temporary folder. The second
picture is the upper part of the page of ``eventnet report RUN``, as a browser shows it (``make browser`` installs one).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from eventnet.cli_hardware import report_runs
from eventnet.training import find, train

PICTURE = Path(__file__).with_name("results") / "readme.png"
REPORT = PICTURE.with_name("report.png")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = (900, 640)  # pixels of the page that are shown: the answers at its top
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


def write(run: Path, picture: Path) -> None:
    """Take the picture that the training of ``run`` has drawn."""
    part = picture.with_suffix(".part")
    shutil.copyfile(run / "plots" / "activity.png", part)
    os.replace(part, picture)


def write_report(run: Path, picture: Path) -> None:
    """Draw the report of a run, and take a picture of its upper part."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no {picture.name}: none of {', '.join(BROWSERS)} found", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        page, part = Path(folder) / "report.html", Path(folder) / picture.name
        report_runs([run], page)
        page.write_text(
            page.read_text().replace(str(run), run.name)
        )  # a folder of this machine says nothing to a reader
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        profile = f"--user-data-dir={folder}/profile"
        command = [browser, *FLAGS, profile, size, f"--screenshot={part}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        shutil.move(part, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished run of digits")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        run = run or train(find("digits"), Path(folder) / "digits").folder
        write(run, PICTURE)
        write_report(run, REPORT)


if __name__ == "__main__":
    main()
