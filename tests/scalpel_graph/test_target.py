import re
from dataclasses import replace

import pytest

from models import NETWORKS
from scalpel_graph import target as target_module
from scalpel_graph.api import optimize
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import prune_magnitude
from scalpel_graph.target import CpuTarget, available_targets, load_target, parse_target, target_names
from scalpel_graph.target_toml import to_toml

TEXT = to_toml(load_target("avx2"))
CALL = "call = [0-9.]+"
MULTIPLY_ADD = "multiply_add = [0-9[].*"


def test_every_shipped_profile_loads():
    assert {"avx2", "gpu"} <= set(available_targets())
    assert target_names() == ["cpu", *available_targets()]
    for name in available_targets():
        target = load_target(name)
        assert target.name == name and target.option == name
        assert target.round_channels_to >= 1


def test_a_gpu_profile_states_the_multiple_of_its_widths_and_no_kernels():
    target = load_target("gpu")
    assert (target.kind, target.round_channels_to, target.round_features_to) == ("gpu", 8, 8)
    assert load_target("avx2").round_channels_to == 16
    assert load_target("avx2").round_features_to == 1  # nothing gets faster
    text = 'kind = "gpu"\ndescription = "some"\n'
    mine = parse_target(text, "mine", None)
    assert (mine.round_channels_to, mine.round_features_to, mine.round_from) == (1, 1, 0)
    with pytest.raises(InputError, match="round_channels_to must be a whole number of at least 1, got 0"):
        parse_target(text + "round_channels_to = 0", "mine", None)
    with pytest.raises(InputError, match="round_from must be a number from 0 to 1, got 2"):
        parse_target(text + "round_from = 2", "mine", None)
    with pytest.raises(InputError, match="kernels must be"):
        parse_target(text + "kernels = 3", "mine", None)


def test_a_file_of_ones_own_is_read_and_remembers_where_it_came_from(tmp_path):
    path = tmp_path / "laptop.toml"
    path.write_text(TEXT)
    target = load_target(str(path))
    assert (target.name, target.option) == ("laptop", str(path))
    assert replace(target, name="avx2", source=None) == load_target("avx2")


@pytest.mark.parametrize("name", ["m4", "nonsense", ""])
def test_unknown_names_list_what_there_is(name):
    with pytest.raises(InputError, match=rf"target {name!r}: no such profile; .*choose from .*cpu"):
        load_target(name)


