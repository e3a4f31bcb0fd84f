"""The command line of ``coe``: users' mistakes end with one line and exit code 2."""

from __future__ import annotations

import sys

import click

from cluster.backends import SocketLostError
from cluster.cli import coe
from cluster.disagreement import DisagreementError
from cluster.peer_links.connection import LinkError
from cluster.resuming.checkpoints import StoppedError
from node import native
from node.errors import InputError


def main() -> None:
    """Run the command line."""
    try:
        if told := native.check():
            print(f"note: {told}", file=sys.stderr)
        coe(prog_name="coe", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as help_text:
        print(help_text.format_message(), file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        print(f"coe: error: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except InputError as error:
        print(f"coe: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except StoppedError as stopped:
        print(f"coe: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except (DisagreementError, SocketLostError, LinkError) as error:
        print(f"coe: {error}", file=sys.stderr)
        sys.exit(1)
