import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from models import NETWORKS, Network
from models.__main__ import main
from models.builder import GraphBuilder
from models.paper import plans, sizes
from models.paper.onnx_files import arrays_of, pruned_by_magnitude, weights_of
from models.paper.published import FIGURES, NODES_REMOVED
from models.paper.recipes import RECIPES, TARGETS, Groups, Pruning, short
from models.paper.reproduce import MODEL_FILE, Reproducer
from models.paper.training import OutOfTime, Trainer
from scalpel_graph import group_csr
from scalpel_graph.channels_last import ChannelsLast
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import structure
from scalpel_graph.target import CpuTarget, load_target
from tests.models.paper.fashion_mnist import needs_fashion_mnist

pytestmark = needs_fashion_mnist


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(network):
    return short(RECIPES[network])


@pytest.fixture(scope="module")
def lenet_5(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    return work, Reproducer(work).run(recipe("lenet-5"))


def variant(result, technique, target):
    (found,) = (v for v in result.variants if (v.technique, v.target) == (technique, target))
    return found


def weights(work, network, run):
    return arrays_of(onnx.load(work / network / run / MODEL_FILE))


def test_every_variant_is_there_once(lenet_5):
    _, result = lenet_5
    got = [(v.technique, v.target) for v in result.variants]
    assert sorted(got) == sorted(RECIPES["lenet-5"].variants) and len(set(got)) == len(got) == 10
    assert result.images == (384, 200) and 0 <= result.dense_accuracy <= 1
    assert all(0 <= v.accuracy <= 1 for v in result.variants)


@pytest.mark.parametrize(
    ("technique", "target", "shape", "rate"),
    [("traditional", "cpu", (1, 1), 0.964), ("scalpel", "mcu", (1, 2), 0.958)],
)
def test_groups_are_zero_at_the_rate(lenet_5, technique, target, shape, rate):
    work, result = lenet_5
    found = variant(result, technique, target)
    arrays = weights(work, "lenet-5", found.run)
    kept = 0
    for layer in weights_of(NETWORKS["lenet-5"].build()):
        matrix = found.plan.groups(layer.name).ordered(layer.matrix(arrays[layer.weight]))
        kept += group_csr.encode(matrix, shape).values.size
    assert kept == pytest.approx((1 - rate) * 430_500, rel=0.01)
    assert found.plan.shapes == dict.fromkeys(("conv1", "conv2", "fc1", "fc2"), shape)


def test_groups_lie_channels_last_for_a_microcontroller(lenet_5):
    _, result = lenet_5
    conv = ChannelsLast.of_conv((5, 5))
    orders = variant(result, "scalpel", "mcu").plan.orders
    assert orders == {"conv1": conv, "conv2": conv, "fc1": ChannelsLast(16)}
    others = [v for v in result.variants if (v.technique, v.target) != ("scalpel", "mcu")]
    assert not any(v.plan.orders for v in others)


def test_combined_prunes_nodes_of_convolutions_and_groups_of_the_rest(lenet_5):
    work, result = lenet_5
    found = variant(result, "scalpel", "cpu")
    arrays = weights(work, "lenet-5", found.run)
    for layer, dead in (("conv1", 10), ("conv2", 30)):
        filters = np.abs(arrays[f"{layer}.weight"]).reshape(len(arrays[f"{layer}.weight"]), -1).sum(axis=1)
        assert (filters == 0).sum() == dead and (arrays[f"{layer}.bias"] == 0).sum() == dead
    fc = [arrays[f"fc{i}.weight"] for i in (1, 2)]
    assert sum((w == 0).sum() for w in fc) >= 0.962 * 405_000 - 8
    assert all(group_csr.density(w, (1, 8)) < 1 for w in fc)
    # What reads dead nodes is gone, so the groups that are left read living ones.
    alive = np.abs(arrays["conv2.weight"]).reshape(50, -1).sum(axis=1) > 0
    assert not np.abs(fc[0]).reshape(500, 50, 16).sum(axis=(0, 2))[~alive].any()
    assert found.nodes["conv1"] == (20, 10) and found.nodes["conv2"] == (50, 20)
    assert found.size.share < 0.0540


def test_nodes_are_removed_for_a_gpu(lenet_5):
    _, result = lenet_5
    found = variant(result, "scalpel", "gpu")
    assert found.nodes == {"conv1": (20, 10), "conv2": (50, 16), "fc1": (500, 175)}
    assert found.size.kept == 10 * 25 + 16 * 250 + 175 * 256 + 1750
    assert found.size.share == pytest.approx(FIGURES["gpu", "lenet-5"].size / 100, abs=0.002)
    assert found.sparse_layers == {}


def test_optimized_leaves_alone_what_does_not_pay(lenet_5):
    _, result = lenet_5
    dense = variant(result, "optimized", "gpu")
    assert dense.run == "dense" and dense.plan.is_empty and dense.accuracy == result.dense_accuracy
    assert dense.size.share == 1
    assert variant(result, "optimized", "mcu").run == variant(result, "traditional", "mcu").run
    assert set(variant(result, "optimized", "cpu").plan.shapes) <= {"conv1", "conv2", "fc1", "fc2"}


def test_what_is_there_is_not_trained_again(lenet_5, monkeypatch):
    work, result = lenet_5

    def fail(*_):
        raise AssertionError("an epoch was trained again")

    monkeypatch.setattr(Trainer, "_epoch", fail)
    again = Reproducer(work).run(recipe("lenet-5"))
    assert json.dumps(again.as_json()) == json.dumps(result.as_json())


def test_interrupted_it_goes_on(tmp_path, monkeypatch):
    """A deadline after every third epoch: the network is the same as in one go."""
    short_recipe = replace(
        recipe("lenet-300-100"), variants={("scalpel", "cpu"): Pruning(groups=Groups((1, 8), 0.9))}
    )
    Reproducer(tmp_path / "whole").run(short_recipe)
    stops = 0
    while True:
        ticks = iter([0.0] * 3 + [1.0] * 99)
        monkeypatch.setattr("models.paper.training._now", lambda ticks=ticks: next(ticks))
        reproducer = Reproducer(tmp_path / "pieces")
        reproducer.deadline = 0.5
        try:
            reproducer.run(short_recipe)
            break
        except OutOfTime:
            stops += 1
            assert stops < 9
    assert stops == 1
    for run in ("dense", "scalpel-cpu"):
        expected = weights(tmp_path / "whole", "lenet-300-100", run)
        for name, array in weights(tmp_path / "pieces", "lenet-300-100", run).items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_folder_of_another_recipe_is_refused(lenet_5):
    work, _ = lenet_5
    other = replace(recipe("lenet-5"), seed=1)
    with pytest.raises(InputError, match="holds a run of another recipe: remove it to train anew"):
        Reproducer(work).run(other, techniques=("scalpel",))


@pytest.mark.parametrize("network", ["convnet", "nin"])
def test_the_others_train_too(tmp_path, network):
    few = replace(recipe(network), train_images=64, test_images=50)
    few = replace(few, schedule=replace(few.schedule, dense=1, penalties=(30.0, 300.0)))
    result = Reproducer(tmp_path).run(few, targets=("cpu",), techniques=("scalpel",))
    (found,) = result.variants
    published = NODES_REMOVED[network]
    assert set(found.nodes) == set(published)
    for layer, (before, after) in found.nodes.items():
        assert 100 * (before - after) / before == pytest.approx(published[layer], abs=1.7)
    assert found.size.share == pytest.approx(FIGURES["cpu", network].size / 100, abs=0.012)


def test_seeded_networks_have_the_papers_sizes(tmp_path):
    result = Reproducer(tmp_path).run(RECIPES["convnet"], targets=("mcu",), seeded=True)
    assert result.dense_accuracy is None and result.dataset == ""
    found = variant(result, "scalpel", "mcu")
    assert found.accuracy is None
    assert found.size.share == pytest.approx(FIGURES["mcu", "convnet"].size / 100, abs=0.005)
    assert json.loads(json.dumps(result.as_json()))["dense"]["accuracy"] is None


def test_seeded_networks_lose_at_least_the_papers_nodes(tmp_path):
    result = Reproducer(tmp_path).run(
        RECIPES["lenet-5"], targets=("cpu",), techniques=("scalpel",), seeded=True
    )
    assert result.variants[0].plan.nodes == {"conv1": 0.5, "conv2": 0.68}
    assert result.variants[0].nodes["conv2"] == (50, 16)


def test_nodes_of_a_grouped_convolution_go_evenly(monkeypatch):
    def build(**_):
        g = GraphBuilder("grouped", seed=0, opset=17)
        x = g.relu(g.conv(g.input("input", ["batch", 8, 5, 5]), "conv1", 8, 20, 3, group=2), "relu1")
        return g.model({g.conv(x, "conv2", 20, 6, 3): ["batch", 6, 1, 1]})

    monkeypatch.setitem(NETWORKS, "grouped", Network("two layers", build, (1, 8, 5, 5), ()))
    arrays = arrays_of(pruned_by_magnitude("grouped", plans.Plan({"conv1": 0.3}, {})))
    dead = np.abs(arrays["conv1.weight"]).reshape(20, -1).sum(axis=1) == 0
    assert dead[:10].sum() == dead[10:].sum() == 3 and not arrays["conv1.bias"][dead].any()
    assert (np.abs(arrays["conv2.weight"]).sum(axis=(0, 2, 3)) == 0).tolist() == dead.tolist()


def test_plans_of_the_cost_model():
    model = NETWORKS["lenet-5"].build()
    pruning = Pruning(groups=Groups(None, 0.95, exclude=("conv1",)))
    found = plans.plan(model, pruning, "cost-model", "cpu")
    assert set(found.shapes) <= {"conv2", "fc1", "fc2"}
    target = load_target("cpu")
    assert isinstance(target, CpuTarget)
    assert set(found.shapes.values()) <= {kernel.group_shape for kernel in target.kernels}
    with pytest.raises(InputError, match="no cost model chooses the groups of 'conv2': only cpu has one"):
        plans.plan(model, pruning, "cost-model", "gpu")


def test_sizes_are_those_of_the_format():
    """A 4×8 matrix with two groups of two: A' 4 int16, JA' 2 uint16, IA' 5 int32."""
    model = NETWORKS["lenet-300-100"].build()
    arrays = arrays_of(model)
    single = np.zeros((10, 100), np.float32)
    single[3, 4:6] = 1
    single[7, 9] = 2
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    for tensor in pruned.graph.initializer:
        if tensor.name == "fc3.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(single, tensor.name))
    found = sizes.measure(model, pruned, {"fc3": structure.Groups((1, 2))}, 2)
    dense = 2 * (784 * 300 + 300 * 100)
    assert found.bytes == dense + 2 * (2 * 2 + 2) + 11 * 4
    assert found.kept == np.count_nonzero(arrays["fc1.weight"]) + np.count_nonzero(arrays["fc2.weight"]) + 3
    assert found.original_bytes == 2 * 266_200 and found.share == found.bytes / found.original_bytes


def test_restricted_profiles():
    target = plans.cpu()
    only = plans.restricted(target, {(1, 8)})
    assert [kernel.group_shape for kernel in only.kernels] == [(1, 8)] and only.margin == target.margin
    assert plans.restricted(target, {(1, 1)}, forced=True).margin < -1


def test_recipes_cover_the_papers_platforms():
    assert {(target, name) for name in RECIPES for target in RECIPES[name].targets} == set(FIGURES)
    for found in RECIPES.values():
        for target in found.targets:
            assert {("traditional", target), ("optimized", target), ("scalpel", target)} <= set(
                found.variants
            )
        assert ("cost-model", "cpu") in found.variants
    assert set(TARGETS) == {"mcu", "cpu", "gpu"}


def command(tmp_path, *arguments):
    folders = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    return main([*arguments, *folders, "--threads", "1"])


def test_command_writes_json_and_a_page(tmp_path, capsys):
    options = ["--short", "--target", "gpu", "--technique", "scalpel"]
    assert command(tmp_path, "reproduce", "lenet-300-100", *options) == 0
    written = json.loads((tmp_path / "results/lenet-300-100.json").read_text())
    (found,) = written["variants"]
    assert found["nodes"] == {"fc1": [300, 207], "fc2": [100, 68]}
    assert found["size"]["share"] == pytest.approx(0.6651, abs=1e-3)
    assert written["training_seconds"].keys() == {"dense", "scalpel-gpu"}
    page = (tmp_path / "results/lenet-300-100.html").read_text()
    assert "nodes removed" in page and "size of the weights" in page
    assert "scalpel" in capsys.readouterr().out


def test_out_of_time_says_how_to_go_on(tmp_path, capsys):
    assert command(tmp_path, "reproduce", "lenet-300-100", "--short", "--minutes", "1e-9") == 75
    assert capsys.readouterr().err == "python -m models: the minutes are over; run it again to go on\n"


def test_importance_curve(tmp_path):
    assert command(tmp_path, "importance", "lenet-300-100", "--short") == 0
    curve = json.loads((tmp_path / "results/importance-lenet-300-100.json").read_text())
    assert {(p["importance"], p["rate"]) for p in curve["points"]} == {
        (i, r) for i in ("rms", "mean", "max") for r in (0.5, 0.9)
    }
    assert all(0 <= p["pruned"] <= 1 and 0 <= p["retrained"] <= 1 for p in curve["points"])
    half = [p["pruned"] for p in curve["points"] if p["rate"] == 0.5]
    most = [p["pruned"] for p in curve["points"] if p["rate"] == 0.9]
    assert min(half) > max(most)
    assert "largest magnitude" in (tmp_path / "results/importance-lenet-300-100.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "lenet-6"], "no recipe for 'lenet-6': choose from lenet-300-100, lenet-5"),
        (["reproduce", "lenet-5", "--data", "{}"], "install Debian's package dataset-fashion-mnist"),
        (["reproduce", "nin", "--dataset", "cifar-10"], "give the folder of its .bin files with --data"),
        (["importance", "alexnet"], "alexnet is not trained, so it has no accuracy"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, capsys, arguments, message):
    assert command(tmp_path, *(argument.format(tmp_path) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_bad_minutes_get_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "lenet-5", "--minutes", "0"])
    assert "'0' is not a positive number of minutes" in capsys.readouterr().err
