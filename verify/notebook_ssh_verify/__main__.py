"""The program: `python -m notebook_ssh_verify`, and `verify.pyz` in a release."""

import sys

from notebook_ssh_verify.cli import main

sys.exit(main(sys.argv[1:]))
