import dataclasses
import html.parser
import json
import math

import pytest

from scalpel_graph import formatting, report_html
from scalpel_graph.report import (
    BeforeAfter,
    Candidate,
    LayerDecision,
    PassRun,
    RemovedNodes,
    Report,
    SkippedNode,
)
from scalpel_graph.value_types import Storage
from scalpel_graph.verify import Verification
from tests.report_contract import CONTRACT, assert_follows

DENSE = Candidate("dense", None, 1.0, 90.0)
SPARSE = Candidate("group_csr", (1, 8), 0.125, 30.0)


def a_report(**changes) -> Report:
    report = Report(
        version="1.2.3",
        input="in.onnx",
        output="out.onnx",
        target="cpu",
        times="predicted",
        weights="fp32",
        verified=Verification(
            ok=True, max_abs_diff=1e-6, max_rel_diff=2e-6, runs=3, custom_ops=True, fallback=True, reason=""
        ),
        size_bytes=BeforeAfter(1000, 200),
        parameters=BeforeAfter(250, 40),
        macs=BeforeAfter(5000, 800),
        layers=[
            LayerDecision("fc1", "Gemm", SPARSE, 0.1, [DENSE, SPARSE], "3.0x faster"),
            LayerDecision("fc2", "MatMul", DENSE, 0.9, [DENSE], "too few zeros"),
            LayerDecision("fc3", "MatMul", DENSE, 0.8, [DENSE], "too few zeros"),
        ],
        removed_nodes=[
            RemovedNodes("conv1", 64, 40, 37, BeforeAfter(1728, 1080), BeforeAfter(86700864, 54188040))
        ],
        passes=[PassRun("fuse-bias", True, 0.25, [SkippedNode("fc3", "its output is <read> twice & kept")])],
    )
    return dataclasses.replace(report, **changes)


def test_json_follows_the_contract_and_survives_a_round_trip():
    written = a_report().to_json()
    assert_follows(written, CONTRACT)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["layers"][0] == {
        "name": "fc1",
        "op": "Gemm",
        "decision": "group_csr",
        "group_shape": [1, 8],
        "density": 0.125,
        "weight_density": 0.1,
        "values": "fp32",
        "rounding_error": 0.0,
        "candidates": [
            {"decision": "dense", "group_shape": None, "density": 1.0, "predicted_us": 90.0},
            {"decision": "group_csr", "group_shape": [1, 8], "density": 0.125, "predicted_us": 30.0},
        ],
        "predicted_us": 30.0,
        "reason": "3.0x faster",
    }


def a_rounded_report() -> Report:
    fc1, fc2, fc3 = a_report().layers
    refused = Storage(reason="a weight of 1e+05 is too large for fp16")
    layers = [
        dataclasses.replace(fc1, values=Storage("fp16", 2.5e-4)),
        dataclasses.replace(fc1, name="fc1b", values=refused),
        fc2,
        fc3,
    ]
    return a_report(weights="fp16", layers=layers)


def test_values_of_16_bits_are_in_the_report():
    written = a_rounded_report().to_json()
    assert_follows(written, CONTRACT)
    assert written["weights"] == "fp16"
    assert [(layer["values"], layer["rounding_error"]) for layer in written["layers"]] == [
        ("fp16", 2.5e-4),
        ("fp32", 0.0),
        ("fp32", 0.0),
        ("fp32", 0.0),
    ]
    lines = [
        "Weights as fp16 in 1 of 2 sparse layers: those of an output are off by at most 2.5e-04 of their"
        " norm",
        "Weights as float32 in fc1b: a weight of 1e+05 is too large for fp16",
    ]
    assert formatting.stored_values(a_rounded_report()) == lines
    text = " ".join(Page(report_html.render(a_rounded_report())).text.split())
    assert all(line in text for line in lines) and "which fp16 weights explain" in text
    assert formatting.stored_values(a_report()) == []
    (line,) = formatting.stored_values(a_report(weights="bf16", layers=[]))
    assert line == "Weights as bf16: no effect, since no layer is sparse"


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_json_has_no_number_that_json_does_not_have(number):
    verified = dataclasses.replace(a_report().verified, max_abs_diff=number, max_rel_diff=number)
    written = a_report(verified=verified).to_json()
    assert json.loads(json.dumps(written, allow_nan=False))["verified"]["max_abs_diff"] is None
    assert_follows(written, CONTRACT)


