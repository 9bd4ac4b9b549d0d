import onnx
import pytest

from benchmarks import mcu_networks
from tests.mcu_networks import require_cross_tools


def test_a_network_is_compiled_compared_and_counted(capsys):
    require_cross_tools()
    assert mcu_networks.main(["lenet-300-100", "--dtype", "q15", "--vectors", "12"]) == 0
    printed = capsys.readouterr().out
    assert "12 vectors the same everywhere" in printed
    outcome = mcu_networks.Outcome("x", "q15", 12, (100, 900), (1, 2))
    assert outcome.ratio == 9


def test_trained_networks_are_taken_from_a_folder(tmp_path):
    with pytest.raises(SystemExit, match="models reproduce lenet-300-100 --target mcu"):
        mcu_networks.main(["lenet-300-100", "--work", str(tmp_path)])
    sparse, dense = mcu_networks.seeded("lenet-300-100", "q15")
    for variant, model in (("scalpel-mcu", sparse), ("dense", dense)):
        (tmp_path / "lenet-300-100" / variant).mkdir(parents=True)
        onnx.save(model, tmp_path / "lenet-300-100" / variant / "network.onnx")
    assert mcu_networks.trained("lenet-300-100", tmp_path) == (sparse, dense)
