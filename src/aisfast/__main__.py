"""`python -m aisfast`: the same as the `aisfast` command."""

import sys

from aisfast.cli import main

sys.exit(main())
