"""``coe generate``: real answers of real checkpoints, computed by the emulated sockets."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import click

from cluster import show_answers
from cluster.answers import Spoken, answers_of
from cluster.checkpoints.load import load_checkpoint
from cluster.cli_options import OUT, Model, machine_options, model_options
from cluster.content import Start, local_members
from cluster.content_actor import ray_members
from cluster.dialog import Terminal, chosen, composition_of, expert_of, prompt_of, prompts_of
from cluster.generate import KV_RESERVE, Asked, generate
from cluster.metrics.of_sockets import Served
from cluster.ray_backend import ray_session
from cluster.routing.encoders import ENCODERS
from node.errors import InputError
from node.functional.serve import Sampling
from node.options import RuntimeOptions


@dataclass(frozen=True)
class _Said:
    """The command's own options."""

    path: Path
    prompt: str | None
    file: Path | None
    expert: str | None
    encoder: str
    most: int
    temperature: float
    seed: int
    backend: str
    address: str | None
    per_actor: int | None
    metrics_port: int | None
    precision: str


@click.command("generate")
@click.option(
    "--experts",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="A .gguf file, a Hugging Face folder, a folder of these, or a .toml catalogue.",
)
@click.option("--prompt", help="What to ask.")
@click.option("--prompts", "file", type=click.Path(path_type=Path), help="A file with a prompt in each line.")
@click.option("--expert", help="Who answers.  [default: the only one, or the router's choice]")
@click.option(
    "--encoder",
    type=click.Choice(list(ENCODERS)),
    default="ngrams",
    show_default=True,
    help="What the router reads prompts by.",
)
@click.option("--max-tokens", "most", type=click.IntRange(1), default=48, show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0: always the likeliest."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="bf16: weights and what operators make are rounded, as on the machine.",
)
@click.option("--backend", type=click.Choice(["ray", "local"]), default="ray", show_default=True)
@click.option("--address", help="Ray cluster to use; without it one is started on this machine.")
@click.option(
    "--sockets-per-actor", "per_actor", type=click.IntRange(1), help="Of Ray actors.  [default: one actor per core]"
)
@click.option(
    "--socket-metrics-port",
    "metrics_port",
    type=click.IntRange(1, 65535),
    help="Each actor serves its links' metrics, at the first free port of 127.0.0.1 from here on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@machine_options
@model_options
def generate_command(settings: tuple[str, ...], as_json: bool, **rest: object) -> None:
    """Answer prompts with real checkpoints on emulated sockets, and say how long the machine would take."""
    said = _Said(**{entry.name: rest.pop(entry.name) for entry in fields(_Said)})  # type: ignore[arg-type]
    options = Model(**rest)  # type: ignore[arg-type]
    texts, composition = prompts_of(said.prompt, said.file), composition_of(said.path)
    checkpoints = [load_checkpoint(one.path) for one in composition.experts]
    choices = chosen(composition, said.expert, texts, said.encoder)
    tokenizers = [checkpoints[expert].tokenizer for expert, _ in choices]
    asked = Asked(
        options.machine(settings),
        [expert_of(one, checkpoint) for one, checkpoint in zip(composition.experts, checkpoints, strict=True)],
        [prompt_of(text, expert, one) for text, (expert, _), one in zip(texts, choices, tokenizers, strict=True)],
        said.most,
        Sampling(said.temperature, said.seed, frozenset().union(*(tokenizer.ends for tokenizer in tokenizers))),
        RuntimeOptions(
            batch=options.batch,
            kv_reserve=KV_RESERVE,
            fusion=options.fusion,
            orchestration=options.orchestration,
            precision=said.precision,
        ),
    )
    terminal = Terminal(
        [one.name for one in composition.experts],
        tokenizers,
        (lambda _text: None) if as_json else lambda text: click.echo(text, nl=False),
    )
    began = time.perf_counter()
    with _started(said) as start:
        found = generate(asked, terminal.token, start, terminal.command)
    wall = time.perf_counter() - began
    spoken = [
        Spoken(text, one.decode(tokens), sure)
        for text, one, tokens, (_, sure) in zip(texts, tokenizers, found.answers, choices, strict=True)
    ]
    answers = answers_of(asked, found, spoken, terminal.evictions, wall)
    if as_json:
        click.echo(json.dumps(answers.as_json(), indent=2, ensure_ascii=False))
    else:
        show_answers.answers_table(OUT, answers, asked.machine)


@contextlib.contextmanager
def _started(said: _Said) -> Iterator[Start]:
    """How the sockets are made: in this process, or as actors of a Ray that is joined or started."""
    exporter = None if said.metrics_port is None else Served("generate", "127.0.0.1", said.metrics_port)
    if said.backend == "local":
        if exporter is not None:
            raise InputError("--socket-metrics-port: has no effect with --backend local: there are no actors")
        yield local_members
        return
    with ray_session(said.address):
        yield partial(ray_members, sockets_per_actor=said.per_actor, exporter=exporter)
