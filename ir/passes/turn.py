"""Matrix products that are only read transposed are made transposed: permute(matmul(a, b)) = matmul(b', a').

Each element is the same chain of fused multiply-adds, of the same products (`ir/order.py`), so this is exact; of those
that a library computes nobody knows. The
gradient of a layer's weight is such a product: it then lies as the weight does, for the optimiser to read.
"""

from __future__ import annotations

from kiln.ir.graph import Graph, Operation, rebuild
from kiln.ir.ops import OPS


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def turn(graph: Graph) -> Graph:
    """`graph` with such products turned; `graph` itself when there are none."""
    uses = graph.uses()
    kept = set(graph.outputs)

    def turns(op: Operation) -> bool:
        if op.op.name != "matmul" or op.result in kept or not uses[op.result] or "library" in op.attrs:
            return False
        dims = _swap(op.result.type.rank)
        return all(use.op.name == "permute" and use.attrs["dims"] == dims for use, _ in uses[op.result])

    products = {op for op in graph.operations if turns(op)}
    if not products:
        return graph
    builder, mapped = rebuild(graph)
    for op in graph.operations:
        operands = [mapped[v] for v in op.operands]
        if op in products:
            a, b = (builder.add(OPS["permute"], [x], {"dims": _swap(x.type.rank)}, op.loc)[0] for x in operands)
            mapped[op.result] = builder.add(op.op, [b, a], op.attrs, op.loc)[0]
        elif any(v.producer in products for v in op.operands):  # the permute that the product has become
            mapped[op.result] = operands[0]
        else:
            mapped.update(zip(op.results, builder.clone(op, operands), strict=True))
    return builder.build([mapped[v] for v in graph.outputs], graph.aliases)
