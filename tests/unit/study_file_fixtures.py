"""The smallest study file with a search, which tests of mistakes change."""

from __future__ import annotations

TEXT = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data:
  source: rows.jsonl
  columns: {question: q, answer: a}
search:
  space:
    lora.r: [8, 16]
"""
