"""What ``coe generate`` found: the answers, and the times of the emulated machine beside the wall clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster.generate import Asked, Generated
from node.units import PS_PER_S


@dataclass(frozen=True)
class Answer:
    """One prompt's; seconds are virtual, those of the emulated machine.

    ``confidence``: the router's, where it chose; ``tpot_s``: time of each token after the first, None without one.
    """

    prompt: str
    expert: str
    confidence: float | None
    text: str
    tokens: list[int]
    input_tokens: int
    queue_s: float
    switch_s: float
    ttft_s: float
    tpot_s: float | None
    e2e_s: float


@dataclass(frozen=True)
class Answers:
    """All of a run; ``wall_s``: how long it took here, ``activations``: copies from DDR to HBM."""

    machine: str
    sockets: int
    answers: list[Answer]
    activations: int
    evictions: int
    makespan_s: float
    wall_s: float
    wall_tokens_per_s: float

    def as_json(self) -> dict[str, object]:
        """Everything."""
        return asdict(self)


@dataclass(frozen=True)
class Spoken:
    """A prompt as it was given, the answer's text, and how sure the router was."""

    prompt: str
    text: str
    confidence: float | None


def answers_of(asked: Asked, found: Generated, spoken: Sequence[Spoken], evictions: int, wall_s: float) -> Answers:
    """The answers of ``found`` with what was ``spoken``, by prompt."""
    columns, group = found.columns, found.simulation.groups[0]
    rows = []
    for number, (said, tokens) in enumerate(zip(spoken, found.answers, strict=True)):
        ps = {name: int(columns[name][number]) for name in ("queue", "switch", "ttft", "e2e")}
        rows.append(
            Answer(
                prompt=said.prompt,
                expert=asked.experts[asked.prompts[number].expert].name,
                confidence=said.confidence,
                text=said.text,
                tokens=tokens,
                input_tokens=len(asked.prompts[number].tokens),
                queue_s=ps["queue"] / PS_PER_S,
                switch_s=ps["switch"] / PS_PER_S,
                ttft_s=ps["ttft"] / PS_PER_S,
                tpot_s=(ps["e2e"] - ps["ttft"]) / (len(tokens) - 1) / PS_PER_S if len(tokens) > 1 else None,
                e2e_s=ps["e2e"] / PS_PER_S,
            )
        )
    generated = sum(map(len, found.answers))
    return Answers(
        machine=asked.machine.name,
        sockets=asked.machine.sockets,
        answers=rows,
        activations=sum(group.activations.values()),
        evictions=evictions,
        makespan_s=found.simulation.now / PS_PER_S,
        wall_s=wall_s,
        wall_tokens_per_s=generated / wall_s,
    )
