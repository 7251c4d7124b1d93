from __future__ import annotations

import functools
import itertools
import json
import struct
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecls.calibration.collect import observe
from edgecls.calibration.difference import compare_ranges
from edgecls.calibration.scheme import activation_params
from edgecls.calibration.table import CalibrationTable, Parts, make_table, merge_tables
from edgecls.calibration.table_file import read_table, write_table
from edgecls.calibration.trt_cache import format_cache, parse_cache
from edgecls.core.errors import CalibrationError
from edgecls.core.fingerprint import Fingerprint
from edgecls.core.preprocess import PRESETS
from edgecls.core.ranges import METHODS, CalibrationMethod, Range, RangeTable
from edgecls.core.values import QuantScheme


def small_model() -> onnx.ModelProto:
    """Convolution, ReLU, mean, and values without a sign: 1x3x6x6 images to 4 logits."""
    rng = np.random.default_rng(3)
    text = """
        <ir_version: 9, opset_import: ["" : 20]>
        small (float[batch, 3, 6, 6] input) => (float[batch, 4] logits) {
            c = Conv <pads = [1, 1, 1, 1]> (input, w)
            r = Relu (c)
            m = ReduceMean <keepdims = 0> (r, axes)
            logits = Gemm (m, v)
        }
    """
    model = onnx.parser.parse_model(text)
    for name, array in (
        ("w", rng.normal(size=(8, 3, 3, 3)).astype(np.float32)),
        ("axes", np.array([2, 3], np.int64)),
        ("v", rng.normal(size=(8, 4)).astype(np.float32)),
    ):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(model)


MODEL = small_model()
CHOSEN = "c" * 64


def image(index: int) -> tuple[str, np.ndarray]:
    rng = np.random.default_rng(index)
    return f"{index:064x}", rng.normal(0, 1 + index % 7, (1, 3, 6, 6)).astype(np.float32)


def fingerprint(indices: list[int]) -> Fingerprint:
    counts = np.bincount([i % 4 for i in indices], minlength=4)
    return Fingerprint(
        images=len(indices),
        pixel_histogram=((len(indices), 0),),
        confidence_histogram=(0, len(indices)),
        class_counts=tuple(counts.tolist()),
    )


def table_of(
    indices: list[int], *, method: CalibrationMethod = "minmax", parts: Parts | None = None,
    lanes: int | None = None,
) -> CalibrationTable:  # fmt: skip
    return make_table(
        observe(MODEL, map(image, indices), lanes=lanes),
        preprocess=PRESETS["cifar10"],
        size=(6, 6),
        method=method,
        percentile=99.0 if method == "percentile" else None,
        seed=1,
        parts=parts,
        tools={"numpy": ("2",)},
        fingerprint=fingerprint(indices),
    )


def test_only_what_a_scheme_quantizes_is_observed() -> None:
    assert list(table_of([0]).tensors) == ["input", "r", "m", "logits"]


def test_ranges_are_those_of_all_values(tmp_path: Path) -> None:
    observed = onnx.ModelProto.FromString(MODEL.SerializeToString())
    observed.graph.output.extend(v for v in MODEL.graph.value_info if v.name == "r")
    import onnxruntime as ort

    session = ort.InferenceSession(observed.SerializeToString())
    values = [session.run(["r"], {"input": image(i)[1]})[0] for i in range(40)]
    record = table_of(list(range(40))).tensors["r"]

    assert record.extremes.hi == pytest.approx(max(v.max() for v in values), rel=1e-6)
    assert sum(record.counts) == sum(v.size for v in values)


@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_keep_what_was_chosen_for_eight(method: CalibrationMethod) -> None:
    table = table_of(list(range(5)), method=method)
    eight, sixteen = table.ranges(), table.ranges(16)
    extremes = {name: record.extremes for name, record in table.tensors.items()}

    assert eight.method == method
    if method in ("entropy", "mse"):
        assert sixteen.method == "minmax"
        assert sixteen.ranges == extremes != eight.ranges
    else:
        assert sixteen == eight


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_and_order_change_nothing(lanes: int) -> None:
    expected = table_of(list(range(40)), lanes=3)

    assert table_of(list(reversed(range(40))), lanes=lanes) == expected


@pytest.mark.parametrize("method", METHODS)
def test_a_file_holds_it_all(tmp_path: Path, method: CalibrationMethod) -> None:
    table = table_of(list(range(5)), method=method)
    write_table(tmp_path / "t.json", table)

    assert read_table(tmp_path / "t.json") == table
    assert read_table(tmp_path / "t.json").ranges().sha256() == table.ranges().sha256()


