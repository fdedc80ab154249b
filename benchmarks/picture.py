"""Write the README's picture: what the network of ``eventnet demo`` does with one digit, before and after training.

    python benchmarks/picture.py [RUN]      writes benchmarks/results/readme.png

RUN is the folder of a finished run of the recipe ``digits``; without it one is trained now, in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from eventnet.training import find, train

PICTURE = Path(__file__).with_name("results") / "readme.png"


def write(run: Path, picture: Path) -> None:
    """Take the picture that the training of ``run`` has drawn."""
    part = picture.with_suffix(".part")
    shutil.copyfile(run / "plots" / "activity.png", part)
    os.replace(part, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished run of digits")
    run = parser.parse_args().run
    if run is not None:
        write(run, PICTURE)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(train(find("digits"), folder).folder, PICTURE)


if __name__ == "__main__":
    main()
