"""``coe estimate`` and ``coe kernels``: one call of one model, and the kernels of one pass."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from cluster import show
from cluster.cli_options import OUT, Model, machine_options, model_options
from cluster.inputs import assumptions
from cluster.kernels import PHASES, TOKENS, Asked, pass_of
from cluster.kernels_svg import svg
from cluster.output import write_text
from node.composed import ComposedEstimate, estimate_composed
from node.errors import InputError
from node.estimate import Call, Estimate, estimate_one_pass
from node.estimate import estimate as estimate_call
from node.models.composition import is_composition, load_composition
from node.models.hugging_face import load_shape
from node.models.one_pass import one_pass
from node.spec import Machine


@click.command()
@click.argument("model")
@machine_options
@model_options
@click.option("--input", "tokens_in", type=click.IntRange(1), help="Tokens of each prompt.")
@click.option("--output", "tokens_out", type=click.IntRange(1), help="Tokens of each answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def estimate(
    model: str, settings: tuple[str, ...], tokens_in: int | None, tokens_out: int | None, as_json: bool, **rest: object
) -> None:
    """How long one call of MODEL takes, and what bounds it.

    MODEL is a built-in model, a .toml file or a Hugging Face config.json. A model of one pass (an FFT) has no
    tokens: its batch goes through once. A composition (samda) is told part by part.
    """
    options = Model(**rest)  # type: ignore[arg-type]
    machine = options.machine(settings)
    found = _estimate(model, machine, (tokens_in, tokens_out), options)
    title = f"{model} on {machine.sockets} sockets of {machine.name}"
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        if isinstance(found, Estimate):
            show.estimate_table(OUT, title, found)
        else:
            show.composed_table(OUT, title, found)
        OUT.print(f"\n{assumptions(machine)}", style="dim", highlight=False)


def _estimate(
    model: str, machine: Machine, tokens: tuple[int | None, int | None], options: Model
) -> Estimate | ComposedEstimate:
    named = dict(zip(("--input", "--output"), tokens, strict=True))
    given = [name for name, value in named.items() if value is not None]
    call = Call(tokens[0] or 1, tokens[1] or 1, options.batch, options.fusion, options.orchestration)
    composed, found = load_composition(model) if is_composition(model) else None, one_pass(model)
    if given and (composed or found):
        raise InputError(f"{given[0]} {named[given[0]]}: {model} has no tokens; give --batch alone")
    if composed is not None:
        return estimate_composed(machine, composed, call)
    if found is not None:
        return estimate_one_pass(machine, found, call)
    shape = load_shape(model)
    if missing := [name for name in named if name not in given]:
        raise InputError(
            f"{' and '.join(missing)} missing: {model} works on tokens, for example --input 128 --output 20"
        )
    return estimate_call(machine, shape, call)


@click.command()
@click.argument("model")
@machine_options
@model_options
@click.option("--phase", type=click.Choice(PHASES), default="prefill", show_default=True)
@click.option(
    "--sequence",
    type=click.IntRange(1),
    help=f"Tokens of a prompt; context of a decode.  [default: {TOKENS}]",
)
@click.option("--rank", type=click.IntRange(0), default=0, show_default=True, help="Which socket; shards may differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--svg", "picture", type=click.Path(path_type=Path), help="Draw the stages on PCUs and PMUs to this file."
)
def kernels(
    model: str,
    settings: tuple[str, ...],
    phase: str,
    sequence: int | None,
    rank: int,
    as_json: bool,
    picture: Path | None,
    **rest: object,
) -> None:
    """The kernels of one pass of MODEL, where their stages are placed, and the memory plan.

    MODEL is a built-in model or transform, a .toml file or a Hugging Face config.json.
    """
    options = Model(**rest)  # type: ignore[arg-type]
    machine = options.machine(settings)
    asked = Asked(phase, sequence, options.batch, options.fusion, options.orchestration, rank)
    found = pass_of(model, machine, asked)
    if picture is not None:
        if machine.pipeline is None:
            raise InputError(f"--svg {str(picture)!r}: {machine.name} places no stages: it has no [pipeline] table")
        write_text(picture, svg(found))
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        show.kernels_table(OUT, found)
        OUT.print(f"\n{assumptions(machine)}", style="dim", highlight=False)
