import pytest

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.recipe import load_recipe, parse_recipe
from scalpel_graph.pruning.settings import Settings

RECIPE = """
method: group
sparsity: 0.8
exclude: [conv1]
layers:
  "fc*": {sparsity: 0.9, group_shape: 1x16}
  fc3:
    method: none
"""


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_a_recipe(tmp_path):
    recipe = load_recipe(written(tmp_path, RECIPE))
    common = Settings().changed(recipe.settings)
    assert common == Settings(method="group", sparsity=0.8)
    assert recipe.exclude == ("conv1",)
    assert recipe.settings_of("conv2", common) == common
    assert recipe.settings_of("fc1", common) == Settings("group", 0.9, group_shape=(1, 16))


def test_later_patterns_win():
    recipe = parse_recipe({"layers": {"fc*": {"sparsity": 0.9, "nodes": 0.1}, "fc3": {"sparsity": 0.5}}})
    assert recipe.settings_of("fc3", Settings()) == Settings(sparsity=0.5, nodes=0.1)


def test_empty(tmp_path):
    assert load_recipe(written(tmp_path, "# nothing\n")).settings == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sparsty": 0.9}, "'sparsty' is not a known key: did you mean 'sparsity'?"),
        ({"layer": {"fc1": {}}}, "'layer' is not a known key: did you mean 'layers'?"),
        (
            {"xyz": 1},
            "'xyz' is not a known key: choose from method, sparsity, nodes, group_shape, importance",
        ),
        ({"layers": {"fc1": {"node": 0.5}}}, "layers.fc1: 'node' is not a known key: did you mean 'nodes'?"),
        ({"sparsity": 1.5}, "sparsity must be at least 0 and less than 1, got 1.5"),
        ({"sparsity": 1}, "sparsity must be at least 0 and less than 1, got 1"),
        ({"sparsity": "much"}, "sparsity must be at least 0 and less than 1, got 'much'"),
        ({"sparsity": True}, "sparsity must be at least 0 and less than 1, got True"),
        ({"nodes": -0.1}, "nodes must be at least 0 and less than 1"),
        ({"nodes": float("nan")}, "nodes must be at least 0 and less than 1"),
        ({"method": "groups"}, "method 'groups': did you mean 'group'?"),
        ({"method": 3}, "method 3: choose from auto, magnitude"),
        ({"method": "4:2"}, "n:m must be two whole numbers"),
        ({"group_shape": "8"}, "group shape must be two positive numbers such as 4x1"),
        ({"group_shape": [1, 0]}, "group shape must be two positive numbers such as 4x1, or auto"),
        ({"importance": "l2"}, "importance must be one of rms, mean, max"),
        ({"exclude": "fc1"}, "exclude must be a list of names of layers"),
        ({"layers": ["fc1"]}, "layers: must hold keys and values"),
        ({"layers": {"fc1": 0.9}}, "layers.fc1: must hold keys and values"),
        ([1, 2], "must hold keys and values"),
    ],
)
def test_unusable(content, message):
    with pytest.raises(InputError) as error:
        parse_recipe(content, "r.yaml")
    assert str(error.value).startswith("r.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"recipe.yaml: not valid YAML: .* \(line 2\)"):
        load_recipe(written(tmp_path, "a: [1\nb: 2"))


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"nothing.yaml: cannot be read \(No such file or directory\)"):
        load_recipe(tmp_path / "nothing.yaml")


def test_a_pattern_that_matches_nothing():
    recipe = parse_recipe({"layers": {"fc9": {}}}, "r.yaml")
    with pytest.raises(
        InputError, match=r"r.yaml: no Conv, Gemm or MatMul is called 'fc9': did you mean 'fc1'\?"
    ):
        recipe.check(["conv1", "fc1"])


def test_group_shapes():
    assert Settings().changed({"group_shape": [4, 1]}).group_shape == (4, 1)
    assert Settings(group_shape=(4, 1)).changed({"group_shape": "auto"}).group_shape is None


def test_null_is_none():
    assert Settings().changed({"method": None}).method == "none"
