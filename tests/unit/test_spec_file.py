"""Is a machine what its file says, with a source for every number, and is a mistake answered in one line?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from node.dataflow.operators import ELEMENT_BYTES
from node.errors import InputError
from node.spec import KINDS, Machine, paths
from node.spec_file import load_machine, machine_names

NODE = load_machine("sn40l-node")
A100, H100 = load_machine("dgx-a100"), load_machine("dgx-h100")
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.toml") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def complaint(name: str, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_machine(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The built-in machines


def test_the_built_in_machines_are_those_of_the_reference() -> None:
    assert machine_names() == ["dgx-a100", "dgx-h100", "sn40l-node", "sn40l-rack", "sn40l-socket"]
    sockets = {name: load_machine(name).sockets for name in machine_names()}
    assert sockets == {"dgx-a100": 8, "dgx-h100": 8, "sn40l-node": 8, "sn40l-rack": 16, "sn40l-socket": 1}
    assert (NODE.name, NODE.title) == ("sn40l-node", "SambaNova SN40L node, 8 sockets and a host")


@pytest.mark.parametrize("name", ["dgx-a100", "dgx-h100", "sn40l-node", "sn40l-rack", "sn40l-socket"])
def test_every_number_of_a_machine_has_a_kind_and_a_source(name: str) -> None:
    figures = {figure.path: figure for figure in load_machine(name).figures}
    required = {path for path, (_, optional) in paths().items() if not optional}
    assert required <= set(figures) <= set(paths())
    assert [path for path in paths() if path in figures] == list(figures)  # in the order of the spec
    assert all(figure.kind in KINDS and len(figure.source) > 0 and figure.value for figure in figures.values())
    assert {figure.source for figure in figures.values()}.isdisjoint({f"{name}.toml", "--set"})


def test_the_sn40l_node_has_the_published_figures() -> None:
    peak = NODE.compute.flops_per_s / NODE.compute.efficiency
    assert peak == pytest.approx(638e12, rel=1e-4)
    assert peak * NODE.sockets == pytest.approx(5.1e15, rel=2e-3)
    assert NODE.pipeline is not None
    assert NODE.pipeline.lanes * ELEMENT_BYTES == NODE.sram.bank_bandwidth  # a lane takes an element per cycle
    assert (NODE.compute.units, NODE.sram.banks) == (1040, 1040)
    assert NODE.sram.capacity == 520 * 2**20
    sram_rate = NODE.sram.banks * NODE.sram.bank_bandwidth * NODE.compute.clock
    assert sram_rate == pytest.approx(106e12, rel=5e-3)
    assert NODE.hbm.capacity == 64 * 2**30 and NODE.hbm.capacity * 8 == 512 * 2**30
    assert NODE.hbm.bandwidth * 8 == pytest.approx(14.4e12)
    assert NODE.hbm.efficiency == 0.85
    assert NODE.ddr.capacity * 8 == 12 * 2**40
    assert NODE.ddr.bandwidth == 200e9 and NODE.ddr.efficiency == 0.62
    assert NODE.host_link is None
    assert NODE.kernel.fusion == "looped" and NODE.kernel.launch_ho is not None
    assert NODE.power is not None and NODE.power.socket * 16 == pytest.approx(10_000, rel=0.01)
    kinds = {figure.path: figure.kind for figure in NODE.figures}
    assert kinds["hbm.bandwidth"] == "published" and kinds["compute.clock"] == "derived"
    assert kinds["peer.bandwidth"] == kinds["kernel.launch_ho"] == kinds["kernel.launch_so"] == "assumed"
    assert kinds["kernel.sync"] == kinds["host.call_overhead"] == "derived"  # the two that are fitted


@pytest.mark.parametrize(("machine", "tflops", "hbm", "link"), [(A100, 312, 2.039, 32), (H100, 989, 3.35, 64)])
def test_the_dgx_has_the_published_figures(machine: Machine, tflops: float, hbm: float, link: float) -> None:
    peak = machine.compute.flops_per_s / machine.compute.efficiency
    assert peak == pytest.approx(tflops * 1e12, rel=1e-3)
    assert machine.hbm.capacity == 80 * 10**9
    assert machine.hbm.bandwidth == pytest.approx(hbm * 1e12)
    assert machine.ddr.capacity * 8 == 2 * 2**40
    assert machine.ddr.bandwidth is None and machine.power is None
    assert machine.host_link is not None
    assert (machine.host_link.bandwidth, machine.host_link.sharing) == (link * 1e9, "shared")
    assert machine.kernel.fusion == "conventional" and machine.kernel.launch_ho is None


def test_the_h100_takes_from_the_a100_what_it_does_not_say() -> None:
    assert (H100.compute.units, A100.compute.units) == (132, 108)
    assert H100.sram.capacity == 50 * 2**20 and A100.sram.capacity == 40 * 2**20
    assert H100.sram.bank_capacity == A100.sram.bank_capacity == 512 * 2**10
    assert H100.ddr == A100.ddr and H100.hbm.efficiency == A100.hbm.efficiency
    assert (H100.peer.bandwidth, A100.peer.bandwidth) == (450e9, 300e9)
    assert H100.title != A100.title


def test_copying_llama_2_7b_takes_what_the_paper_says() -> None:
    shard = 6_738_415_616 * 2 // 8
    assert A100.copy_ps(shard, sharers=8) == pytest.approx(421e9, rel=1e-3)
    assert H100.copy_ps(shard, sharers=8) == pytest.approx(211e9, rel=3e-3)
    assert NODE.copy_ps(shard, sharers=8) == pytest.approx(13.6e9, rel=2e-3)
    assert NODE.copy_ps(shard, sharers=1) == NODE.copy_ps(shard, sharers=8)
    parallel = load_machine("dgx-a100", {"host_link.sharing": "per_socket"})
    assert parallel.copy_ps(shard, sharers=8) == A100.copy_ps(shard, sharers=1) == pytest.approx(421e9 / 8, rel=1e-3)


# A user's own machine


def test_a_file_says_only_what_differs_from_its_base(write: Write) -> None:
    mine = load_machine(write('base = "sn40l-node"\nsockets = 4\n[hbm]\ncapacity = "96 GiB"\n'))
    assert (mine.name, mine.title, mine.sockets, mine.hbm.capacity) == ("mine", "mine", 4, 96 * 2**30)
    assert (mine.compute, mine.ddr, mine.hbm.bandwidth) == (NODE.compute, NODE.ddr, NODE.hbm.bandwidth)
    figures = {figure.path: figure for figure in mine.figures}
    assert (figures["hbm.capacity"].kind, figures["hbm.capacity"].source) == ("assumed", "mine.toml")
    assert (figures["sockets"].value, figures["sockets"].kind) == ("4", "assumed")
    assert figures["hbm.bandwidth"].source == "P Table II (P text ~2, HC 1.6)"


def test_a_base_may_be_a_file_beside_it(write: Write) -> None:
    write('base = "dgx-h100"\ntitle = "the base"\n[host_link]\nsharing = "per_socket"\n', "sub/base.toml")
    sourced = '[peer.latency]\nvalue = "2 us"\nkind = "published"\nsource = "my bench"\n'
    mine = load_machine(write('base = "sub/base.toml"\nname = "ours"\n' + sourced))
    assert (mine.name, mine.title) == ("ours", "mine")
    assert mine.host_link is not None and (mine.host_link.sharing, mine.host_link.bandwidth) == ("per_socket", 64e9)
    latency = next(figure for figure in mine.figures if figure.path == "peer.latency")
    assert (mine.peer.latency, latency.kind, latency.source) == (2e-6, "published", "my bench")


def test_an_override_wins_and_is_the_users_own() -> None:
    machine = load_machine("sn40l-node", {"ddr.efficiency": "50 %", "hbm.efficiency": 1, "kernel.sync": "0 s"})
    assert (machine.ddr.efficiency, machine.hbm.efficiency, machine.kernel.sync) == (0.5, 1, 0)
    figure = next(figure for figure in machine.figures if figure.path == "ddr.efficiency")
    assert (figure.value, figure.kind, figure.source) == ("50 %", "assumed", "--set")
    sourced = {"value": 2, "kind": "published", "source": "a brochure"}
    figures = {figure.path: figure for figure in load_machine("sn40l-node", {"sockets": sourced}).figures}
    assert (figures["sockets"].kind, figures["sockets"].source) == ("published", "a brochure")


# Mistakes: what, the value, what is allowed, where


def test_an_unknown_machine_is_answered_with_those_there_are() -> None:
    message = complaint("sn50")
    assert "'sn50'" in message and all(name in message for name in machine_names()) and ".toml" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[hbm]\nsize = 3\n", ["mine.toml: hbm.size", "unknown key", "hbm.capacity"]),
        ("clock = 3\n", ["mine.toml: clock", "unknown key", "compute.clock"]),
        ('[hbm]\ncapacity = "3 gigs"\n', ["mine.toml: hbm.capacity", "'3 gigs'", "GiB"]),
        ('[hbm]\ncapacity = "0.3 B"\n', ["mine.toml: hbm.capacity", "'0.3 B'", "whole number"]),
        ('[hbm]\ncapacity = "0 B"\n', ["mine.toml: hbm.capacity", "'0 B'", "above zero"]),
        ("[hbm]\nefficiency = 1.01\n", ["mine.toml: hbm.efficiency", "1.01", "at most 1"]),
        ('[hbm]\nefficiency = "101 %"\n', ["mine.toml: hbm.efficiency", "101 %", "at most 1"]),
        ("[hbm]\nefficiency = [1]\n", ["mine.toml: hbm.efficiency", "[1]", "fraction"]),
        ("sockets = 0\n", ["mine.toml: sockets", "0", "above zero"]),
        ("sockets = 2.5\n", ["mine.toml: sockets", "2.5", "whole number"]),
        ("sockets = true\n", ["mine.toml: sockets", "True", "count"]),
        ('[kernel]\nfusion = "all"\n', ["mine.toml: kernel.fusion", "'all'", "unfused, conventional, fused"]),
        ('[kernel]\nsync = "-1 us"\n', ["mine.toml: kernel.sync", "'-1 us'", "non-negative"]),
        ('[hbm.capacity]\nvalue = "3 GB"\nkind = "rumour"\nsource = "x"\n', ["hbm.capacity", "rumour", *KINDS]),
        ('[hbm.capacity]\nvalue = "3 GB"\nkind = "derived"\n', ["mine.toml: hbm.capacity", "source"]),
        ('[hbm.capacity]\nvalue = "3 GB"\nkind = "derived"\nsource = "x"\nunit = "y"\n', ["hbm.capacity", "exactly"]),
        ('[host_link]\nbandwidth = "3 GB/s"\nsharing = "shared"\n', ["ddr.bandwidth", "host_link.sharing", "either"]),
        ("base = 3\n", ["mine.toml: base = 3", "name of a machine"]),
        ('base = "sn50"\n', ["'sn50'", "sn40l-node"]),
        ('base = "mine.toml"\n', ["mine.toml: its base leads back to itself", "->"]),
        ("[hbm\n", ["mine.toml: cannot be read as TOML", "line 2"]),
    ],
)
def test_a_mistake_in_a_file_is_answered_in_one_line(write: Write, text: str, parts: list[str]) -> None:
    message = complaint(write(text if text.startswith("base") else 'base = "sn40l-node"\n' + text))
    assert [part for part in parts if part not in message] == []


def test_a_cycle_of_two_bases_is_named(write: Write) -> None:
    write('base = "mine.toml"\n', "other.toml")
    assert "mine.toml -> " in complaint(write('base = "other.toml"\n'))


def test_a_cycle_through_a_detour_is_named(write: Write) -> None:
    assert "leads back to itself" in complaint(write('base = "../sub/mine.toml"\n', "sub/mine.toml"))


def test_a_file_that_is_not_there_or_no_text_is_named(write: Write, tmp_path: Path) -> None:
    assert complaint(str(tmp_path / "none.toml")).endswith(
        "none.toml: cannot be read as TOML: No such file or directory"
    )
    Path(write("")).write_bytes(b"\xff\xfe")
    assert "mine.toml: cannot be read as TOML" in complaint(str(tmp_path / "mine.toml"))


def test_a_machine_without_base_says_every_number(write: Write) -> None:
    assert "given: none" in complaint(write("sockets = 1\n"))
    lines = [f'{f.path} = "{f.value}"' for f in NODE.figures]
    assert load_machine(write("\n".join(lines))).hbm == NODE.hbm
    message = complaint(write("\n".join(line for line in lines if "hbm.b" not in line and "sync" not in line)))
    assert "hbm.bandwidth, kernel.sync missing" in message and "mine.toml: " in message
    assert "ddr.efficiency is missing" in complaint(write("\n".join(x for x in lines if "ddr.e" not in x)))
    assert "host_link.sharing is missing" in complaint(
        write("\n".join(x for x in lines if not x.startswith(("ddr.b", "ddr.e"))) + '\nhost_link.bandwidth = "1 GB/s"')
    )


@pytest.mark.parametrize("text", ["sockets = 1\n", 'sockets = 1\n[ddr]\nbandwidth = "1 GB/s"\nefficiency = 1\n'])
def test_a_missing_number_is_answered_with_the_file(write: Write, text: str) -> None:
    assert "mine.toml" in complaint(write(text))


def test_a_wrong_override_names_its_path() -> None:
    assert complaint("sn40l-node", {"hbm.size": "3 GB"}).startswith("machine.hbm.size: unknown key")
    assert complaint("sn40l-node", {"hbm.capacity": 3}).startswith("machine.hbm.capacity = 3: not a non-negative")