def test_a_close_name_is_suggested():
    with pytest.raises(InputError, match=r"did you mean cpu\?"):
        load_target("cpuu")


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"missing\.toml: cannot be read"):
        load_target(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml: cannot be read"):
        load_target(str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml: cannot be read"):
        load_target(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ('kind = "cpu"', "kind = ", "not valid TOML"),
        ('kind = "cpu"', 'kind = "npu"', "kind is 'npu', must be one of cpu, gpu"),
        ('kind = "cpu"', "", "kind is missing"),
        ("lanes = [0-9]+", "lanes = 0", "lanes must be a whole number of at least 1, got 0"),
        ("lanes = [0-9]+", "lanes = true", "lanes must be a whole number of at least 1, got True"),
        ("lanes = [0-9]+", "", "lanes is missing"),
        ("lanes = [0-9]+", "lanes = 8\nlane = 8", "lane is not a known key; did you mean lanes?"),
        ("margin = [0-9.]+", "margin = 1.5", "margin must be a number from 0 to 1, got 1.5"),
        (CALL, "", "dense.pointwise[0].call is missing"),
        (CALL, "call = -3", "dense.pointwise[0].call must be a number of at least 0, got -3"),
        (CALL, "call = inf", "dense.pointwise[0].call must be a number of at least 0, got inf"),
        (CALL, "call = 3\nwieght = 3", "dense.pointwise[0].wieght is not a known key; did you mean weight?"),
        (CALL, "call = 3\nunrolled = 3", "dense.pointwise[0].unrolled is not a known key"),
        ("threads = 2", "threads = 1", "dense.pointwise[1].threads is 1 twice for pointwise"),
        (MULTIPLY_ADD, 'multiply_add = "x"', "multiply_add must be a number of at least 0"),
        (MULTIPLY_ADD, "multiply_add = []", "multiply_add must be a number or a list"),
        (MULTIPLY_ADD, "multiply_add = [[1]]", "multiply_add must be a number or a list of"),
        (MULTIPLY_ADD, "multiply_add = [[2, 1], [1, 1]]", "multiply_add must list its sizes"),
        (r"group_shape = .*", "group_shape = [4]", "kernels[0].group_shape must be two whole numbers"),
        (r"group_shape = .*", "group_shape = [2, 1]", "kernels lists group_shape [2, 1] twice"),
        ('isa = "avx2"', "isa = 2", "isa must be a text, got 2"),
        (r"\[\[dense.gemv\]\]", "[[dense.gemw]]", "dense.gemw is not a known key; did you mean gemv?"),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_the_key(tmp_path, find, put, message):
    changed = re.sub(find, put.replace("\\", "\\\\"), TEXT, count=1)
    assert changed != TEXT
    with pytest.raises(InputError) as caught:
        parse_target(changed, "mine", "mine.toml")
    assert str(caught.value).startswith("target mine.toml: ") and "\n" not in str(caught.value)
    assert message in str(caught.value)


def test_kernels_must_be_a_list_of_tables():
    head = TEXT[: TEXT.index("[[kernels]]")]
    for kernels in ("", "kernels = 3\n"):
        with pytest.raises(InputError, match=r"kernels (is missing|must be a list of tables)"):
            parse_target(kernels + head, "mine", None)


def shipped(monkeypatch, isa, processor):
    monkeypatch.setattr(target_module, "chosen_isa", lambda: isa)
    monkeypatch.setattr(target_module, "processor", lambda: processor)
    return load_target("cpu")


def test_cpu_is_the_profile_of_the_instruction_set(monkeypatch):
    for isa, name in (("avx2", "avx2"), ("avx512", "avx512"), ("neon", "aarch64")):
        assert shipped(monkeypatch, isa, "nobody's").name == name


def test_a_profile_of_another_machine_chooses_sparse_layers_and_they_are_checked_here():
    model = prune_magnitude(NETWORKS["lenet-300-100"].build(), 0.9, (4, 1)).model
    report = optimize(model, target="aarch64").report
    assert report.verified.ok and report.target == "aarch64"
    assert [layer.chosen.group_shape for layer in report.layers[:2]] == [(4, 1), (4, 1)]


def test_prices_of_a_layout_that_there_is_not_are_refused():
    text = to_toml(load_target("aarch64"))
    pointwise = "[[dense.pointwise]]\nthreads = 1\ncall = 3\n"
    with pytest.raises(InputError, match=r"dense\.pointwise is not a known key"):
        parse_target(f"{text}\n{pointwise}", "mine", None)
    with pytest.raises(InputError, match=r"dense\.pointwise is missing"):
        parse_target(text.replace("block = 1\n", "block = 8\n"), "mine", None)


def test_cpu_is_the_profile_of_this_very_processor_if_there_is_one(monkeypatch):
    for name in available_targets():
        target = load_target(name)
        if isinstance(target, CpuTarget) and "processor" in target.host:
            assert shipped(monkeypatch, target.isa, target.host["processor"]) == target


def test_cpu_without_vector_kernels_keeps_layers_dense(monkeypatch):
    target = shipped(monkeypatch, "scalar", "nobody's")
    assert target.name == "scalar" and not target.kernels
    model = prune_magnitude(NETWORKS["lenet-300-100"].build(), 0.9, (4, 1)).model
    layers = optimize(model, target=target).report.layers
    assert {layer.chosen.decision for layer in layers} == {"dense"}
    assert {layer.reason for layer in layers} == {
        "kept dense: target scalar has no sparse kernels to choose from"
    }


def test_cpu_without_a_profile_says_how_to_make_one(monkeypatch):
    with pytest.raises(InputError, match="no profile for abacus kernels; make one with scalpel-calibrate"):
        shipped(monkeypatch, "abacus", "")
