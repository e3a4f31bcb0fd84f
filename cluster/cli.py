"""The ``coe`` command."""

from __future__ import annotations

from importlib.metadata import version

import click

from cluster.cli_ask import footprint, machines, reproduce
from cluster.cli_generate import generate_command
from cluster.cli_model import estimate, kernels
from cluster.cli_plan import plan
from cluster.cli_router import router
from cluster.cli_sensitivity import sensitivity
from cluster.cli_serve import compare, run
from cluster.cli_sweep import sweep
from cluster.cli_switching import switching


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("samba-coe"), prog_name="coe")
def coe() -> None:
    """Emulate SambaNova SN40L nodes that serve a Composition of Experts."""


for command in (
    run,
    compare,
    sweep,
    plan,
    generate_command,
    estimate,
    kernels,
    footprint,
    switching,
    sensitivity,
    reproduce,
    router,
    machines,
):
    coe.add_command(command)
