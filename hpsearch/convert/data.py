"""From data sets to `data:`: read as they are if possible, else through a script that rewrites their rows."""

from __future__ import annotations

from pathlib import Path
from pprint import pformat

from hpsearch.convert.draft import Draft
from hpsearch.convert.file import NotKept
from hpsearch.convert.parts import Part

FILL_IN = "FILL_IN.jsonl"
SPLIT_SHARE = 0.1
WHOLE_TEXTS = "texts longer than max_tokens are left out, not cut into pieces"


def put_data(draft: Draft, script: Path, validation: float) -> str | None:
    """Fills `data:`; returns the text of the conversion script where the study needs one.

    `validation` is the share of the rows, or 0 where the file keeps none.
    """
    parts = _that_fit_together(draft)
    single = parts[0] if len(parts) == 1 else None
    columns = single.columns() if single and not draft.has_images else None
    if single and columns:
        draft.set("data.source", single.name)
        if single.config:
            draft.set("data.config", single.config)
        if single.prompt:
            draft.set("data.prompt", single.prompt)
        draft.set("data.columns", columns, WHOLE_TEXTS if single.form == "text" else None)
        _put_split(draft, None if single.is_local else single.split, validation)
        return None
    if not parts or any(part.form == "unknown" for part in parts):
        draft.set("data.source", parts[0].name if parts else FILL_IN, "to be filled in, see above")
        draft.set("data.columns", _placeholder(draft), "to be filled in, see above")
        _put_split(draft, None, validation)
        return None
    target = _target(draft, parts)
    text = _script(parts, target)
    rewritten = script.with_suffix(".jsonl").name
    draft.set("data.source", rewritten, f"{script.name} writes it")
    draft.set("data.columns", _written_columns(target, parts))
    _put_split(draft, None, validation)
    names = ", ".join(part.name for part in parts)
    draft.to_do.insert(
        0,
        f"run `python {script}` once: hpsearch can't read the rows of {names} as they are, so it rewrites them "
        f"into {rewritten}",
    )
    return text


def _that_fit_together(draft: Draft) -> list[Part]:
    """Rows with an image and rows without, or rows in an unknown format, don't make one study."""
    known = [part for part in draft.parts if part.form != "unknown"]
    parts = known or draft.parts[:1]
    if draft.has_images:
        parts = [part for part in parts if part.images] or parts
    asking = [part for part in parts if part.form != "text"]
    for part in [part for part in parts if part.form == "text"] if asking else []:
        draft.not_kept.append(NotKept((f"data set {part.name}",), "plain text does not go with questions and answers"))
    for part in draft.parts:
        if part in parts:
            continue
        why = "its rows are of an unknown kind" if part.form == "unknown" else "its rows have no image"
        draft.not_kept.append(NotKept((f"data set {part.name}",), f"{why}, unlike those of the others"))
    return asking or parts


def _target(draft: Draft, parts: list[Part]) -> str:
    if draft.has_images:
        return "image"
    if all(part.form == "text" for part in parts):
        return "text"
    return "prompt-completion" if all(part.form == "template" for part in parts) else "messages"


def _written_columns(target: str, parts: list[Part]) -> dict[str, str]:
    if parts[0].is_judged:
        answers = ("chosen", "rejected") if parts[0].chosen else ("answer", "desirable")
        return {role: role for role in (*(("image",) if target == "image" else ()), "question", *answers)}
    roles = {
        "image": ("image", "messages"),
        "prompt-completion": ("prompt", "completion"),
        "messages": ("messages",),
        "text": ("text",),
    }
    return {role: role for role in roles[target]}


def _placeholder(draft: Draft) -> dict[str, str]:
    names = ["image", "question", "answer"] if draft.has_images else ["question", "answer"]
    names = ["text"] if draft.is_plain else names
    if draft.learns == "preference":
        names = [*names[:-1], "chosen", "rejected"]
    if draft.values["preference"].get("loss") == "kto":
        names = [*names[:-2], "answer", "desirable"]
    return {name: name for name in names}


def _put_split(draft: Draft, hub_split: str | None, validation: float) -> None:
    """A hub data set keeps the file's split; a local file is split by shares."""
    share = validation if 0 < validation < 0.5 else SPLIT_SHARE
    comment = None
    if share != validation:
        comment = "the file keeps no rows for validation; a search needs some"
    if hub_split is not None:
        split = {"column": "split", "train": hub_split, "validation": share, "test": share}
    else:
        split = {"train": round(1 - 2 * share, 6), "validation": share, "test": share}
    draft.set("data.split", split, comment)


def _script(parts: list[Part], target: str) -> str:
    """The conversion script with its data sets filled in."""
    text = Path(__file__).with_name("rewrite_rows.py").read_text(encoding="utf-8")
    listed = pformat([part.for_script() for part in parts], width=110, sort_dicts=False)
    text = text.replace("PARTS: list[dict[str, Any]] = []", f"PARTS: list[dict[str, Any]] = {listed}")
    return text.replace('TO = "messages"', f'TO = "{target}"')
