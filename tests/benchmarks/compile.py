"""How long compiling takes: prefill and decode of a model on all sockets of a machine, a fresh program each time."""

from __future__ import annotations

import time

from node.dataflow.form import Step
from node.dataflow.fusion import LEVELS
from node.dataflow.program import compile_graph
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.training import train, training_step
from node.spec_file import load_machine

CASES = (("llama-2-7b", "sn40l-node"), ("llama-3.1-405b", "sn40l-rack"))
TOKENS = 4096


def main() -> None:
    """Print a line per model and level."""
    for model, name in CASES:
        machine, shape = load_machine(name), load_shape(model)
        for level in LEVELS:
            start = time.perf_counter()
            program = compile_graph(decoder(shape, machine.sockets), machine, machine.sockets, level, "ho")
            program.prefill(Step(TOKENS, TOKENS * (TOKENS + 1) // 2, TOKENS, 1))
            program.decode(1)
            print(f"{model} on {name}, {level}: {time.perf_counter() - start:.3f} s")
    machine = load_machine("sn40l-node")
    start = time.perf_counter()
    graph = train(load_shape("llama-2-7b"), machine.sockets)
    compile_graph(graph, machine, machine.sockets, "fused", "ho").prefill(training_step(1, TOKENS))
    print(f"llama-2-7b train on sn40l-node, fused: {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    main()
