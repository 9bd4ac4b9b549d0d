from benchmarks import mcu_networks
from tests.mcu_networks import require_cross_tools


def test_a_network_is_compiled_compared_and_counted(capsys):
    require_cross_tools()
    assert mcu_networks.main(["lenet-300-100", "--dtype", "q15", "--vectors", "12"]) == 0
    printed = capsys.readouterr().out
    assert "12 vectors the same everywhere" in printed
    outcome = mcu_networks.Outcome("x", "q15", 12, (100, 900), (1, 2))
    assert outcome.ratio == 9
