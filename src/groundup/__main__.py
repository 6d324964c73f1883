"""`python -m groundup` is `groundup`."""

import sys

from groundup.cli import main

sys.exit(main())
