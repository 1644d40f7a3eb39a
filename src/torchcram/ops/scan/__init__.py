"""Gated linear recurrence: ``reference`` is the definition, ``chunked`` the fast form that the library
uses, ``triton`` its kernel for GPUs.
"""

from torchcram.ops.scan.chunked import scan, scan_planes
from torchcram.ops.scan.reference import scan_reference

__all__ = ["scan", "scan_planes", "scan_reference"]
