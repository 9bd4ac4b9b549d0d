"""The JSON report as documented in docs/report.md."""

# The documented interface: what each key holds. A list stands for a list of such things.
NUMBER = (int, float)
BEFORE_AFTER = {"before": int, "after": int}
CONTRACT = {
    "scalpel_graph": str,
    "input": (str, type(None)),
    "output": (str, type(None)),
    "target": str,
    "times": str,
    "weights": str,
    "verified": {
        "ok": bool,
        "max_abs_diff": (*NUMBER, type(None)),
        "max_rel_diff": (*NUMBER, type(None)),
        "runs": int,
        "custom_ops": bool,
        "fallback": bool,
        "reason": str,
    },
    "size_bytes": BEFORE_AFTER,
    "parameters": BEFORE_AFTER,
    "macs": BEFORE_AFTER,
    "layers": [
        {
            "name": str,
            "op": str,
            "decision": str,
            "group_shape": (list, type(None)),
            "density": NUMBER,
            "weight_density": NUMBER,
            "values": str,
            "rounding_error": NUMBER,
            "candidates": [
                {
                    "decision": str,
                    "group_shape": (list, type(None)),
                    "density": NUMBER,
                    "predicted_us": NUMBER,
                }
            ],
            "predicted_us": NUMBER,
            "reason": str,
        }
    ],
    "removed_nodes": [
        {
            "name": str,
            "before": int,
            "after": int,
            "possible": int,
            "parameters": BEFORE_AFTER,
            "macs": BEFORE_AFTER,
        }
    ],
    "passes": [{"name": str, "modified": bool, "seconds": NUMBER, "skipped": [{"node": str, "reason": str}]}],
    "microcontroller": (dict, type(None)),
    "quantization": (dict, type(None)),
}


def assert_follows(value, contract, place="report") -> None:
    """Fails unless ``value`` has exactly the keys and types of ``contract``."""
    if isinstance(contract, dict):
        assert list(value) == list(contract), place
        for key, inner in contract.items():
            assert_follows(value[key], inner, f"{place}.{key}")
    elif isinstance(contract, list):
        assert isinstance(value, list), place
        for i, entry in enumerate(value):
            assert_follows(entry, contract[0], f"{place}[{i}]")
    else:
        assert isinstance(value, contract), f"{place} is {value!r}"
        allowed = contract if isinstance(contract, tuple) else (contract,)
        assert bool in allowed or not isinstance(value, bool), place
