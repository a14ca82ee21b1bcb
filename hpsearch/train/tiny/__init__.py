"""Tiny bases: the real architectures at toy size, really pretrained, for use without a hub or a GPU.

`tiny:gemma3` and its siblings are built on first use, pretrained for a minute or two on the CPU, and cached.
Their tokenizers and processors are of the real classes, so everything downstream is the real code path.
"""

from hpsearch.train.tiny.build import ensure_tiny

__all__ = ["ensure_tiny"]