@pytest.mark.parametrize("method", METHODS)
def test_parts_in_any_order_and_grouping_are_the_single_run(
    tmp_path: Path, method: CalibrationMethod
) -> None:
    indices = list(range(30))
    write_table(tmp_path / "whole.json", table_of(indices, method=method))
    parts = [
        table_of(indices[i::3], method=method, parts=Parts(of=3, held=(i + 1,), chosen=CHOSEN))
        for i in range(3)
    ]

    for number, order in enumerate(itertools.permutations(parts)):
        left = functools.reduce(merge_tables, order)
        right = merge_tables(order[0], merge_tables(order[1], order[2]))
        for side, merged in (("l", left), ("r", right)):
            file = tmp_path / f"{number}{side}.json"
            write_table(file, merged)
            assert file.read_bytes() == (tmp_path / "whole.json").read_bytes()


@settings(max_examples=15)
@given(sets=st.lists(st.integers(0, 60), min_size=3, max_size=12, unique=True))
def test_whole_tables_merge_too(sets: list[int]) -> None:
    middle = len(sets) // 2

    merged = merge_tables(table_of(sets[:middle]), table_of(sets[middle:]))

    assert merged == table_of(sets)


def test_what_does_not_belong_together_is_refused() -> None:
    one = table_of([0, 1])
    part = table_of([2], parts=Parts(of=2, held=(1,), chosen=CHOSEN))
    refused = {
        "method": msgspec.structs.replace(table_of([2]), method="entropy"),
        "seed": msgspec.structs.replace(table_of([2]), seed=9),
        "model": msgspec.structs.replace(table_of([2]), model_sha256="f" * 64),
        "would count twice": table_of([1, 2]),
        "a part and a whole": part,
    }
    for reason, other in refused.items():
        with pytest.raises(CalibrationError, match=reason):
            merge_tables(one, other)
    with pytest.raises(CalibrationError, match="different parts"):
        merge_tables(part, part)


def test_a_part_gives_no_ranges() -> None:
    with pytest.raises(CalibrationError, match="only part 1 of 2"):
        table_of([2], parts=Parts(of=2, held=(1,), chosen=CHOSEN)).ranges()


def test_another_model_preprocessing_or_size_is_refused() -> None:
    table = table_of([0])
    right = {"model_sha256": table.model_sha256, "preprocess": table.preprocess, "size": (6, 6)}
    table.check(**right)  # type: ignore[arg-type]
    for wrong, reason in (
        ({"model_sha256": "0" * 64}, "this model"),
        ({"preprocess": PRESETS["imagenet"]}, "preprocessing"),
        ({"size": (6, 7)}, "image size"),
    ):
        with pytest.raises(CalibrationError, match=reason):
            table.check(**{**right, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b'"first":', b'"fist":'), "damaged"),
        ((b'"version": 1', b'"version": 2'), "version 1"),
        ((b'"edgecls calibration table"', b'"something"'), "not a calibration table"),
        ((b'"counts":[', b'"counts":[-1,'), "damaged"),
        ((b'"exponent":', b'"exponent":1e3,"x":'), "damaged"),
        ((b'"first":', b'"first":4095,"x":'), "damaged"),
        ((b"{", b"["), "not a calibration table"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, change: tuple[bytes, bytes], reason: str
) -> None:
    file = tmp_path / "t.json"
    write_table(file, table_of([0]))
    data = file.read_bytes()
    assert change[0] in data
    file.write_bytes(data.replace(*change, 1))

    with pytest.raises(CalibrationError, match=reason):
        read_table(file)


def test_a_histogram_that_runs_over_its_end_is_refused(tmp_path: Path) -> None:
    record = table_of([0]).tensors["r"]

    with pytest.raises(ValueError, match="last bin"):
        msgspec.structs.replace(record, first=4095)


def test_clipped_is_the_share_outside_the_range() -> None:
    table = table_of(list(range(20)), method="percentile")
    whole = table_of(list(range(20)))

    assert all(record.clipped() == 0.0 for record in whole.tensors.values())
    shares = [record.clipped() for record in table.tensors.values()]
    assert 0.002 < max(shares) <= 0.01


def ranges(**values: tuple[float, float]) -> RangeTable:
    return RangeTable(
        ranges={name: Range(*value) for name, value in values.items()},
        model_sha256="", data_sha256="", method="minmax", images=1, seed=0,
    )  # fmt: skip


names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
ends = st.floats(0, 1e6, width=32)


@given(tensors=st.dictionaries(names, st.tuples(ends, ends), max_size=5))
def test_a_cache_keeps_the_scales_of_the_symmetric_scheme(
    tensors: dict[str, tuple[float, float]],
) -> None:
    table = ranges()
    table.ranges.update({name: Range(-lo, hi) for name, (lo, hi) in tensors.items()})
    scheme = QuantScheme(activations="symmetric", placement="fused")

    found = parse_cache(format_cache(table))

    assert found == {n: activation_params(r, scheme).scale for n, r in table.ranges.items()}


