"""The ``coe`` command."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

import click

from cluster import __version__
from cluster.commands import COMMANDS, GROUP


class Lazy(click.Group):
    """The commands of ``COMMANDS`` and of installed packages, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return sorted({*COMMANDS, *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See ``click.Group``."""
        if cmd_name in COMMANDS:
            module, name = COMMANDS[cmd_name].split(":")
            found = getattr(import_module(f"cluster.{module}"), name)
        elif points := entry_points(group=GROUP, name=cmd_name):
            found = points[cmd_name].load()
        else:
            return None
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="coe")
def coe() -> None:
    """Emulate SambaNova SN40L nodes that serve a Composition of Experts."""
