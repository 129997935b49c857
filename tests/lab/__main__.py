"""`python -m tests.lab` is the command `dpu-lab`."""

import sys

from tests.lab.cli import main

sys.exit(main())
