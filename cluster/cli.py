"""The ``coe`` command."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

import click

from cluster import __version__
from cluster.commands import COMMANDS, GROUP


class Lazy(click.Group):
    """The commands of ``COMMANDS`` and of installed packages, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return sorted({*COMMANDS, *_others()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See ``click.Group``."""
        if cmd_name in COMMANDS:
            module, name = COMMANDS[cmd_name].split(":")
            found = getattr(import_module(f"cluster.{module}"), name)
        elif (other := _others().get(cmd_name)) is not None:
            found = other.load()
        else:
            return None
        assert isinstance(found, click.Command)
        return found


def _others() -> dict[str, EntryPoint]:
    """Those of packages that are there: the image lacks parts of this one that its metadata names."""
    found = entry_points(group=GROUP)
    return {one.name: one for one in found if find_spec(one.module.partition(".")[0]) is not None}


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="coe")
def coe() -> None:
    """Emulate SambaNova SN40L nodes that serve a Composition of Experts."""
