"""The backward of operators in order: the walk back, sums of gradients, all-reduces of tensor parallelism."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from node.dataflow.backward import backward
from node.dataflow.gradient import gradient_of
from node.dataflow.graph import Operator, Tensor
from node.dataflow.operators import collective


def reverse(operators: Sequence[Operator], gradient: Tensor, degree: int) -> tuple[Operator, ...]:
    """The backward of ``operators``, given the ``gradient`` of what the last one makes.

    A tensor that several operators read has the sum of what each adds to its gradient, worked out once all have.
    """
    whole = _whole(operators) if degree > 1 else set()
    terms: dict[Tensor, list[tuple[Tensor, bool]]] = defaultdict(list)
    terms[operators[-1].outputs[0]].append((gradient, False))
    found: list[Operator] = []
    for op in reversed(operators):
        summed = [_summed(tensor, terms.pop(tensor)) for tensor in op.outputs]
        found += [made for sums, _ in summed for made in sums]
        back = backward(op, tuple(of_output for _, of_output in summed))
        found += back.operators
        for tensor, term in zip(op.inputs, back.gradients, strict=True):
            terms[tensor].append((term, op.kind == "gemm" and tensor.name in whole))
    for tensor, of_tensor in terms.items():
        found += _summed(tensor, of_tensor)[0]
    return tuple(found)


def _whole(operators: Sequence[Operator]) -> set[str]:
    """Names of the tensors that every socket holds alike: what enters, all-reduced sums, and what is made of those.

    A GEMM splits: of what every socket holds it makes its columns, of its columns a part of a sum.
    """
    made = {tensor.name for op in operators for tensor in op.outputs}
    whole = {tensor.name for op in operators for tensor in op.inputs} - made
    for op in operators:
        alike = op.kind != "gemm" and op.inputs and all(tensor.name in whole for tensor in op.inputs)
        if alike or op.collective == "all_reduce":
            whole |= {tensor.name for tensor in op.outputs}
    return whole


def _summed(tensor: Tensor, terms: Sequence[tuple[Tensor, bool]]) -> tuple[list[Operator], Tensor]:
    """The operators that sum the ``terms`` of a tensor's gradient, and the sum.

    A term is a tensor and whether each socket has a part of it, to be summed over sockets.
    """
    parts, rest = [term for term, part in terms if part], [term for term, part in terms if not part]
    found: list[Operator] = []
    if parts:
        partial = _added(parts, gradient_of(tensor, "gradient_partial"), found)
        reduced = gradient_of(tensor, "gradient_sum")
        found.append(collective(f"{tensor.name}_gradient_all_reduce", "all_reduce", partial, reduced))
        rest.append(reduced)
    return found, _added(rest, gradient_of(tensor), found)


def _added(terms: Sequence[Tensor], result: Tensor, found: list[Operator]) -> Tensor:
    """``result``, the sum of ``terms``, made by an operator appended to ``found``; a single term is its own sum."""
    if len(terms) == 1:
        return terms[0]
    flops = result.elements * (len(terms) - 1)
    found.append(Operator(f"{result.name}_add", "elementwise", tuple(terms), (result,), flops=flops, function="add"))
    return result