def test_a_cache_is_tensorrts_text() -> None:
    text = format_cache(ranges(input=(-1.0, 127.0), tiny=(0.0, 0.0)))

    assert text == "TRT-8503-EntropyCalibration2\ninput: 3f800000\ntiny: 33800000\n"
    (one,) = struct.unpack(">f", bytes.fromhex("3f800000"))
    assert one == 1.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "first line"), ("hello", "first line"), ("TRT-1-E\nx 3f800000", "line 2"),
     ("TRT-1-E\nx: 3f8000001", "line 2"), ("TRT-1-E\nx: 7fc00000", "scale"),
     ("TRT-1-E\nx: bf800000", "scale")],
)  # fmt: skip
def test_what_is_no_cache_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CalibrationError, match=reason):
        parse_cache(text)


def test_a_cache_may_leave_leading_zeros_out() -> None:
    assert parse_cache("TRT-1-E\n\na: b: 0\n") == {"a: b": 0.0}


def test_differences_are_shares_of_the_wider_range_the_largest_first() -> None:
    one = {"a": Range(0.0, 1.0), "b": Range(-1.0, 1.0), "c": Range(2.0, 4.0), "x": Range(0, 1)}
    other = {"a": Range(0.0, 2.0), "b": Range(-1.0, 1.0), "c": Range(3.0, 4.0)}

    found, single = compare_ranges(one, other)

    assert [(d.tensor, d.relative) for d in found] == [("a", 0.5), ("c", 0.25), ("b", 0.0)]
    assert single == ("x",)
    with pytest.raises(CalibrationError, match="no tensor in common"):
        compare_ranges(one, {"y": Range(0, 1)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t["tensors"]["r"].update(range=[0.0, 0.5]), "is not what minmax chooses"),
        (lambda t: t["tensors"]["r"].update(range=[0.0, 1e308]), "lies outside of the values"),
        (lambda t: t["tensors"]["r"].update(extremes=[0.0, 1e308]), "none of float32"),
        (lambda t: t["tensors"]["r"].update(counts=[0, 0]), "counts no value"),
        (lambda t: t["tensors"]["r"].update(counts=[2**63]), "Expected `int`"),
        (lambda t: t.update(tensors={}), "length >= 1"),
        (lambda t: t["fingerprint"].update(images=-5), "fingerprint is of -5 images"),
        (lambda t: t.update(method="percentile"), "percentile None"),
        (lambda t: t.update(parts={"of": 2, "held": [7, 7], "chosen": CHOSEN}), "each once"),
    ],
)  # fmt: skip
def test_an_edited_table_is_refused(tmp_path: Path, edit: object, message: str) -> None:
    path = tmp_path / "table.json"
    write_table(path, table_of([1, 2, 3]))
    fields = json.loads(path.read_text())
    edit(fields)  # type: ignore[operator]
    path.write_text(json.dumps(fields))

    with pytest.raises(CalibrationError, match=message):
        read_table(path)


def test_parts_of_other_sets_do_not_merge() -> None:
    one = table_of([1], parts=Parts(of=2, held=(1,), chosen=CHOSEN))
    other = table_of([2], parts=Parts(of=2, held=(2,), chosen="d" * 64))

    with pytest.raises(CalibrationError, match="parts of one set of images"):
        merge_tables(one, other)


def test_learned_ranges_stand_instead_of_the_calibrated(tmp_path: Path) -> None:
    """For 8 bits only; the histograms stay what was seen, and old tables read as before."""
    plain = table_of([1, 2, 3])
    learned = msgspec.structs.replace(plain, learned={"r": Range(0.0, 2.5)})
    write_table(tmp_path / "plain.json", plain)
    write_table(tmp_path / "learned.json", learned)

    assert b"learned" not in (tmp_path / "plain.json").read_bytes()
    assert read_table(tmp_path / "plain.json") == plain
    read = read_table(tmp_path / "learned.json")
    assert read == learned
    assert read.ranges().ranges == {**plain.ranges().ranges, "r": Range(0.0, 2.5)}
    assert read.ranges(16).ranges == plain.ranges(16).ranges
    with pytest.raises(CalibrationError, match="learned ranges cannot be merged"):
        merge_tables(learned, table_of([4, 5]))


def test_a_learned_range_of_another_tensor_is_refused(tmp_path: Path) -> None:
    strange = msgspec.structs.replace(table_of([1]), learned={"nothing": Range(0.0, 1.0)})
    write_table(tmp_path / "table.json", strange)

    with pytest.raises(CalibrationError, match="'nothing', which is no tensor"):
        read_table(tmp_path / "table.json")
