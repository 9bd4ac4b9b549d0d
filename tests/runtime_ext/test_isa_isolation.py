"""The sources compiled for an instruction set share no code with the rest of the library.

The linker keeps one copy of a function that two sources define, such as a template of the standard library.
Were that the copy made with AVX2, a machine without it would crash.
"""

import pytest

from tests.runtime_ext.compiler import ISA_FLAGS, RUNTIME, compile_source, run


@pytest.mark.parametrize("isa", ISA_FLAGS)
def test_only_the_table_of_kernels_leaves_the_source_of_an_instruction_set(tmp_path, isa):
    # Without optimization nothing is inlined: whatever is called shows.
    compiled = compile_source(RUNTIME / "kernels" / f"{isa}.cpp", tmp_path, "-O0")
    symbols = run("nm", "-C", "--defined-only", "--extern-only", compiled).splitlines()
    assert [line.split(maxsplit=2)[2] for line in symbols] == [f"scalpel::{isa}_kernels()"]
