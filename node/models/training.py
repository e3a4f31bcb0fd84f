"""One training step of a decoder as an operator graph: forward, loss, backward, Adam.

Forward is the graph that serves (``decoder``) without a KV cache, with logits of all tokens. Backward walks a block's
operators in reverse and takes the backward of each from ``node.dataflow.backward``; forward tensors that it reads are
kept. Nothing is recomputed but norms' statistics: attention probabilities are kept too. Attention being causal, tiles
of tokens flow through it forward in their order and backward in reverse, with a sequence's keys and values on chip.

Tensor parallelism as in Megatron (Shoeybi et al. 2019): where a split layer reads what every socket holds, each makes a
part of its gradient, and an all-reduce sums them; the forward all-reduces pass gradients on. Sockets that share a KV
head sum the gradients of its weights (``shared_heads``). There is one data-parallel replica: gradients are summed over
no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from node.dataflow.attributes import Adam
from node.dataflow.form import ZERO, Form, Step, causal_pairs
from node.dataflow.gradient import gradient_of, weight_gradient
from node.dataflow.graph import Block, Graph, Operator, Tensor
from node.dataflow.operators import collective
from node.dataflow.reverse import reverse
from node.errors import InputError
from node.models.decoder import decoder
from node.models.shape import Shape
from node.models.shared_heads import sum_over_sharers

ADAM_FLOPS = 12  # two moving averages: 3 and 4; root, add, divide; times the rate (both corrections in it), subtract
STATE = ("master", "first_moment", "second_moment")  # FP32, 12 bytes a parameter


def training_step(batch: int, length: int, window: int | None = None) -> Step:
    """A step of ``batch`` sequences of ``length`` tokens."""
    return Step(batch * length, batch * causal_pairs(length, window), batch * length, batch)


def train(shape: Shape, degree: int = 1, rank: int = 0) -> Graph:
    """One training step of a shard in mixed precision: BF16 weights and gradients, FP32 master weights and moments.

    ``weight_bytes`` of the graph has the optimizer's state too. Raises ``InputError`` for a model with a vision tower.
    """
    if shape.vision is not None:
        raise InputError(f"model {shape.name}: training of a model with a vision tower is not supported")
    served = decoder(shape, degree, rank)
    embedding, layer, head = (block.operators for block in served.blocks)
    layer, head = _uncached(layer), _all_tokens(head)
    loss = _loss(head[-1], degree)
    embedding_back, layer_back = (reverse(ops, gradient_of(ops[-1].outputs[0]), degree) for ops in (embedding, layer))
    layer_back = sum_over_sharers(layer_back, shape, degree, rank)
    head_back = reverse(head, loss[-1].outputs[0], degree)
    if shape.tied_embeddings:
        embedding_back = _tied(embedding_back, weight_gradient(embedding[0]), weight_gradient(head[-1]))
    blocks = (
        Block("embedding", _keep(embedding, embedding_back)),
        Block("layer", _keep(layer, layer_back), shape.layers),
        Block("head", (*head, *loss, *head_back)),
        Block("layer_backward", layer_back, shape.layers, mirrors="layer"),
        Block("embedding_backward", embedding_back),
        Block("layer_optimizer", _optimizer(layer), shape.layers, mirrors="layer_backward"),
        Block("optimizer", _optimizer((*embedding, *head))),
    )
    never_decoded = tuple(replace(block, in_decode=False) for block in blocks)
    return Graph(f"{shape.name} train", never_decoded, window=shape.sliding_window, context=served.context)


def _uncached(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """A layer whose attention reads the keys and values that it made, not a cache of them."""
    append = next(op for op in operators if op.function == "append")
    operand = dict(zip(("scores", "values"), append.inputs, strict=True))
    return tuple(
        replace(op, inputs=(*op.inputs, operand[op.function]), kv_read=ZERO) if op.function in operand else op
        for op in operators
        if op is not append
    )


def _all_tokens(head: Sequence[Operator]) -> tuple[Operator, ...]:
    """The head on all tokens instead of each sequence's last; the logits stay split."""

    def moved(form: Form) -> Form:
        return replace(form, tokens=form.tokens + form.sequences, sequences=0)

    def of(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        return tuple(replace(tensor, per="tokens") for tensor in tensors)

    return tuple(
        replace(op, inputs=of(op.inputs), outputs=of(op.outputs), flops=moved(op.flops), rows=moved(op.rows))
        for op in head
        if not op.collective
    )


def _loss(head: Operator, degree: int) -> tuple[Operator, ...]:
    """Cross-entropy over the split logits that ``head`` makes, and their gradient: probability less one at the target.

    Maximum, subtract, exponential, sum: 4 FLOPs a logit, taken twice. The maximum, the sum and the target's logit of
    each token, FP32, are reduced at once. Then scale, subtract, divide by the number of tokens: 3 FLOPs.
    """
    (logits,), words = head.outputs, head.attributes
    exponentials, gradient = replace(logits, name="exponentials"), gradient_of(logits)
    parts, sums, loss = (
        Tensor(name, "tokens", (width,), "fp32") for name, width in (("loss_parts", 3), ("loss_sums", 3), ("loss", 1))
    )
    first = Operator(
        "loss_exponentials",
        "rowwise",
        (logits,),
        (exponentials, parts),
        flops=logits.elements * 4,
        passes=2,
        function="exponentials",
        attributes=words,
    )
    reduced = replace(collective("loss_all_reduce", "all_reduce", parts, sums), function="log_sum_exp")
    last = Operator(
        "loss_gradient",
        "elementwise",
        (exponentials, parts, sums) if degree > 1 else (exponentials, parts),
        (gradient, loss),
        flops=logits.elements * 3,
        function="loss_gradient",
        attributes=words,
    )
    return (first, reduced, last) if degree > 1 else (first, last)


def _keep(operators: Sequence[Operator], readers: Sequence[Operator]) -> tuple[Operator, ...]:
    """``operators`` with what ``readers`` in another block read of them kept in memory."""
    read = {tensor.name for op in readers for tensor in op.inputs}

    def of(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(replace(tensor, kept=tensor.name in read) for tensor in tensors)

    return tuple(replace(op, outputs=of(op.outputs)) for op in operators)


def _tied(operators: Sequence[Operator], table: Tensor, head: Tensor) -> tuple[Operator, ...]:
    """The backward of an embedding whose ``table`` is the head too: the ``head``'s gradient is added to its own."""
    return tuple(
        replace(op, inputs=(*op.inputs, head), flops=op.flops + head.elements) if table in op.outputs else op
        for op in operators
    )


def _optimizer(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """Adam for the weights that each of ``operators`` owns.

    Of each parameter it reads the gradient (2 bytes) and the state (12), and writes the state and the weight (2).
    """
    return tuple(_adam(op) for op in operators if op.weights)


def _adam(op: Operator) -> Operator:
    gradient, name = weight_gradient(op), f"{op.name}_adam"
    state = tuple(Tensor(f"{op.name}_{what}", "constant", gradient.shape, "fp32", within=name) for what in STATE)
    weights = replace(gradient, name=f"{op.name}_weights_updated", within=op.name)
    return Operator(
        name,
        "elementwise",
        (gradient, *state),
        (weights, *(replace(tensor, name=f"{tensor.name}_updated") for tensor in state)),
        flops=gradient.elements * ADAM_FLOPS,
        weights=round(sum(tensor.size.constant for tensor in state)),
        function="adam",
        attributes=Adam(),
    )
