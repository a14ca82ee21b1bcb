"""Rows as the model will see them, and the splits that they fall into."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hpsearch.data.manifest import Manifest
from hpsearch.data.places import NAMED
from hpsearch.jobs import Example, TokenPiece
from hpsearch.spec import StudySpec

_MANY = 0.1


def splits_table(spec: StudySpec, manifest: Manifest) -> RenderableType:
    table = Table(title=f"{spec.study}: rows", title_justify="left", box=None, header_style="bold")
    for heading in ("split", "rows", "in a trial", "in the final run"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    seen = {
        "train": (spec.budget.train_fraction, spec.final.train_fraction),
        "validation": (spec.budget.validation_fraction, spec.final.validation_fraction),
        "test": (0.0, 0.0),
    }
    for split, keys in manifest.splits.items():
        trial, final = (f"{round(share * len(keys))}" if share else "none" for share in seen[split])
        table.add_row(split, str(len(keys)), trial, final)
    return Group(table, *(Text(line) for line in format_left_out(manifest)), Text())


def format_left_out(manifest: Manifest) -> list[str]:
    """Notes about the data: about the rows that are used, and every reason for which rows were left out, with the first
    ids; a warning where they are many.
    """
    lines = [
        *format_num_images(manifest),
        *manifest.notes,
        *(
            f"left out: {len(ids)} × {reason} ({format_place(manifest, reason)})"
            for reason, ids in manifest.left_out.items()
        ),
    ]
    kept = sum(len(keys) for keys in manifest.splits.values())
    lost = sum(len(ids) for ids in manifest.left_out.values())
    if lost > _MANY * (kept + lost):
        share = f"careful: {lost / (kept + lost):.0%} of the rows are left out"
        too_long = any(reason.startswith("longer than") for reason in manifest.left_out)
        lines.append(f"{share}; data.max_tokens keeps longer ones" if too_long else share)
    return lines


def format_place(manifest: Manifest, reason: str) -> str:
    """Where the first rows stand that are left out for `reason`; their ids in manifests of an earlier version."""
    ids = manifest.left_out[reason]
    named = f"{', '.join(ids[:NAMED])}{' …' if len(ids) > NAMED else ''}"
    return manifest.left_out_at.get(reason) or f"row{'s' if len(ids) > 1 else ''} {named}"


def format_num_images(manifest: Manifest) -> list[str]:
    """How many rows have how many images; empty where all have none or all have one."""
    counts: Counter[int] = Counter()
    for of_split in manifest.num_images.values():
        counts.update(of_split)
    if len(counts) < 2 and set(counts) <= {0, 1}:
        return []
    return ["rows by their number of images: " + ", ".join(f"{many} × {num}" for num, many in sorted(counts.items()))]


def example_panel(example: Example, line: int | None = None) -> Panel:
    """`line`: of the row in its file."""
    total = sum(piece.num_tokens for piece in example.pieces)
    learned = sum(piece.num_tokens for piece in example.pieces if piece.is_learned)
    text = Text()
    for piece in example.pieces:
        text.append(_words(piece), style=_style(piece))
    if example.rejected:
        text.append("\nrejected: ", style="bold red")
        answer = example.rejected[-1]
        text.append(f"⟦{answer.text}⟧ {answer.num_tokens} tokens", style="red")
    if example.desirable is not None:
        text.append("\ndesirable" if example.desirable else "\nnot desirable", style="bold")
    counts = f"{total} tokens, {total - learned} masked, {learned} learned"
    images = [Path(image).name for image in example.images if Path(image).suffix]  # ours are named by checksums
    where = Text(f"  {', '.join(images)}") if images else None
    place = f" (line {line})" if line else ""
    title = Text(f"row {example.id}{place}: {counts}")  # a panel reads a plain string as markup, on any console
    return Panel(text, title=title, title_align="left", subtitle=where, subtitle_align="left")


def _words(piece: TokenPiece) -> str:
    if piece.is_image:
        return f"⟨image: {piece.num_tokens} tokens⟩"
    return f"⟦{piece.text}⟧" if piece.is_learned else piece.text


def _style(piece: TokenPiece) -> str:
    if piece.is_image:
        return "cyan"
    return "bold green" if piece.is_learned else "bright_black"
