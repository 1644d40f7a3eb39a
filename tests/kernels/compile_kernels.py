"""Compile every kernel for a GPU that need not be there; print what was made of each.

Run by the tests, without Triton's interpreter.
"""

import sys
from itertools import product

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from torchcram.ops.routed_attention import triton as attention
from torchcram.ops.scan import triton as scan

INTEGERS = ("heads", "packed", "length", "span", "time", "size")
INDICES = ("end", "first", "last")
NARROW = (
    "query",
    "key",
    "value",
    "grad",
    *(f"{name}{part}" for name in ("decay", "inputs", "initial", "states") for part in ("", "_re", "_im")),
)


def compiled(kernel, element, constants):
    """Return the names of what the compiler made of a kernel, the machine code among them."""
    kinds = {
        name: "constexpr"
        if name in constants
        else "i32"
        if name in INTEGERS
        else "*i32"
        if name in INDICES
        else "*fp32"
        for name in kernel.arg_names
    }
    kinds |= {name: f"*{element}" for name in NARROW if name in kinds}
    return triton.compile(
        ASTSource(fn=kernel, signature=kinds, constexprs=constants), target=GPUTarget("cuda", 90, 32)
    ).asm


def main():
    sides = {
        "SIZE": 64,
        "BLOCK_SIZE": 64,
        "BLOCK_QUERIES": attention.BLOCK_QUERIES,
        "BLOCK_ENTRIES": attention.BLOCK_ENTRIES,
        "WIDE": tl.float32,
    }
    kernels = (attention._forward_kernel, attention._query_kernel, attention._memory_kernel)
    for kernel, (element, precision), window in product(
        kernels, (("bf16", "ieee"), ("fp32", "tf32")), (0, 128)
    ):
        asm = compiled(kernel, element, {**sides, "WINDOW": window, "PRECISION": precision})
        sys.stdout.write(f"{kernel.fn.__name__} {element} {window} {'cubin' in asm}\n")
    for kernel, element, backwards in product(
        (scan._real_kernel, scan._complex_kernel), ("bf16", "fp32"), (False, True)
    ):
        tile = {
            "BACKWARDS": backwards,
            "BLOCK_STEPS": scan.BLOCK_STEPS,
            "BLOCK_STATES": scan.BLOCK_STATES,
            "WIDE": tl.float32,
        }
        sys.stdout.write(
            f"{kernel.fn.__name__} {element} {backwards} {'cubin' in compiled(kernel, element, tile)}\n"
        )


if __name__ == "__main__":
    main()
