"""A graph in torch with learned scales: what it answers, and what it gives back to a table."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgecls.calibration.collect import collect_ranges
from edgecls.calibration.placement import place_qdq
from edgecls.calibration.placement.learned import place_learned
from edgecls.compress.quantized_module import QuantizedModule, with_constants
from edgecls.core.errors import UnsupportedOperatorError, UsageError
from edgecls.core.ranges import RangeTable
from edgecls.core.values import QuantScheme, relative_difference
from edgecls.export.passes import for_one_image, fuse
from edgecls.export.simplify import simplify
from edgecls.export.torch_onnx import TorchToOnnx
from edgecls.targets import TARGETS
from edgecls.workflows.graph import run_onnx

from .conftest import SIZE, Padded, Plain, Residual, images, seeded

SCHEMES = {name: TARGETS[name].scheme for name in ("raspberry-pi", "jetson", "desktop-cpu")}
NETS = {
    "plain": lambda: seeded(Plain),
    "residual": lambda: seeded(Residual),
    "padded": lambda: seeded(Padded, inner=True),
}


def graph_of(net: torch.nn.Module) -> onnx.ModelProto:
    return fuse(simplify(TorchToOnnx(input_size=SIZE)(net)))


def table_of(graph: onnx.ModelProto) -> RangeTable:
    tensors = images(16).numpy()
    items = [(f"{index:064x}", tensors[index : index + 1]) for index in range(16)]
    return collect_ranges(graph, items, method="minmax", seed=0)


def module_of(graph: onnx.ModelProto, table: RangeTable, scheme: QuantScheme) -> QuantizedModule:
    return QuantizedModule(place_learned(for_one_image(graph), table, scheme))


def trained(module: QuantizedModule, *, steps: int = 8) -> QuantizedModule:
    """Move everything that learns, the scales far enough to be seen."""
    labels = torch.arange(16) % 3
    optimizer = torch.optim.SGD(
        [{"params": [*module.weights], "lr": 0.02}, {"params": [module.logarithms], "lr": 0.5}]
    )
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(images(16)), labels).backward()
        optimizer.step()
    return module.eval()


def pair_scales(model: onnx.ModelProto) -> set[float]:
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        float(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("net", NETS)
def test_it_answers_as_the_simulation_does(net: str, scheme: QuantScheme) -> None:
    """Before and after training, with the graph that placement makes of its ranges."""
    graph = graph_of(NETS[net]())
    table = table_of(graph)
    module = module_of(graph, table, scheme).eval()
    began = module.scales().detach()
    for learn in (False, True):
        if learn:
            trained(module)
        learned = with_constants(graph, module.constants())
        ranges = msgspec.structs.replace(table, ranges={**table.ranges, **module.ranges()})
        placed = place_qdq(learned, ranges, scheme).model

        with torch.inference_mode():
            found = module(images()).numpy()
        module.quantizes = False
        with torch.inference_mode():
            plain = module(images()).numpy()
        module.quantizes = True

        assert pair_scales(placed) == set(module.scales().tolist()) | fixed(module)
        assert relative_difference(run_onnx(learned, images().numpy()), plain) < 1e-5
        # Codes differ where a sum in another order lies on the other side of a tie.
        assert relative_difference(run_onnx(placed, images().numpy()), found) < 0.02
    moved = (module.scales().detach() / began).log().abs()
    assert float(moved.max()) > 0.05


def fixed(module: QuantizedModule) -> set[float]:
    """Scales that a runtime dictates, as of a sigmoid."""
    return {point.scale for point in module._points.values() if point.index is None}


def test_weights_are_the_codes_of_the_placed_graph() -> None:
    """Bit for bit, also of a channel that is dead, whose scale its bias decides."""
    graph = graph_of(seeded(Plain))
    array = next(t for t in graph.graph.initializer if len(t.dims) == 4)
    weights = numpy_helper.to_array(array).copy()
    weights[2] = 0
    graph = with_constants(graph, {array.name: weights})
    table, scheme = table_of(graph), SCHEMES["raspberry-pi"]
    module = trained(module_of(graph, table, scheme), steps=2)
    ranges = msgspec.structs.replace(table, ranges={**table.ranges, **module.ranges()})
    placed = place_qdq(with_constants(graph, module.constants()), ranges, scheme).model
    constants = {t.name: numpy_helper.to_array(t) for t in placed.graph.initializer}
    expected = {}
    for node in placed.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            codes, scales = constants[node.input[0]], constants[node.input[1]]
            along = [1] * codes.ndim
            if scales.ndim:
                along[next(a.i for a in node.attribute if a.name == "axis")] = -1
            name = node.input[0].removesuffix("_int8")
            expected[name] = codes.astype(np.float32) * scales.reshape(along)

    values = dict(zip(module.names, module.weights, strict=True))
    found = module._quantized_weights(values, module.scales())

    assert len(found) == 4
    for layer, point in module._weighted.items():
        quantized = found[f"{layer}: weights as codes"].detach().numpy()
        np.testing.assert_array_equal(quantized, expected[point.weights])


def test_only_what_decides_learns() -> None:
    """Each pair's scale is a parameter once; a tensor that only moves has its source's."""
    graph = graph_of(seeded(Plain))
    module = module_of(graph, table_of(graph), SCHEMES["raspberry-pi"])
    ranges = module.ranges()

    assert len(set(module.origins)) == len(module.origins) < len(ranges)
    assert len(module.names) == 8  # four layers with weights and biases
    assert [value.ndim for value in module.parameters() if value is module.logarithms] == [1]


def test_an_unknown_operator_is_named() -> None:
    graph = graph_of(seeded(Plain))
    node = next(node for node in graph.graph.node if node.op_type == "Relu")
    node.op_type = "Celu"
    table = table_of(graph)

    with pytest.raises(UnsupportedOperatorError, match=r"Celu \(node .*cannot train"):
        module_of(graph, table, SCHEMES["raspberry-pi"])


def test_only_eight_bits_are_learned() -> None:
    graph = graph_of(seeded(Plain))
    wide = TARGETS["raspberry-pi"].scheme_for("int16x8")

    with pytest.raises(UsageError, match="8-bit"):
        place_learned(for_one_image(graph), table_of(graph), wide)


def test_what_diverged_is_not_a_number() -> None:
    """So that the training's own check of the loss speaks, and says what to do."""
    graph = graph_of(seeded(Plain))
    module = module_of(graph, table_of(graph), SCHEMES["jetson"])
    with torch.no_grad():
        module.weights[0].fill_(float("inf"))

    assert bool(module(images()).isnan().any())


def test_a_step_survives_a_copy(tmp_path: Path) -> None:
    """An average of the weights and a checkpoint are made of it."""
    import copy

    graph = graph_of(seeded(Residual))
    module = module_of(graph, table_of(graph), SCHEMES["raspberry-pi"]).eval()
    torch.save(module.state_dict(), tmp_path / "state")
    other = copy.deepcopy(module)
    trained(module, steps=1)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True), strict=True)

    with torch.inference_mode():
        assert not torch.equal(module(images()), other(images()))
        module.load_state_dict(other.state_dict())
        assert torch.equal(module(images()), other(images()))
