"""Which commands ``coe`` has: its own, and those of packages that are there."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from cluster import cli
from cluster.commands import COMMANDS


def test_commands_of_a_package_are_there_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    context = click.Context(cli.coe)
    assert {*cli.coe.list_commands(context)} == {*COMMANDS, "samda"}
    assert cli.coe.get_command(context, "samda") is not None
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert {*cli.coe.list_commands(context)} == {*COMMANDS}
    assert cli.coe.get_command(context, "samda") is None and cli.coe.get_command(context, "run") is not None


def test_what_a_package_takes_is_not_imported_before_its_commands_are_asked_for() -> None:
    program = (
        "import sys; from cluster.cli import coe\n"
        "try: coe(['--help'])\n"
        "except SystemExit: print('here', {'torch', 'samda.cli_train'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "samda" in said.stdout and "here set()" in said.stdout.splitlines()[-1]
