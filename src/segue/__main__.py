"""`python -m segue` is the command `segue`."""

import sys

from segue.cli.main import main

sys.exit(main())
