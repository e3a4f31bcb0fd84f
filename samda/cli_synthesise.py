"""``coe samda synthesise``: a set to try the rest with."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli_options import tell_written
from samda.synthetic.files import synthesise as write


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--images", type=int, default=12, show_default=True, help="Of each domain.")
@click.option("--size", type=int, default=256, show_default=True, help="Pixels of a side.")
@click.option("--domains", type=int, default=2, show_default=True, help="More than two are drawn around these.")
@click.option("--seed", type=int, default=0, show_default=True)
def synthesise(out: Path, images: int, size: int, domains: int, seed: int) -> None:
    """Generate micrographs with known mitochondria, as two microscopes see them, into a new folder OUT.

    OUT/fibsem and OUT/sstem are two domains, for --source and --target of coe samda experiment.
    """
    write(out, images, size, seed, domains)
    tell_written(out)
