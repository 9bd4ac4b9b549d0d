"""The summary that ``scalpel-prune`` prints: what became zero, what that cost, and what to do next."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scalpel_graph import formatting as show
from scalpel_graph.pruning.agreement import Agreement
from scalpel_graph.pruning.report import LayerReport, PruneReport

#: Rows of the table of layers, about.
_LAYERS_SHOWN = 14


def print_summary(out: Console, report: PruneReport, *, verbose: bool = False) -> None:
    """Prints it.

    Args:
        out: where to.
        report: what was done.
        verbose: list every layer.
    """
    out.print()
    heading = Text.assemble((report.input or "model", "bold"), " → ", (report.output or "(dry run)", "bold"))
    out.print(heading.append(f"  for {report.target}", "dim"))
    out.print()
    out.print(_indented(_figures(report)))
    pruned = report.pruned
    if pruned:
        of_all = f": {len(pruned)} of {show.plural(len(report.layers), 'layer')}"
        out.print(Text.assemble("\n", ("Pruned", "bold"), of_all))
        shown = pruned if verbose else _worst(pruned)
        out.print(_indented(_layers(shown, fitted=bool(report.calibration))))
        if len(shown) < len(pruned):
            rest = f"and {len(pruned) - len(shown)} more with smaller errors; -v lists them"
            out.print(_indented(Text(rest, "dim")))
    left = [layer for layer in report.layers if layer.error is None]
    if left:
        out.print("\nLeft as they were", style="bold")
        reasons: dict[str, list[str]] = {}
        for layer in left:
            reasons.setdefault(layer.reason, []).append(layer.name)
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            listed = names if verbose or len(names) <= 4 else [*names[:4], f"and {len(names) - 4} more"]
            out.print(_indented(Text.assemble(f"{reason}: ", (", ".join(listed), "dim"))))
    if report.agreement is not None:
        out.print(f"\nAnswers, on {report.agreement.samples} {report.agreement.inputs} inputs", style="bold")
        out.print(_indented(_answers(report.agreement)))
    out.print()
    if report.output is None:
        out.print("Nothing was written (--dry-run).")
    else:
        out.print(f"Wrote {report.output}. To make its zeros pay:", soft_wrap=True)
        out.print(f"  scalpel-opt {report.output} fast.onnx --target {report.target}", soft_wrap=True)


def _figures(report: PruneReport) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("", overflow="fold")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for name, figure, unit in (
        ("weights that are not zero", report.weights, show.count),
        ("bytes of these layers, once optimized", report.size_bytes, show.size),
    ):
        table.add_row(name, unit(figure.before), unit(figure.after), show.change(figure.before, figure.after))
    if report.predicted_us:
        before, after = report.predicted_us
        gain = f"{before / after:.1f}×" if after > 0 else ""
        table.add_row(
            "predicted time, these layers", show.microseconds(before), show.microseconds(after), gain
        )
    return table


def _worst(layers: Sequence[LayerReport]) -> Sequence[LayerReport]:
    """The layers with the largest errors, in their order in the network; all if there are few."""
    if len(layers) <= _LAYERS_SHOWN + 2:
        return layers
    by_error = sorted(layers, key=lambda layer: -(layer.error or 0))
    kept = {id(layer) for layer in by_error[:_LAYERS_SHOWN]}
    return [layer for layer in layers if id(layer) in kept]


def _layers(layers: Sequence[LayerReport], *, fitted: bool) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("zeros in")
    table.add_column("nodes", justify="right")
    table.add_column("weights left", justify="right")
    table.add_column("error of output" if fitted else "weight lost", justify="right")
    table.add_column("predicted", justify="right")
    for layer in layers:
        nodes = f"{layer.nodes.before} → {layer.nodes.after}"
        table.add_row(
            Text(layer.name),
            layer.op,
            show.technique(layer),
            nodes if layer.nodes.after < layer.nodes.before else "",
            show.fraction(layer.weight_density),
            show.fraction(layer.error or 0.0),
            show.faster(layer.dense_us, layer.sparse_us),
        )
    return table


def _answers(found: Agreement) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    for heading in ("output", "same top-1", "cosine", "largest difference"):
        table.add_column(heading, justify="left" if heading == "output" else "right", overflow="fold")
    for output in found.outputs:
        top1 = "" if output.top1 is None else show.fraction(output.top1)
        table.add_row(Text(output.name), top1, f"{output.cosine:.4f}", f"{output.max_abs_diff:.3g}")
    if found.accuracy_before is not None and found.accuracy_after is not None:
        table.add_row(
            "accuracy", f"{show.fraction(found.accuracy_before)} → {show.fraction(found.accuracy_after)}"
        )
    return table


def _indented(what: Table | Text) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)
