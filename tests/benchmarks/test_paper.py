import json
import math

import pytest

from benchmarks import paper
from benchmarks.paper import Result, main, means
from models.paper.recipes import RECIPES
from models.paper.reproduce import Reproducer
from scalpel_graph.timing import Ratio


def result(network, **speed_up):
    ratios = {name: Ratio(value, value, value) for name, value in speed_up.items()}
    return Result(network, True, 1, 10.0, {name: 10 / value for name, value in speed_up.items()}, ratios, 6)


def test_means_are_geometric_and_only_of_what_all_have():
    found = means([result("lenet-5", scalpel=2.0, traditional=1.0), result("nin", scalpel=8.0)])
    assert found == {"scalpel": pytest.approx(4.0)}


def test_measures_every_variant_for_the_cpu(tmp_path, capsys):
    made = Reproducer(tmp_path).run(RECIPES["lenet-5"], targets=("cpu", "gpu"), seeded=True)
    (tmp_path / "lenet-5.json").write_text(json.dumps(made.as_json()))
    folders = ["--work", str(tmp_path), "--results", str(tmp_path), "--json", str(tmp_path / "speed.json")]
    assert main(["--network", "lenet-5", "--seconds", "0.01", "--markdown", *folders]) == 0
    written = json.loads((tmp_path / "speed.json").read_text())
    (line,) = written["results"]
    assert set(line["us"]) == {"optimizer", "traditional", "optimized", "scalpel", "cost-model"}
    assert line["trained"] is False and line["rounds"] >= 6 and line["dense_us"] > 0
    for name, mean in written["geometric_means"]["1"].items():
        assert mean == pytest.approx(line["speed_up"][name]["median"]) and math.isfinite(mean)
    table = capsys.readouterr().out
    assert "| network | dense, µs | optimizer | traditional | paper's |" in table and "| 4.15 |" in table
    rows = [line for line in table.splitlines() if line.startswith("| lenet-5 | ")]
    assert sum("| cpu |" in row for row in rows) == 4 and sum("| gpu |" in row for row in rows) == 3
    (scalpel,) = (row.split(" | ") for row in rows if "| cpu | scalpel |" in row)
    assert scalpel[6] == "5.20 %" and float(scalpel[7]) == pytest.approx(
        line["speed_up"]["scalpel"]["median"], abs=6e-3
    )


def test_missing_networks_get_one_line(tmp_path, capsys):
    assert main(["--results", str(tmp_path), "--json", str(tmp_path / "speed.json")]) == 2
    assert "run python -m models reproduce lenet-300-100 first" in capsys.readouterr().err


def test_columns_are_in_the_tables_order():
    table = paper._table([result("nin", optimizer=1.0, traditional=0.5, optimized=1.0, scalpel=1.25)])
    headings, row = list(table.headings), list(table.rows[0])
    assert row[headings.index("traditional")] == "0.50" and row[headings.index("traditional") + 1] == "0.37"
    assert row[headings.index("scalpel")] == "1.25" and row[-1] == ""
