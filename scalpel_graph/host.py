"""What the system says of the processor it runs on."""

import platform
from pathlib import Path


def model_name() -> str:
    """What the processor calls itself, for people."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def processor() -> str:
    """The kind of processor: vendor, family and model number; empty where the system does not say."""
    info = _cpu_info()
    parts = [info.get(key, "") for key in ("vendor_id", "cpu family", "model")]
    return " ".join(parts) if all(parts) else ""


def _cpu_info() -> dict[str, str]:
    """The first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
