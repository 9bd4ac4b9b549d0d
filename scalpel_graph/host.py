"""What the system says of the processor it runs on."""

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def model_name() -> str:
    """What the processor calls itself, for people."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def processor() -> str:
    """The kind of processor; empty where the system does not say.

    On x86 vendor, family and model number, on Arm vendor and part.
    """
    info = _cpu_info()
    for keys in (("vendor_id", "cpu family", "model"), ("CPU implementer", "CPU part")):
        parts = [info.get(key, "") for key in keys]
        if all(parts):
            return " ".join(parts)
    return ""


def _cpu_info() -> dict[str, str]:
    """The first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
