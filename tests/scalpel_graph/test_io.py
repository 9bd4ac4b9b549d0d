"""Reading and writing of model files: what is refused, what is kept, and what a killed save leaves."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from scalpel_graph import external_data, io
from scalpel_graph.errors import InputError

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def make_model(*, rows: int = 40, columns: int = 50, seed: int = 0, **fields) -> ModelProto:
    weights = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", columns])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(columns, np.float32), "b")],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my", 1)],
        ir_version=8,
        **fields,
    )
    model.metadata_props.add(key="author", value="ünï")
    return model


def write_external(path: Path, **changes: str | None) -> bytes:
    """A model whose one weight lies in ``w.bin``, with some of the entries that say where changed."""
    payload = np.arange(12, dtype=np.float32).tobytes()
    (path.parent / "w.bin").write_bytes(b"\0" * 64 + payload)
    weight = TensorProto(name="w", data_type=FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": "w.bin", "offset": "64", "length": "48"} | changes).items():
        if value is not None:
            weight.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", FLOAT, [1, 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return payload


def refusal(path: Path, *words: str) -> str:
    """Loads a file that must be refused, in one line that names it and holds ``words``."""
    with pytest.raises(InputError) as caught:
        io.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message
    return message


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- reading ------------------------------------------------------------------------------------------------


def test_load_gives_the_model_and_its_size(tmp_path):
    model = make_model()
    path = tmp_path / "in.onnx"
    onnx.save(model, path)
    loaded = io.load(str(path))
    assert loaded.proto == model
    assert loaded.path == path
    assert not loaded.uses_external_data
    assert loaded.size_bytes == path.stat().st_size


def test_load_refuses_what_is_no_file(tmp_path):
    refusal(tmp_path / "none.onnx", "no such file")
    refusal(tmp_path, "folder")
    os.mkfifo(tmp_path / "pipe.onnx")
    refusal(tmp_path / "pipe.onnx", "not a regular file")
    refusal(Path("/dev/zero"), "not a regular file")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    refusal(tmp_path / "loop.onnx", "cannot be read")


def test_load_refuses_an_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "in.onnx"
    onnx.save(make_model(), path)

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    refusal(path, "Permission denied")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b'{"irVersion": "8", "graph": {}}', "not an ONNX model"),
        (b"ir_version: 8\ngraph {}\n", "not an ONNX model"),
        (b"<html><body>404</body></html>", "not an ONNX model"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (b"\x1f\x8b\x08\x00" + bytes(100), "gunzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "git lfs pull"),
        (b"\x10\x00\x00\x00ORTM" + bytes(100), "ONNX Runtime's own format"),
        (bytes(1000), "not an ONNX model"),
        (b"\x08\x08", "no graph"),
        (b"\x08\x08\x3a\x00", "operator set"),
        (b"\x3a\x00\x42\x02\x10\x11", "IR version"),
    ],
)
def test_load_refuses_what_is_no_model(tmp_path, content, word):
    path = tmp_path / "in.onnx"
    path.write_bytes(content)
    refusal(path, word)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=300))
def test_load_refuses_random_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("writer", ["onnx", "ours"])
def test_load_refuses_a_model_truncated_anywhere(tmp_path, writer):
    model = make_model(rows=3, columns=4)
    if writer == "onnx":
        del model.opset_import[1:], model.metadata_props[:]  # what ends between two entries looks complete
        whole = model.SerializeToString()
    else:
        io.save(model, tmp_path / "whole.onnx")
        whole = (tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    messages = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        messages.add(refusal(path))
    assert any("truncated" in message for message in messages)
    path.write_bytes(whole)
    assert io.load(path).proto == model


def test_load_says_when_the_middle_of_a_model_is_damaged(tmp_path):
    whole = bytearray(make_model().SerializeToString())
    start = whole.index(b"MatMul")
    whole[start : start + 20] = b"\xff" * 20
    path = tmp_path / "in.onnx"
    path.write_bytes(whole)
    refusal(path, "damaged")


def test_load_refuses_a_file_above_the_limit_of_protobuf(tmp_path):
    path = tmp_path / "in.onnx"
    with path.open("wb") as file:
        file.truncate(io.PROTOBUF_LIMIT + 1)  # sparse: takes no room
    refusal(path, "2 GiB", "external data")


def test_from_proto(tmp_path):
    model = make_model()
    loaded = io.from_proto(model)
    assert loaded.proto is model
    assert loaded.path is None
    assert loaded.size_bytes == len(model.SerializeToString())
    with pytest.raises(InputError, match="no graph"):
        io.from_proto(ModelProto())
    write_external(tmp_path / "in.onnx")
    with pytest.raises(InputError, match="'w' refers to external data"):
        io.from_proto(onnx.load(tmp_path / "in.onnx", load_external_data=False))


# -- external data in ---------------------------------------------------------------------------------------


def test_external_data_is_read(tmp_path):
    path = tmp_path / "in.onnx"
    payload = write_external(path)
    loaded = io.load(path)
    assert loaded.uses_external_data
    assert loaded.size_bytes == path.stat().st_size + 64 + 48
    weight = loaded.proto.graph.initializer[0]
    assert weight.raw_data == payload
    assert not weight.external_data and not external_data.is_external(weight)
    write_external(path, length=None)
    assert io.load(path).proto.graph.initializer[0].raw_data == payload


def tensors_everywhere() -> ModelProto:
    """A model with a tensor in each kind of place that can hold one, 0.0, 1.0, 2.0, ... in turn."""
    count = iter(range(100))

    def tensor(name: str, shape: tuple[int, ...] = (300,), dtype=np.float32) -> TensorProto:
        return numpy_helper.from_array(np.full(shape, next(count), dtype), name)

    def constant(output: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [output], value=tensor("constant"))

    output = helper.make_tensor_value_info
    then = helper.make_graph(
        [constant("t1"), helper.make_node("Add", ["t1", "t2"], ["t"])],
        "then",
        [],
        [output("t", FLOAT, [300])],
        [tensor("t2")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["e"])], "else", [], [output("e", FLOAT, [300])]
    )
    function = helper.make_function(
        "my", "Twice", ["a"], ["c"], [constant("b"), helper.make_node("Add", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    strange = helper.make_node("Strange", ["c"], ["s"], domain="my")
    strange.attribute.add(name="many", type=AttributeProto.TENSORS).tensors.extend([tensor("t"), tensor("t")])
    sparse = helper.make_sparse_tensor(tensor("sparse"), tensor("", dtype=np.int64), [1000])
    strange.attribute.add(name="sparse", type=AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(sparse)
    graph = helper.make_graph(
        [
            helper.make_node("If", ["x"], ["y"], then_branch=then, else_branch=other),
            constant("c"),
            helper.make_node("Twice", ["y"], ["z"], domain="my"),
            strange,
        ],
        "main",
        [output("x", BOOL, [])],
        [output("z", FLOAT, [300])],
        [tensor("w")],
    )
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my", 1)],
        ir_version=9,
        functions=[function],
    )
    model.training_info.add().initialization.initializer.append(tensor("training"))
    return model


def test_external_data_is_read_wherever_a_tensor_can_be(tmp_path):
    model = tensors_everywhere()
    light = ModelProto()
    light.CopyFrom(model)
    moved = list(external_data.tensors(light))
    assert len(moved) == 12
    with (tmp_path / "all.data").open("wb") as file:
        for tensor in moved:
            tensor.external_data.add(key="location", value="all.data")
            tensor.external_data.add(key="offset", value=str(file.tell()))
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    (tmp_path / "in.onnx").write_bytes(light.SerializeToString())
    assert io.load(tmp_path / "in.onnx").proto == model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"location": "gone.bin"}, ["missing", "gone.bin"]),
        ({"location": None}, ["does not say in which file"]),
        ({"location": ""}, ["does not say in which file"]),
        ({"location": "w\0.bin"}, ["does not say in which file"]),
        ({"location": "."}, ["not a regular file"]),
        ({"location": "/etc/passwd"}, ["absolute"]),
        ({"location": "//host/share"}, ["absolute"]),
        ({"location": "C:\\w.bin"}, ["absolute"]),
        ({"location": "\\\\host\\share\\w.bin"}, ["absolute"]),
        ({"location": "../w.bin"}, ["leaves the model's folder"]),
        ({"location": "sub/../../w.bin"}, ["leaves the model's folder"]),
        ({"location": "..\\w.bin"}, ["leaves the model's folder"]),
        ({"location": "out.bin"}, ["leads out of the model's folder"]),
        ({"location": "out/w.bin"}, ["leads out of the model's folder"]),
        ({"location": "pipe"}, ["not a regular file"]),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, ["missing"]),
        ({"offset": "65"}, ["65 to 113", "only 112"]),
        ({"offset": "1" + "0" * 18}, ["only 112"]),
        ({"offset": "1" + "0" * 30}, ["offset"]),
        ({"offset": "-1"}, ["offset", "'-1'"]),
        ({"offset": "٣"}, ["offset"]),
        ({"length": "47"}, ["48 bytes", "47"]),
        ({"length": "1000"}, ["48 bytes", "1000"]),
        ({"length": "many"}, ["length", "'many'"]),
        ({"length": None, "offset": "100"}, ["100 to 148"]),
    ],
)
def test_unusable_external_data_is_refused(tmp_path, changes, words):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "w.bin").write_bytes(bytes(200))
    (tmp_path / "w.bin").write_bytes(bytes(200))
    (folder / "out.bin").symlink_to(outside / "w.bin")
    (folder / "out").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    write_external(folder / "in.onnx", **changes)
    refusal(folder / "in.onnx", "'w'", *words)


def test_external_data_that_its_shape_contradicts_is_refused(tmp_path):
    path = tmp_path / "in.onnx"
    for dims, data_type in (([3, -4], FLOAT), ([12], TensorProto.STRING), ([12], 99)):
        write_external(path)
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].dims[:] = dims
        model.graph.initializer[0].data_type = data_type
        path.write_bytes(model.SerializeToString())
        refusal(path, "shape or type")
    write_external(path, length=None)
    model.graph.initializer[0].dims[:] = [2**40, 2**40]
    model.graph.initializer[0].data_type = FLOAT
    path.write_bytes(model.SerializeToString())
    refusal(path, str(2**82))


def test_nothing_is_read_if_any_external_path_is_bad(tmp_path, monkeypatch):
    path = tmp_path / "in.onnx"
    write_external(path)
    model = onnx.load(path, load_external_data=False)
    bad = model.graph.initializer.add()
    bad.CopyFrom(model.graph.initializer[0])
    bad.external_data[0].value = "../w.bin"
    path.write_bytes(model.SerializeToString())
    opened = []
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or real_open(self, *a, **k))
    refusal(path, "leaves")
    assert not opened


def test_links_inside_the_folder_and_caches_of_blobs_are_fine(tmp_path):
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    payload = write_external(folder / "in.onnx")
    (folder / "w.bin").rename(folder / "real.bin")
    (folder / "w.bin").symlink_to("real.bin")
    assert io.load(folder / "in.onnx").proto.graph.initializer[0].raw_data == payload
    # Both the model and its data are links into one other folder.
    (folder / "w.bin").unlink()
    (folder / "real.bin").rename(blobs / "1234")
    (folder / "in.onnx").rename(blobs / "5678")
    (folder / "w.bin").symlink_to("../blobs/1234")
    (folder / "in.onnx").symlink_to("../blobs/5678")
    assert io.load(folder / "in.onnx").proto.graph.initializer[0].raw_data == payload


# -- writing ------------------------------------------------------------------------------------------------


def data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.data"))


@pytest.mark.parametrize("external", [False, True])
def test_saving_and_loading_gives_the_same_model(tmp_path, external):
    for number, model in enumerate((make_model(doc_string="why"), tensors_everywhere())):
        before = model.SerializeToString(deterministic=True)
        path = tmp_path / f"{number}.onnx"
        written = io.save(model, path, external_data=external)
        assert model.SerializeToString(deterministic=True) == before
        loaded = io.load(path)
        assert loaded.proto == model
        assert loaded.uses_external_data == external
        assert loaded.size_bytes == written
        assert (
            list(tmp_path.glob(f"{number}.onnx.*.data")) == data_files(tmp_path)[number:]
            if external
            else True
        )


def test_one_file_is_encoded_as_protobuf_would(tmp_path):
    model = make_model(rows=300)
    io.save(model, tmp_path / "out.onnx")
    data = (tmp_path / "out.onnx").read_bytes()
    assert len(data) == len(model.SerializeToString()) == io.encoded_bytes(model)
    assert onnx.load_from_string(data) == model


def test_a_saved_pair_runs_in_onnxruntime_and_passes_the_checker(tmp_path):
    model = make_model(rows=200, columns=300)
    io.save(model, tmp_path / "out.onnx", external_data=True)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    x = np.ones((2, 200), np.float32)
    (y,) = onnxruntime.InferenceSession(tmp_path / "out.onnx").run(None, {"x": x})
    expected = x @ numpy_helper.to_array(model.graph.initializer[0]) + 1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_large_tensors_begin_at_a_page_and_small_ones_stay_in_the_model(tmp_path):
    model = make_model(rows=40, columns=500)
    extra = np.arange(300, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(extra, "extra"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((200, 200), np.float32), "large"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.int64), "shape"))
    io.save(model, tmp_path / "out.onnx", external_data=True)
    light = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    offsets = {
        t.name: int(next(e.value for e in t.external_data if e.key == "offset"))
        for t in light.graph.initializer
        if external_data.is_external(t)
    }
    assert set(offsets) == {"w", "b", "extra", "large"}
    assert offsets["w"] % 4096 == offsets["large"] % 4096 == 0
    assert all(offset % 64 == 0 for offset in offsets.values())


@pytest.mark.parametrize("data_type", sorted(external_data._BITS))
def test_every_element_type_goes_out_and_in(tmp_path, data_type):
    shape = (3, 1711)  # odd, so that packed types end inside a byte
    bits = external_data._BITS[data_type]
    size = (3 * 1711 * bits + 7) // 8
    payload = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    tensor = TensorProto(name="w", data_type=data_type, dims=shape, raw_data=payload)
    assert external_data.payload_bytes(tensor) == size
    model = make_model()
    model.graph.initializer.append(tensor)
    io.save(model, tmp_path / "out.onnx", external_data=True)
    assert external_data.is_external(
        onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[2]
    )
    assert io.load(tmp_path / "out.onnx").proto == model


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1, 1, 500, dtype=np.float32),
        np.linspace(-1, 1, 1500, dtype=np.float16),
        np.arange(500, dtype=np.int64) - 250,
        np.arange(1500, dtype=np.int8),
        np.linspace(-1, 1, 400).astype(np.complex64),
    ],
    ids=lambda values: str(values.dtype),
)
def test_weights_kept_in_typed_fields_keep_their_values(tmp_path, values):
    data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
    model = make_model()
    model.graph.initializer.append(helper.make_tensor("typed", data_type, values.shape, values))
    assert not model.graph.initializer[2].HasField("raw_data")
    io.save(model, tmp_path / "out.onnx", external_data=True)
    typed = io.load(tmp_path / "out.onnx").proto.graph.initializer[2]
    assert typed.HasField("raw_data")
    np.testing.assert_array_equal(numpy_helper.to_array(typed), values)


def test_strings_and_tensors_that_contradict_themselves_stay_in_the_model(tmp_path):
    model = make_model()
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [500], [b"word"] * 500))
    model.graph.initializer.append(TensorProto(name="short", data_type=FLOAT, dims=[500], raw_data=bytes(8)))
    model.graph.initializer.append(TensorProto(name="typed", data_type=FLOAT, dims=[500], float_data=[1.0]))
    model.graph.initializer.append(
        TensorProto(name="negative", data_type=FLOAT, dims=[-1], raw_data=bytes(8))
    )
    io.save(model, tmp_path / "out.onnx", external_data=True)
    written = {tensor.name: tensor for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert all(written[tensor.name] == tensor for tensor in model.graph.initializer[-4:])


@pytest.mark.parametrize("content", [{"raw_data": bytes(8)}, {"float_data": [1.0]}, {}])
def test_a_tensor_that_holds_less_than_its_shape_says_is_refused(tmp_path, content):
    model = make_model()
    model.graph.initializer.append(TensorProto(name="short", data_type=FLOAT, dims=[500], **content))
    onnx.save(model, tmp_path / "in.onnx")
    with pytest.raises(InputError, match=r"in\.onnx: tensor 'short' holds \d bytes, .* need 2000"):
        io.load(tmp_path / "in.onnx")
    with pytest.raises(InputError, match="tensor 'short'"):
        io.from_proto(model)


def test_a_model_above_the_limit_gets_a_data_file(tmp_path, monkeypatch):
    small, large = make_model(rows=10), make_model(rows=100)
    monkeypatch.setattr(io, "PROTOBUF_LIMIT", 10_000)
    io.save(small, tmp_path / "small.onnx")
    assert not data_files(tmp_path)
    written = io.save(large, tmp_path / "large.onnx")
    assert len(data_files(tmp_path)) == 1
    loaded = io.load(tmp_path / "large.onnx")
    assert loaded.proto == large
    assert loaded.size_bytes == written
    assert io.from_proto(large).size_bytes == 100 * 50 * 4 + 50 * 4
    # The weights alone fit, the model around them does not.
    monkeypatch.setattr(io, "PROTOBUF_LIMIT", io.encoded_bytes(large) - 1)
    io.save(large, tmp_path / "large.onnx")
    assert len(data_files(tmp_path)) == 1


def test_a_model_without_large_weights_needs_no_data_file(tmp_path):
    model = make_model(rows=1, columns=2)
    io.save(model, tmp_path / "out.onnx", external_data=True)
    assert names(tmp_path) == ["out.onnx"]
    assert io.load(tmp_path / "out.onnx").proto == model


def test_superseded_data_files_go(tmp_path):
    path = tmp_path / "out.onnx"
    foreign = tmp_path / "out.onnx.data"
    foreign.write_bytes(b"not ours")
    other = tmp_path / "other.onnx"
    io.save(make_model(seed=9), other, external_data=True)
    others = set(names(tmp_path))
    for seed in range(3):
        io.save(make_model(seed=seed), path, external_data=True)
        assert io.load(path).proto == make_model(seed=seed)
        assert len(set(names(tmp_path)) - others) == 2
    io.save(make_model(seed=2), path, external_data=True)
    assert io.load(path).proto == make_model(seed=2)
    io.save(make_model(), path)
    assert set(names(tmp_path)) - others == {"out.onnx"}


def test_a_running_save_is_left_alone(tmp_path):
    path = tmp_path / "out.onnx"
    io.save(make_model(seed=1), path, external_data=True)
    (old_data,) = data_files(tmp_path)
    descriptor, temporary = io._create_temporary(path)
    io.save(make_model(seed=2), path, external_data=True)
    assert temporary.exists()
    assert old_data.exists()
    os.close(descriptor)
    io.save(make_model(seed=3), path, external_data=True)
    assert names(tmp_path) == ["out.onnx", data_files(tmp_path)[0].name]


def test_the_source_is_never_touched(tmp_path, monkeypatch):
    source = tmp_path / "in.onnx"
    io.save(make_model(seed=1), source, external_data=True)
    (data,) = data_files(tmp_path)
    (tmp_path / "link.onnx").symlink_to(source)
    os.link(source, tmp_path / "hard.onnx")
    os.link(data, tmp_path / "hard.data")
    (tmp_path / "sub").mkdir()
    (tmp_path / "dir").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (source, data)}
    for same in (
        source,
        Path("in.onnx"),
        tmp_path / "sub" / ".." / "in.onnx",
        tmp_path / "link.onnx",
        tmp_path / "hard.onnx",
        tmp_path / "dir" / "in.onnx",
        data,
        tmp_path / "hard.data",
    ):
        for given_source in (source, Path("link.onnx")):
            for function in (io.check_writable, lambda p, s: io.save(make_model(), p, source=s)):
                with pytest.raises(InputError, match="input model or one of its data files") as caught:
                    function(same, given_source)
                assert str(same) in str(caught.value)
    assert before == {path: path.read_bytes() for path in before}
    io.save(make_model(), tmp_path / "out.onnx", source=source)
    assert before == {path: path.read_bytes() for path in before}


def test_data_that_the_source_shares_with_the_target_stays(tmp_path):
    out, source = tmp_path / "out.onnx", tmp_path / "in.onnx"
    io.save(make_model(seed=1), out, external_data=True)
    (data,) = data_files(tmp_path)
    source.write_bytes(out.read_bytes())
    inode = data.stat().st_ino
    io.save(make_model(seed=1), out, external_data=True, source=source)
    assert data.stat().st_ino == inode
    io.save(make_model(seed=2), out, external_data=True, source=source)
    assert io.load(source).proto == make_model(seed=1)
    assert io.load(out).proto == make_model(seed=2)
    io.save(make_model(seed=2), out, source=source)
    assert names(tmp_path) == ["in.onnx", "out.onnx", data.name]


def test_unusable_targets_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "read_only.onnx").write_text("")
    os.mkfifo(tmp_path / "pipe")
    real_access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != "read_only.onnx" and real_access(path, mode)
    )
    cases = {
        tmp_path: "is a folder",
        tmp_path / "none" / "out.onnx": "does not exist",
        tmp_path / "file" / "out.onnx": "is not a folder",
        tmp_path / "pipe": "not a regular file",
        Path("/dev/null"): "not a regular file",
        tmp_path / "read_only.onnx": "write-protected",
        tmp_path / ("x" * 300): "too long",
    }
    before = names(tmp_path)
    for path, words in cases.items():
        for function in (io.check_writable, lambda p: io.save(make_model(), p)):
            with pytest.raises(InputError, match=words) as caught:
                function(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert names(tmp_path) == before
    io.check_writable(tmp_path / "out.onnx")
    io.check_writable(tmp_path / "file", tmp_path / "missing.onnx")
    assert names(tmp_path) == before


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    real_open = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    for function in (io.check_writable, lambda path: io.save(make_model(), path)):
        with pytest.raises(InputError, match="Read-only file system"):
            function(tmp_path / "out.onnx")


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_save_leaves_the_old_model_and_no_other_file(tmp_path, monkeypatch, external, failure):
    path = tmp_path / "out.onnx"
    io.save(make_model(seed=1), path, external_data=True)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for fails_at in range(3 if external else 2):
        calls = iter(range(100))
        for name, function in real.items():

            def failing(*args, calls=calls, function=function, fails_at=fails_at):
                if next(calls) == fails_at:
                    raise failure
                return function(*args)

            monkeypatch.setattr(os, name, failing)
        expected = InputError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            io.save(make_model(seed=2), path, external_data=external)
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_a_killed_save_leaves_the_old_model_or_the_new_one(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_saves.py"), tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["old"] > 5 and found["new"] > 5 and found["calls"] > 10


def test_a_link_at_the_target_is_replaced(tmp_path):
    real = tmp_path / "real.onnx"
    real.write_text("precious")
    (tmp_path / "out.onnx").symlink_to(real)
    io.save(make_model(), tmp_path / "out.onnx")
    assert real.read_text() == "precious"
    assert not (tmp_path / "out.onnx").is_symlink()


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        io.save(make_model(), tmp_path / "out.onnx", external_data=True)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_models_with_unloaded_external_data_are_not_saved(tmp_path):
    write_external(tmp_path / "in.onnx")
    light = onnx.load(tmp_path / "in.onnx", load_external_data=False)
    with pytest.raises(InputError, match="not loaded"):
        io.save(light, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_graph_too_large_to_encode_is_refused(tmp_path, monkeypatch):
    def too_large(_self):
        raise io.EncodeError("Failed to serialize proto")

    monkeypatch.setattr(io._Encoding, "chunks", too_large)
    with pytest.raises(InputError, match="too large for ONNX"):
        io.save(make_model(), tmp_path / "out.onnx")
    assert not names(tmp_path)
