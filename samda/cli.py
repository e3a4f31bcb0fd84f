"""``coe samda``: its commands, each imported when it is asked for, as PyTorch takes its time."""

from __future__ import annotations

import os
from importlib import import_module

import click

from node.errors import InputError

COMMANDS = {
    "train": "cli_train",
    "adapt": "cli_adapt",
    "segment": "cli_segment",
    "experiment": "cli_experiment",
    "synthesise": "cli_synthesise",
    "fit-router": "cli_fit_router",
    "route": "cli_route",
}
OWN = ("samda", "cluster", "node")
# Threads that wait do not spin: beside other work on the same cores, spinning makes training several times slower.
WAITING = "OMP_WAIT_POLICY"


class Lazy(click.Group):
    """The commands of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See ``click.Group``; ``InputError`` where a package is not there that it needs."""
        if cmd_name not in COMMANDS:
            return None
        os.environ.setdefault(WAITING, "PASSIVE")
        try:
            found = getattr(import_module(f"samda.{COMMANDS[cmd_name]}"), cmd_name.replace("-", "_"))
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            if package in OWN:
                raise
            raise InputError(
                f"coe samda {cmd_name}: the package {package} is not installed here: "
                "make samda, or pip install --no-deps -r requirements-samda.lock, then pip install torch==2.13.0"
            ) from None
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Lazy)
def samda() -> None:
    """Learn vision experts, adapt them to a domain with a few annotated images, segment, and route images (PyTorch)."""
