"""The summary that ``scalpel-opt`` prints: what changed, what was left and why, and what to do next."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scalpel_graph import formatting as show
from scalpel_graph.report import LayerDecision, RemovedNodes, Report

#: Names of layers that one line lists before it only counts the rest.
_NAMES_SHOWN = 4

#: Rows of the table of sparse layers, about.
_LAYERS_SHOWN = 12


def print_summary(out: Console, report: Report, *, verbose: bool = False) -> None:
    """Prints it.

    Args:
        out: where to.
        report: what was done.
        verbose: list the passes and every node they left alone, too.
    """
    out.print()
    heading = Text.assemble((report.input or "model", "bold"), " → ", (report.output or "(dry run)", "bold"))
    out.print(heading.append(f"  for {report.target}", "dim"))
    out.print()
    out.print(_indented(_figures(report)))
    narrower = report.narrower
    if narrower:
        out.print("\nMade narrower", style="bold")
        out.print(_indented(_narrower(narrower, every=verbose)))
    more = sum(node.after - node.possible for node in report.removed_nodes)
    if more:
        text = f"{more:,} more could go, but widths are kept that the target is faster with"
        out.print(_indented(Text(text, "dim")))
    sparse = [layer for layer in report.layers if layer.chosen.decision == "group_csr"]
    if sparse:
        of_all = f": {len(sparse)} of {show.plural(len(report.layers), 'layer')}"
        out.print(Text.assemble("\n", ("Made sparse", "bold"), of_all))
        shown = sparse if verbose else _most_saved(sparse)
        out.print(_indented(_sparse_layers(shown, report)))
        if len(shown) < len(sparse):
            rest = f"and {len(sparse) - len(shown)} more that save less time; -v lists them"
            out.print(_indented(Text(rest, "dim")))
    if report.microcontroller is not None:
        out.print("\nOn the microcontroller", style="bold")
        for line in show.on_the_microcontroller(report.microcontroller):
            out.print(_indented(Text(line)))
    if report.quantization is not None:
        out.print("\nQuantized", style="bold")
        out.print(_indented(Text(show.quantized(report.quantization))))
    stored = show.stored_values(report)
    if stored:
        out.print()
        for line in stored:
            out.print(Text(line))
    dense = show.left_dense(report.layers)
    if dense:
        out.print("\nLeft dense", style="bold")
        for reason, names in dense:
            out.print(_indented(Text.assemble(f"{reason}: ", (_some(names), "dim"))))
    if not report.layers and not narrower:
        out.print("\nNo layer to make sparse: no Conv, Gemm or MatMul with constant weights was considered.")
    if verbose:
        out.print("\nPasses", style="bold")
        out.print(_indented(_passes(report)))
    out.print()
    out.print(_verdict(report))
    _print_next_step(out, report)


def _figures(report: Report) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("", overflow="fold")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for name, figure, unit in (
        ("file", report.size_bytes, show.size),
        ("parameters", report.parameters, show.count),
        ("multiply-accumulates", report.macs, show.count),
    ):
        table.add_row(name, unit(figure.before), unit(figure.after), show.change(figure.before, figure.after))
    if report.predicted_us:
        before, after = report.predicted_us
        gain = f"{before / after:.1f}×" if after > 0 else ""
        table.add_row(
            f"{report.times} time, these layers", show.microseconds(before), show.microseconds(after), gain
        )
    return table


def _narrower(nodes: Sequence[RemovedNodes], *, every: bool) -> Text:
    """How many channels the layers lost together, and the layers with their widths."""
    before, after = sum(node.before for node in nodes), sum(node.after for node in nodes)
    widths = [f"{node.name} {node.before} → {node.after}" for node in nodes]
    total = f"{before - after:,} of {before:,} channels of {show.plural(len(nodes), 'layer')} removed: "
    return Text.assemble(total, (", ".join(widths) if every else _some(widths), "dim"))


def _most_saved(layers: Sequence[LayerDecision]) -> Sequence[LayerDecision]:
    """The layers whose change saves most time, in their order in the network; all if there are few."""
    if len(layers) <= _LAYERS_SHOWN + 2:
        return layers
    by_saving = sorted(layers, key=lambda layer: layer.chosen.predicted_us - (layer.dense_us or 0))
    kept = {id(layer) for layer in by_saving[:_LAYERS_SHOWN]}
    return [layer for layer in layers if id(layer) in kept]


def _sparse_layers(layers: Sequence[LayerDecision], report: Report) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("group")
    table.add_column("stored", justify="right")
    table.add_column(report.times, justify="right")
    table.add_column("against dense", justify="right")
    if report.weights != "fp32":
        table.add_column("weights")
    for layer in layers:
        cells: list[str | Text] = [
            Text(layer.name),
            layer.op,
            show.group_shape(layer.chosen),
            show.fraction(layer.chosen.density),
            show.microseconds(layer.chosen.predicted_us),
            Text(show.speed_up(layer), "green"),
        ]
        table.add_row(*cells, *([layer.values.type] if report.weights != "fp32" else []))
    return table


def _passes(report: Report) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    for run in report.passes:
        table.add_row(
            Text(run.name, "bold"),
            "changed the graph" if run.modified else Text("nothing to do", "dim"),
            show.microseconds(run.seconds * 1e6),
        )
        for skip in run.skipped:
            table.add_row("", Text(f"{skip.node}: {skip.reason}", "dim", overflow="fold"), "")
    return table


def _verdict(report: Report) -> Text:
    verified = report.verified
    if not report.modified:
        return Text(
            f"Unchanged: {verified.reason or 'nothing here gets faster by being made sparse'}.", "yellow"
        )
    if not verified.ok:
        return Text(f"Not checked: {verified.reason}.", "yellow")
    ways = [
        way
        for way, done in (("with our operators", verified.custom_ops), ("as plain ONNX", verified.fallback))
        if done
    ]
    if report.microcontroller is not None:
        same = f"✓ The same bytes {' and '.join(ways)}, and as the device computes them."
        return Text(same, "green")
    runs = show.plural(verified.runs, "run")
    if report.quantization is not None and not ways:
        return Text("Nothing else changed: no layer of the quantized network is sparse.", "yellow")
    difference = f"largest difference {verified.max_abs_diff:.2g}"
    if report.rounded:
        return Text(
            f"✓ Answers as {report.weights} weights explain them in {runs}, {' and '.join(ways)}:"
            f" {difference}, {100 * verified.max_rel_diff:.2g} % of the largest.",
            "green",
        )
    than = "" if report.quantization is None else " as the quantized network"
    return Text(f"✓ Same answers{than} in {runs}, {' and '.join(ways)}: {difference}.", "green")


def _print_next_step(out: Console, report: Report) -> None:
    if report.output is None:
        out.print("Nothing was written (--dry-run).")
    else:
        out.print(f"Wrote {report.output}, {show.size(report.size_bytes.after)}.")
    if report.output is None or not any(layer.chosen.group_shape for layer in report.layers):
        return
    out.print("\nTo run it on the sparse kernels (without them it runs too, at dense speed):", style="dim")
    lines = (
        "options = onnxruntime.SessionOptions()",
        "options.register_custom_ops_library(scalpel_graph.custom_op_library())",
        f"session = onnxruntime.InferenceSession({report.output!r}, options)",
    )
    for line in lines:
        out.print(f"  {line}", soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    shown = len(names) if len(names) <= _NAMES_SHOWN + 1 else _NAMES_SHOWN
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest else "")


def _indented(what: Table | Text) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)
