"""Answers and their times as tables on a terminal."""

from __future__ import annotations

from rich.console import Console

from cluster.answers import Answer, Answers
from cluster.inputs import assumptions
from cluster.show import print_table
from node.spec import Machine
from node.units import show_seconds


def answers_table(console: Console, found: Answers, machine: Machine) -> None:
    """The answers where there are several (a single one was shown as it came), and the time of each."""
    console.print()
    if len(found.answers) > 1:
        for number, answer in enumerate(found.answers, 1):
            sure = "" if answer.confidence is None else f" (confidence {answer.confidence:.2f})"
            console.print(f"\n[{number}] {answer.expert}{sure}: {answer.prompt}", style="bold", highlight=False)
            console.print(answer.text.strip(), highlight=False)
    title = f"Emulated: {found.sockets} sockets of {found.machine}"
    heads = ("", "expert", "tokens in", "out", "waited", "switch", "TTFT", "TPOT", "whole")
    rows = [_row(number, answer) for number, answer in enumerate(found.answers, 1)]
    print_table(console, title, heads, rows, left=(0, 1))
    console.print(
        f"{found.activations} activations, {found.evictions} evictions, all in {show_seconds(found.makespan_s)}; "
        f"here {found.wall_s:.1f} s, {found.wall_tokens_per_s:.1f} tokens/s",
        highlight=False,
    )
    console.print(f"\n{assumptions(machine)}", style="dim", highlight=False)


def _row(number: int, answer: Answer) -> tuple[str, ...]:
    return (
        str(number),
        answer.expert,
        str(answer.input_tokens),
        str(len(answer.tokens)),
        show_seconds(answer.queue_s),
        show_seconds(answer.switch_s),
        show_seconds(answer.ttft_s),
        "" if answer.tpot_s is None else show_seconds(answer.tpot_s),
        show_seconds(answer.e2e_s),
    )
