"""`completion`: a script for a shell that completes commands, options, ids of runs and files.

Rules: a completion never fails and prints nothing but what fits; it reads the store as it is.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from perdure.cli.output import echo

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a script that completes commands and ids in your shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that teaches your shell to complete commands, options and ids of runs.

    Ids are those of the store that --store or PERDURE_STORE names, else perdure.db.

    \b
    Examples:
      perdure completion bash >> ~/.bashrc
      perdure completion zsh >> ~/.zshrc
      perdure completion fish > ~/.config/fish/completions/perdure.fish
    """
    made = get_completion_class(shell)
    assert made is not None, "click knows these shells"
    root = context.find_root()
    echo(*made(root.command, {}, "perdure", "_PERDURE_COMPLETE").source().splitlines())