def test_predicted_time_sums_the_layers():
    assert a_report().predicted_us == (270.0, 210.0)
    assert a_report(layers=[]).predicted_us is None


def test_layers_left_dense_are_grouped_by_reason_with_the_ranges_of_its_numbers():
    def dense(name: str, reason: str) -> LayerDecision:
        return LayerDecision(name, "Gemm", DENSE, 0.5, [DENSE], reason)

    layers = [
        dense("a", "weights are shared"),
        dense("b", "9.5% non-zero in 1×8"),
        dense("c", "10% non-zero in 1×8"),
        a_report().layers[0],
        dense("d", ""),
    ]
    assert formatting.left_dense(layers) == [
        ("9.5–10% non-zero in 1×8", ["b", "c"]),
        ("weights are shared", ["a"]),
        ("no reason given", ["d"]),
    ]


class Page(html.parser.HTMLParser):
    """Collects text and outside references, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.text, self.links = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_well_formed_self_contained_and_escaped():
    text = report_html.render(a_report(input="<b>odd & name</b>.onnx"))
    page = Page(text)
    assert page.open == []
    assert page.links == []
    assert "@import" not in text
    assert "url(" not in text
    assert "<b>odd & name</b>.onnx" in page.text
    assert "<b>odd" not in text
    for words in (
        "fc1",
        "1×8",
        "3.0x faster",
        "too few zeros",
        "fuse-bias",
        "its output is <read> twice & kept",
        "1.73 k",
        "54.2 M",
    ):
        assert words in page.text
    assert "−80.0 %" in page.text
    assert "1 layer made narrower, 1 of 3 layers made sparse" in " ".join(page.text.split())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"passes": [], "layers": []}, "Unchanged"),
        ({"layers": [], "macs": BeforeAfter(0, 0), "size_bytes": BeforeAfter(0, 0)}, "Verified"),
        ({"input": None, "output": None}, "model given in memory"),
    ],
)
def test_html_of_reports_that_lack_something(changes, words):
    assert words in Page(report_html.render(a_report(**changes))).text


def test_html_says_when_nothing_was_verified():
    verified = dataclasses.replace(a_report().verified, ok=False, reason="the check was turned off")
    text = Page(report_html.render(a_report(verified=verified))).text
    assert "Not verified: the check was turned off" in text
    assert "✓" not in text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.size(0), "0 B"),
        (formatting.size(999), "999 B"),
        (formatting.size(1000), "1 kB"),
        (formatting.size(999_600), "1 MB"),
        (formatting.size(97_500_000), "97.5 MB"),
        (formatting.size(3 * 10**15), "3e+03 TB"),
        (formatting.count(999), "999"),
        (formatting.count(25_610_152), "25.6 M"),
        (formatting.change(200, 50), "−75.0 %"),
        (formatting.change(200, 300), "+50.0 %"),
        (formatting.change(200, 200), "±0 %"),
        (formatting.change(0, 7), ""),
        (formatting.microseconds(0.5), "0.5 µs"),
        (formatting.microseconds(999.6), "1 ms"),
        (formatting.microseconds(3_420), "3.42 ms"),
        (formatting.microseconds(2_500_000), "2.5 s"),
        (formatting.group_shape(SPARSE), "1×8"),
        (formatting.group_shape(DENSE), "dense"),
        (formatting.plural(1, "layer"), "1 layer"),
        (formatting.plural(2, "pass"), "2 passes"),
    ],
)
def test_figures_as_people_read_them(shown, expected):
    assert shown == expected


def test_speed_up_is_against_dense():
    fc1, fc2, _ = a_report().layers
    assert formatting.speed_up(fc1) == "3.0×"
    assert formatting.speed_up(fc2) == "1.0×"
    assert formatting.speed_up(dataclasses.replace(fc1, candidates=[SPARSE])) == ""
