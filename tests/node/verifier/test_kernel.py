"""The numbers of system calls are the kernel's own, where its headers are at hand to say so."""

import re
from pathlib import Path

import pytest

from node.verifier import kernel

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_headers(machine: str):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    known = {name: int(number) for name, number in found}
    newer = {"fchmodat2"}  # than some installed headers
    for name, number in kernel.numbers(machine).items():
        if name not in newer or name in known:
            assert known.get(name) == number, name


def test_a_machine_that_is_not_known_is_an_error_and_no_wrong_number():
    with pytest.raises(OSError, match="riscv64"):
        kernel.number_of("socket", "riscv64")


def test_a_call_that_fails_is_an_error_with_its_number():
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.system_call("setns", -1, 0)
