"""Functional mode: real weights in the tiers of emulated sockets, and the answers that their kernels compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cluster.content import Expert, Start, local_members
from cluster.requests_table import columns_of
from node.dataflow.form import Step, causal_pairs
from node.deployment import Deployment
from node.errors import InputError
from node.events import Command, Ints, Performed, Serving
from node.expert import Catalogue, ExpertGroup
from node.functional.planned import Planned
from node.functional.serve import Sampling
from node.functional.texts import Texts
from node.models.shape import Shape
from node.options import RuntimeOptions
from node.request import Request
from node.simulation import Simulation
from node.spec import Machine
from node.units import Bytes, show_bytes

KV_RESERVE: Bytes = 2 * 2**30  # of a socket
WORKSPACE_SHARE = 4  # one part in so many of it lies between kernels
Emit = Callable[[int, int], None]  # number of the prompt, token
Observe = Callable[[Command], None]  # is told of each command before it is done


@dataclass(frozen=True)
class Prompt:
    """Tokens for one of the experts, by number."""

    expert: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """What to generate: up to ``most`` tokens for each prompt, all asked at once, on all sockets of ``machine``."""

    machine: Machine
    experts: Sequence[Expert]
    prompts: Sequence[Prompt]
    most: int
    sampling: Sampling = field(default_factory=Sampling)
    options: RuntimeOptions = field(default_factory=RuntimeOptions)


@dataclass(frozen=True)
class Generated:
    """``answers`` by prompt; the emulated times of each by column, and what the groups did."""

    answers: list[list[int]]
    columns: dict[str, Ints]
    simulation: Simulation


def generate(
    asked: Asked,
    emit: Emit = lambda _prompt, _token: None,
    start: Start = local_members,
    observe: Observe = lambda _command: None,
) -> Generated:
    """All answers, by sockets that ``start`` makes; raises ``InputError`` where experts or prompts do not fit."""
    deployment = _deployment(asked)
    requests = [
        Request(number, 0, len(prompt.tokens), asked.most, prompt.expert) for number, prompt in enumerate(asked.prompts)
    ]
    _check(asked, deployment)
    programs = deployment.settings.programs
    prompts = {request.id: prompt.tokens for request, prompt in zip(requests, asked.prompts, strict=True)}
    with start(asked.experts, deployment, asked.sampling) as members:
        texts = Texts(members, prompts, programs, asked.sampling, emit)

        def perform(command: Command, serving: Sequence[Serving]) -> Performed:
            observe(command)
            return texts.perform(command, serving)

        simulation = deployment.simulation(requests, perform)
        while not simulation.over:
            due = simulation.next_event()
            assert due is not None
            simulation.advance(due + 1)
            simulation.take(0)
    columns = columns_of(simulation.requests, simulation.columns())
    return Generated([texts.answers[request.id] for request in requests], columns, simulation)


def _deployment(asked: Asked) -> Deployment:
    """One group of all sockets; experts of one shape share their programs."""
    shapes: dict[Shape, str] = {}
    for expert in asked.experts:
        shapes.setdefault(replace(expert.shape, name=""), expert.name)
    groups = tuple(ExpertGroup(shapes[replace(expert.shape, name="")], 1) for expert in asked.experts)
    named = {name: replace(shape, name=name) for shape, name in shapes.items()}
    workspace = asked.options.kv_reserve // WORKSPACE_SHARE // 64 * 64
    options = replace(asked.options, workspace=workspace)
    return Deployment(asked.machine, Catalogue(groups, None), named, asked.machine.sockets, options)


def _check(asked: Asked, deployment: Deployment) -> None:
    """``InputError`` for prompts that no expert can take."""
    for number, prompt in enumerate(asked.prompts):
        shape = asked.experts[prompt.expert].shape
        tokens = len(prompt.tokens) + asked.most
        if not prompt.tokens:
            raise InputError(f"prompt {number} has no tokens: give a text")
        if tokens > shape.context:
            raise InputError(
                f"prompt {number}: {len(prompt.tokens)} tokens and {asked.most} to generate exceed the context of "
                f"{shape.context} of {asked.experts[prompt.expert].name}; lower --max-tokens"
            )
        if shape.sliding_window is not None and tokens > shape.sliding_window:
            raise InputError(
                f"prompt {number}: {tokens} tokens exceed the attention window of {shape.sliding_window}: "
                "functional mode does not leave older keys out"
            )
        if wrong := [token for token in prompt.tokens if not 0 <= token < shape.vocabulary]:
            raise InputError(f"prompt {number}: token {wrong[0]} is not among the {shape.vocabulary} of the model")
    deployment.check_fits()
    largest = sorted((len(prompt.tokens) for prompt in asked.prompts), reverse=True)[: asked.options.batch]
    pairs = sum(causal_pairs(length, None) for length in largest)
    step = Step(sum(largest), pairs, sum(largest), len(largest))
    for rank in sorted(set(deployment.rank_kinds)):
        for program in deployment.programs(rank):
            size = Planned.of(program, step, decoding=False).size
            if size > deployment.options.workspace:
                raise InputError(
                    f"{show_bytes(size)} lie between the kernels of a prefill of {sum(largest)} tokens, but "
                    f"{show_bytes(deployment.options.workspace)} are kept for it; lower --batch"
                )
