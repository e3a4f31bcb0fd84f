"""The CoE runtime of one node: it takes events and gives orders to the groups of sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from node.errors import InputError
from node.events import CopyDone, Event, GroupDone, Order, RequestsArrived
from node.request import Request
from node.runtime.group import Group
from node.runtime.orders import Settings
from node.runtime.served import Served
from node.runtime.sharding import Layout, group_of
from node.units import Picoseconds

Finished = Callable[[Served, Picoseconds], None]


class Runtime:
    """Groups over ``layouts``; ``finished`` is told of each request that ends."""

    def __init__(self, layouts: Sequence[Layout], settings: Settings, finished: Finished) -> None:
        self.groups = [Group(layout, settings) for layout in layouts]
        self._settings, self._finished = settings, finished

    def deploy(self) -> list[Order]:
        """What is put in place before time 0."""
        orders: list[Order] = []
        for group in self.groups:
            group.orders.deploy()
            orders += group.orders.take()
        return orders

    def handle(self, event: Event, now: Picoseconds) -> list[Order]:
        """Decide what an event leads to."""
        match event:
            case RequestsArrived(requests=requests):
                return self._arrived([Served(request) for request in requests], now)
            case GroupDone(group=index, steps=steps):
                group = self.groups[index]
                outcome = group.done(steps, now)
                for served in outcome.finished:
                    self._finished(served, now)
                orders = self._hand_over(outcome.routed, now)
                return orders + group.proceed(now)
            case CopyDone(group=index, expert=expert):
                self.groups[index].arrived(expert, now)
                return self.groups[index].proceed(now)

    def _arrived(self, arrived: Sequence[Served], now: Picoseconds) -> list[Order]:
        """Newcomers go to the groups' routers in turn, or straight to their expert's group where no router runs."""
        if self._settings.router is None:
            return self._hand_over(arrived, now)
        by_group: dict[int, list[Served]] = {}
        for served in arrived:
            served.group = served.request.id % len(self.groups)
            by_group.setdefault(served.group, []).append(served)
        return [order for index in sorted(by_group) for order in self.groups[index].arrive(by_group[index], now)]

    def _hand_over(self, routed: Iterable[Served], now: Picoseconds) -> list[Order]:
        by_group: dict[int, list[Served]] = {}
        for served in routed:
            by_group.setdefault(group_of(served.request.expert, len(self.groups)), []).append(served)
        return [order for index in sorted(by_group) for order in self.groups[index].receive(by_group[index], now)]


def check_lengths(requests: Iterable[Request], settings: Settings, kv_size: int) -> None:
    """Every request's KV cache, and the router's for it, must fit the empty KV region; ``InputError`` otherwise."""
    router = None if settings.router is None else settings.sizes[settings.router]
    worst, asked, most = None, 0, kv_size
    for request in requests:
        tokens = request.input_tokens + request.output_tokens
        size = settings.sizes[request.expert].kv_bytes(tokens)
        if router is not None:
            size = max(size, router.kv_bytes(request.input_tokens + settings.router_tokens))
        if size > most:
            worst, asked, most = request, size, size
    if worst is not None:
        raise InputError(
            f"request {worst.id} ({worst.input_tokens} tokens in, {worst.output_tokens} out) needs {asked:,} bytes of "
            f"KV cache per socket, but runtime.kv_reserve leaves {kv_size:,}; raise runtime.kv_reserve, "
            "or set workload.over_context to clip or refuse"
        )
