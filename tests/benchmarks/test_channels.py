"""The benchmark of removing channels measures what it says."""

import pytest

from benchmarks.channels import generated, measure, write


@pytest.mark.parametrize(("name", "nodes", "narrower"), [("generated:60", 61, 10)])
def test_models_lose_channels(tmp_path, name, nodes, narrower):
    write(name, tmp_path / "model.onnx")
    result = measure(tmp_path / "model.onnx", runs=1)
    assert (result.nodes, result.layers) == (nodes, narrower)
    assert result.model_bytes > 0 and result.seconds > 0


def test_generated_graphs_have_about_the_nodes_asked_for():
    for nodes in (100, 1000):
        assert abs(len(generated(nodes).graph.node) - nodes) <= 5
