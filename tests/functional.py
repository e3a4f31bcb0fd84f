"""Content in dictionaries, for tests that run a graph's meaning: all ranks of a group in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from node.dataflow.batch import Batch
from node.dataflow.compiler import Compiler
from node.dataflow.execute import run
from node.dataflow.graph import Graph, Operator
from node.dataflow.kernel import Kernel
from node.dataflow.schedule import Access, Launch, schedule
from node.spec_file import load_machine
from tests.lockstep import lockstep

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
NO_TOKENS: Ints = np.zeros(0, dtype=np.int64)


@dataclass
class Found:
    """What operators of a launch find; see ``node.dataflow.meaning.operands.Operands``."""

    content: Content
    launch: Launch

    @property
    def batch(self) -> Batch:
        return self.content.batch

    @property
    def tokens(self) -> Ints:
        return self.content.tokens

    @property
    def targets(self) -> Ints:
        return self.content.targets

    def weights(self, operator: str) -> Array:
        return self.content.weights[self.launch.weights[operator]]

    def append(self, keys: Array, values: Array) -> None:
        for sequence, span in enumerate(self.batch.of_tokens):
            for what, array in (("k", keys), ("v", values)):
                cache = self.content.cache.setdefault((self.launch.iteration, what, sequence), array[:0])
                held = np.concatenate([cache[: self.batch.before[sequence]], array[span]])
                self.content.cache[self.launch.iteration, what, sequence] = held

    def keys(self, sequence: int) -> Array:
        return self.content.cache[self.launch.iteration, "k", sequence]

    def values(self, sequence: int) -> Array:
        return self.content.cache[self.launch.iteration, "v", sequence]


@dataclass
class Content:
    """One socket's: ``weights`` by symbol; what kernels hand on, in ``memory`` by symbol."""

    weights: dict[str, Array]
    batch: Batch = field(default_factory=lambda: Batch((), ()))
    tokens: Ints = field(default_factory=lambda: NO_TOKENS)
    targets: Ints = field(default_factory=lambda: NO_TOKENS)
    memory: dict[str, Array] = field(default_factory=dict)
    cache: dict[tuple[int, str, int], Array] = field(default_factory=dict)

    def read(self, access: Access) -> Array:
        """What lies within weights (an optimizer's state) is zero before the first step."""
        if access.tensor.within:
            return self.memory.get(f"{access.symbol}/{access.tensor.name}", np.zeros(access.tensor.shape, np.float32))
        return self.memory[access.symbol]

    def write(self, access: Access, array: Array) -> None:
        within = f"/{access.tensor.name.removesuffix('_updated')}" if access.tensor.within else ""
        self.memory[access.symbol + within] = array

    def operands(self, launch: Launch) -> Found:
        return Found(self, launch)


def owners(graph: Graph) -> list[tuple[str, int, Operator]]:
    """(symbol, number of the layer, operator) of all weights of a graph."""
    return [
        (
            f"{block.name}[{layer}].{op.name}.weights" if block.repeat > 1 else f"{block.name}.{op.name}.weights",
            layer,
            op,
        )
        for block in graph.blocks
        for layer in range(block.repeat)
        for op in block.operators
        if op.weights
    ]


@dataclass
class Group:
    """Sockets that hold the shards of a model; ``graphs`` and ``contents`` by rank."""

    graphs: list[Graph]
    contents: list[Content]
    level: str = "fused"

    def kernels(self, rank: int, *, decoding: bool) -> tuple[Kernel, ...]:
        graph, batch = self.graphs[rank], self.contents[rank].batch
        machine = replace(load_machine("sn40l-node"), sockets=len(self.graphs))
        compiler = Compiler.of(machine, len(self.graphs), self.level, "ho")
        return compiler.kernels([block for block in graph.blocks if block.in_decode or not decoding], batch.step)

    def run(
        self, batch: Batch, tokens: Sequence[int] = (), targets: Sequence[int] = (), *, decoding: bool = False
    ) -> None:
        """One pass; what it made lies in each rank's memory."""
        runs = []
        for rank, content in enumerate(self.contents):
            content.batch = batch
            content.tokens, content.targets = np.array(tokens, dtype=np.int64), np.array(targets, dtype=np.int64)
            launches = schedule(self.kernels(rank, decoding=decoding), batch.step).launches
            runs.append(run(launches, content))
        lockstep(runs)

    def made(self, symbol: str, rank: int = 0) -> Array:
        return self.contents[rank].memory[symbol]


def group(
    graph_of: Callable[[int], Graph],
    weights_of: Callable[[int, str, int, Operator], Array],
    degree: int,
    level: str = "fused",
) -> Group:
    """A group whose rank r has ``graph_of(r)`` with weights ``weights_of(r, symbol, layer, operator)``."""
    graphs = [graph_of(rank) for rank in range(degree)]
    contents = [
        Content({symbol: weights_of(rank, symbol, layer, op) for symbol, layer, op in owners(graph)})
        for rank, graph in enumerate(graphs)
    ]
    return Group(graphs, contents, level)
