"""An ONNX graph as onnx gives it: what stands in it, copied, cut to some outputs, and tidied."""

from collections.abc import Iterator, Sequence

from onnx import ModelProto, NodeProto, ValueInfoProto


def copy_of(model: ModelProto) -> ModelProto:
    """Return a copy, weights included."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy that answers these tensors, which may lie inside it; their types are left open."""
    opened = copy_of(model)
    del opened.graph.output[:]
    opened.graph.output.extend(ValueInfoProto(name=name) for name in names)
    return opened


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Return the metadata that an exporter wrote into the file."""
    return {entry.key: entry.value for entry in model.metadata_props}


def makers(model: ModelProto) -> dict[str, NodeProto]:
    """Return the node that makes each tensor, by the tensor's name; an empty name is an output left out."""
    return {name: node for node in model.graph.node for name in node.output if name}


def drop_unused(model: ModelProto) -> None:
    """Take out nodes and constants that no output needs, whatever order the nodes are in."""
    graph = model.graph
    made_by = makers(model)
    waiting, needed = [value.name for value in graph.output], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(_reads(made_by[name]) if name in made_by else ())
    kept = [node for node in graph.node if needed.intersection(node.output) - {""}]
    del graph.node[:]
    graph.node.extend(kept)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)


def _reads(node: NodeProto) -> Iterator[str]:
    """Names that an operator reads, those of its branches and loops included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)
