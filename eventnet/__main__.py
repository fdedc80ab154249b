"""``python -m eventnet``: the command line."""

import sys

from eventnet.cli import main

sys.exit(main())
