import re
from dataclasses import replace
from importlib import resources

import pytest

from scalpel_graph.errors import InputError
from scalpel_graph.target import available_targets, load_target, parse_target

CONV = "conv_gflops = [0-9[].*"
TEXT = (resources.files("scalpel_graph") / "targets" / "cpu.toml").read_text(encoding="utf-8")


def test_every_shipped_profile_loads():
    assert "cpu" in available_targets()
    for name in available_targets():
        target = load_target(name)
        assert target.name == name and target.option == name
        assert target.round_channels_to >= 1


def test_a_gpu_profile_states_the_multiple_of_its_widths_and_no_kernels():
    target = load_target("gpu")
    assert (target.kind, target.round_channels_to, target.round_features_to) == ("gpu", 8, 8)
    assert load_target("cpu").round_channels_to == 16
    assert load_target("cpu").round_features_to == 1  # nothing gets faster
    text = 'kind = "gpu"\ndescription = "some"\n'
    mine = parse_target(text, "mine", None)
    assert (mine.round_channels_to, mine.round_features_to, mine.round_from) == (1, 1, 0)
    with pytest.raises(InputError, match="round_channels_to must be a whole number of at least 1, got 0"):
        parse_target(text + "round_channels_to = 0", "mine", None)
    with pytest.raises(InputError, match="round_from must be a number from 0 to 1, got 2"):
        parse_target(text + "round_from = 2", "mine", None)
    with pytest.raises(InputError, match="kernels is not a known key"):
        parse_target(text + "kernels = 3", "mine", None)


def test_a_file_of_ones_own_is_read_and_remembers_where_it_came_from(tmp_path):
    path = tmp_path / "laptop.toml"
    path.write_text(TEXT)
    target = load_target(str(path))
    assert (target.name, target.option) == ("laptop", str(path))
    assert replace(target, name="cpu", source=None) == load_target("cpu")


@pytest.mark.parametrize("name", ["mcu", "nonsense", ""])
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
        ("cores = 2", "cores = 0", "cores must be a whole number of at least 1, got 0"),
        ("cores = 2", "cores = true", "cores must be a whole number of at least 1, got True"),
        ("margin = [0-9.]+", "margin = 1.5", "margin must be a number from 0 to 1, got 1.5"),
        ("l2_gbps = [0-9.]+", "", "memory.l2_gbps is missing"),
        ("l2_gbps = [0-9.]+", "l2_gbps = -3", "memory.l2_gbps must be a positive number, got -3"),
        ("l2_gbps = [0-9.]+", "l2_gbps = inf", "memory.l2_gbps must be a positive number, got inf"),
        ("l2_gbps = [0-9.]+", 'l2_gbps = 9\nl2_gpbs = 9', "l2_gpbs is not a known key; did you mean"),
        (CONV, 'conv_gflops = "x"', "dense.conv_gflops must be a positive number"),
        (CONV, "conv_gflops = []", "dense.conv_gflops must be a number or a list"),
        (CONV, "conv_gflops = [[1]]", "dense.conv_gflops must be a number or a list of"),
        (CONV, "conv_gflops = [[2, 1], [1, 1]]", "conv_gflops must list its columns"),
        (r"group_shape = \[4, 1\]", "group_shape = [4]", "kernels[0].group_shape must be two whole numbers"),
        (r"group_shape = \[4, 1\]", "group_shape = [8, 1]", "kernels lists group_shape [8, 1] twice"),
        ('isa = "avx2"', "isa = 2", "isa must be a text, got 2"),
        (r"\[sparse\]", "[spars]", "sparse is missing"),
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
