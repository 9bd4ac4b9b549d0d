import pytest

from scalpel_graph import host

X86 = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: Some CPU\n\nmodel\t: 3\n"
ARM = (
    "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n\n"
)


@pytest.mark.parametrize(
    ("text", "processor"), [(X86, "AuthenticAMD 26 2"), (ARM, "0x41 0xd08"), ("", ""), ("model : 3\n", "")]
)
def test_the_kind_of_processor(monkeypatch, tmp_path, text, processor):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(host, "_CPU_INFO", tmp_path / "cpuinfo")
    assert host.processor() == processor
    assert host.model_name()


def test_a_system_without_the_file_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "_CPU_INFO", tmp_path / "missing")
    assert host.processor() == ""
    assert host.model_name()
