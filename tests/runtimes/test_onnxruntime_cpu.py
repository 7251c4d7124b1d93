"""ONNX Runtime's integer kernels: right on every CPU, also on one without VNNI."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from edgecls.core.preprocess import Preprocess
from edgecls.runtimes.backend import Options
from edgecls.runtimes.backends import open_backend
from edgecls.runtimes.onnxruntime import _PRODUCT

onnx = pytest.importorskip("onnx")  # a device has none

PACKAGES = sysconfig.get_path("purelib")
QEMU = shutil.which("qemu-x86_64-static")
INSIDE = """
import json, site, sys
site.addsitedir(sys.argv[1])
import numpy as np
from edgecls.core.preprocess import Preprocess
from edgecls.runtimes.backend import Options
from edgecls.runtimes.backends import open_backend
from edgecls.runtimes.onnxruntime import products_saturate
preprocess = Preprocess(resize=0, crop=0, scale=85.0, mean=(0, 0, 0), std=(1, 1, 1))
model = open(sys.argv[2], "rb").read()
images = np.full((1, 4, 4, 3), 255, np.uint8)
backends = [open_backend(name, model, preprocess, Options(precision="int8"))
            for name in ("onnxruntime", "onnxruntime-cpu")]
written, fused = (backend.logits(images).tolist() for backend in backends)
said = [backends[1].description.get("int8")]
for name in ("onnxruntime", "onnxruntime-cpu"):
    dynamic = open_backend(name, open(sys.argv[3], "rb").read(), preprocess,
                           Options(precision="int8-dynamic"))
    said += [dynamic.logits(images).tolist(), dynamic.description.get("int8")]
print(json.dumps([products_saturate(), written, fused, said]))
"""

# Large codes on both sides: without VNNI, two such products do not fit 16 bits.
NET = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[1,3,4,4] input) => (float[1,16] logits)
{
    codes = QuantizeLinear (input, scale, zero)
    values = DequantizeLinear (codes, scale, zero)
    w = DequantizeLinear <axis=0> (weights, weight_scales, weight_zeros)
    sums = Conv <kernel_shape=[4,4]> (values, w)
    sum_codes = QuantizeLinear (sums, sum_scale, zero)
    sum_values = DequantizeLinear (sum_codes, sum_scale, zero)
    logits = Flatten (sum_values)
}
"""


# The same where the range of the input is found as it runs.
PRODUCT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[1,3,4,4] input) => (float[1,16] logits)
{
    row = Flatten (input)
    codes, scale, zero = DynamicQuantizeLinear (row)
    sums = MatMulInteger (codes, weights, zero)
    numbers = Cast <to=1> (sums)
    factors = Mul (scale, weight_scales)
    logits = Mul (numbers, factors)
}
"""


@pytest.fixture
def product(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A product as it runs, and its weights (48, 16)."""
    model = onnx.parser.parse_model(PRODUCT)
    codes = np.random.default_rng(0).integers(100, 128, (48, 16)).astype(np.int8)
    scales = np.full(16, 1 / 127, np.float32)
    for name, array in (("weights", codes), ("weight_scales", scales)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    file = tmp_path / "product.onnx"
    onnx.save(model, file)
    return file, codes * scales


@pytest.fixture
def large(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model(NET)
    arrays = {
        "scale": np.float32(3 / 255), "zero": np.uint8(0), "sum_scale": np.float32(0.6),
        "weights": np.random.default_rng(0).integers(100, 128, (16, 3, 4, 4)).astype(np.int8),
        "weight_scales": np.full(16, 1 / 127, np.float32), "weight_zeros": np.zeros(16, np.int8),
    }  # fmt: skip
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    onnx.checker.check_model(model, full_check=True)
    file = tmp_path / "large.onnx"
    onnx.save(model, file)
    return file


def test_the_product_is_what_it_says() -> None:
    weights = onnx.numpy_helper.from_array(np.full((4, 1), 127, np.int8), "b")
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "g",
        [make.make_tensor_value_info("a", onnx.TensorProto.UINT8, [1, 4])],
        [make.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, 1])],
        [weights],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 10)])
    model.ir_version = 5

    assert base64.b64decode(_PRODUCT) == model.SerializeToString(deterministic=True)


def test_fused_kernels_answer_as_the_graph_is_written(large: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    preprocess = Preprocess(resize=0, crop=0, scale=85.0, mean=(0, 0, 0), std=(1, 1, 1))
    options = Options(precision="int8")
    written, fused = (
        open_backend(name, large.read_bytes(), preprocess, options)
        for name in ("onnxruntime", "onnxruntime-cpu")
    )

    assert np.abs(written.logits(images) - fused.logits(images)).max() <= 0.6 * 1.001
    assert fused.description["optimised"] == "yes"


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64-static is not installed")
def test_a_cpu_without_vnni_does_not_saturate(
    large: Path, product: tuple[Path, np.ndarray]
) -> None:
    """QEMU's Haswell has AVX2 only; its saturating multiplication is the real one's."""
    assert QEMU is not None
    done = subprocess.run(
        [QEMU, os.path.realpath(sys.executable), "-c", INSIDE, PACKAGES, large, product[0]],
        env={**os.environ, "QEMU_CPU": "Haswell", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    saturates, written, fused, said = json.loads(done.stdout)
    assert saturates
    assert said[0] is not None
    assert np.abs(np.subtract(written, fused)).max() <= 0.6 * 1.001
    # All pixels are 255, which is 3 in float and the largest code: exact but for float32.
    expected = 3 * product[1].sum(axis=0)
    for logits, why in (said[1:3], said[3:5]):
        assert why is not None
        assert np.allclose(logits, [expected], rtol=1e-5)
    assert np.max(written) > 100
