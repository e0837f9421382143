"""`python -m perdure.cli` is the `perdure` command, also where scripts are not on the path."""

from perdure.cli import main

main(prog_name="perdure")
