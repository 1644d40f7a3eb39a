"""Gated linear recurrence: ``reference`` is the definition, ``chunked`` the fast form that the library uses."""

from torchcram.ops.scan.chunked import scan
from torchcram.ops.scan.reference import scan_reference

__all__ = ["scan", "scan_reference"]
