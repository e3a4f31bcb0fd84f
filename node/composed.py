"""One call of a composition over images: what its generic encoder, its U-Net and what joins them each take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.errors import OutOfMemoryError
from node.estimate import Call, Estimate, estimate_one_pass
from node.models.composition import Composed
from node.models.one_pass import OnePass, kinds, members, pass_step
from node.models.unet_shape import UNetShape
from node.models.vision_expert import VisionExpert
from node.spec import Machine
from node.units import Bytes, seconds

SHARED, OWN = "every patch", "patches of their own"


@dataclass(frozen=True, slots=True)
class Part:
    """``weight_bytes`` of the model and of the fullest socket, ``flops`` of the call, its ``seconds``, what bounds it.

    ``activation_s``: to have its weights copied from DDR to the HBM of all sockets.
    """

    name: str
    weight_bytes: Bytes
    socket_bytes: Bytes
    flops: float
    seconds: float
    bound_by: str
    activation_s: float


@dataclass(frozen=True, slots=True)
class ComposedEstimate:
    """The ``parts`` of one call over a batch of images, of ``patches`` each; ``sharing``: what sockets share of them.

    ``total_s`` is with the call overhead.
    """

    patches: int
    sharing: str
    parts: tuple[Part, ...]
    call_overhead_s: float
    total_s: float


def estimate_composed(machine: Machine, composed: Composed, call: Call) -> ComposedEstimate:
    """On all sockets of ``machine``: they share every image of the encoder.

    Of the patches they share each, channels split where that is worth the link's bytes, or have whole ones of their
    own: whichever takes less time. The adapter's part is what the expert takes more with it than without. Raises
    ``OutOfMemoryError``.
    """
    of_patches = replace(call, batch=call.batch * composed.patches)
    worth = machine.compute.peak_flops_per_s / machine.peer.bandwidth
    choices = {SHARED: (True, worth), OWN: (False, 0.0)}

    def expert(shape: UNetShape, sharing: str) -> VisionExpert:
        return VisionExpert(shape, *choices[sharing])

    def seconds_of(sharing: str) -> float:
        return estimate_one_pass(machine, expert(composed.shape, sharing), of_patches).prefill_s

    sharing = min(choices, key=seconds_of) if machine.sockets > 1 else OWN
    encoder = _part("encoder", machine, composed.encoder, call)
    unet = _part("U-Net", machine, expert(composed.plain, sharing), of_patches)
    whole = _part("expert", machine, expert(composed.shape, sharing), of_patches)
    adapter = Part(
        "adapter",
        whole.weight_bytes - unet.weight_bytes,
        whole.socket_bytes - unet.socket_bytes,
        whole.flops - unet.flops,
        whole.seconds - unet.seconds,
        whole.bound_by,
        whole.activation_s - unet.activation_s,
    )
    needed = encoder.socket_bytes + whole.socket_bytes
    if needed > machine.hbm.capacity:
        room, hint = machine.hbm.capacity, "weights of the encoder and of one expert; take more sockets"
        raise OutOfMemoryError("HBM", "every socket", asked=needed, free=room, largest_hole=room, hint=hint)
    overhead = machine.host.call_overhead
    total = overhead + encoder.seconds + whole.seconds
    return ComposedEstimate(composed.patches, sharing, (encoder, adapter, unet), overhead, total)


def _part(name: str, machine: Machine, model: OnePass, call: Call) -> Part:
    found: Estimate = estimate_one_pass(machine, model, call)
    group = members(model, machine.sockets)
    graphs = [graph for graph, _ in kinds(model, group)]
    held = max(graph.weight_bytes for graph in graphs)
    whole = model.graph()
    step = pass_step(model, call.batch, machine.sockets) if model.together else pass_step(model, call.batch, 1)
    flops = sum(op.flops.at(step) * block.repeat for block in whole.blocks for op in block.operators)
    activation_s = seconds(machine.copy_ps(held, machine.sockets))
    return Part(name, whole.weight_bytes, held, flops, found.prefill_s, found.bound_by, activation_s)
