"""Axolotl's `datasets:`: how each of its types reads a row (src/axolotl/prompt_strategies, prompters.py)."""

from __future__ import annotations

from typing import Any

from hpsearch.convert.draft import Draft
from hpsearch.convert.file import ForeignFile, NotKept
from hpsearch.convert.parts import ROLES, Part
from hpsearch.convert.preferences import axolotl_part

_TASK = "Below is an instruction that describes a task"
_WITH = f"{_TASK}, paired with an input that provides further context."
_WRITE = "Write a response that appropriately completes the request."
_INSTRUCT = (
    f"{_WITH} {_WRITE}\n\n### Instruction:\n{{instruction}}\n\n### Input:\n{{input}}\n\n### Response:\n",
    f"{_TASK}. {_WRITE}\n\n### Instruction:\n{{instruction}}\n\n### Response:\n",
)
_CHAT = (
    f"SYSTEM: {_WITH} {_WRITE}\nUSER: {{instruction}}\n{{input}}\nASSISTANT:",
    f"SYSTEM: {_TASK}. {_WRITE}\nUSER: {{instruction}}\nASSISTANT:",
)
_ALPACA = {"alpaca": _INSTRUCT, "alpaca:instruct": _INSTRUCT, "alpaca:chat": _CHAT}
_FILES = (".json", ".jsonl", ".csv", ".parquet")
_PREFERENCES = ("bradley_terry", "dpo", "orpo", "kto", "stepwise_supervised", "chatml.", "llama3.")


def put_parts(draft: Draft, method: str = "") -> None:
    """`method`: the preference method, if any."""
    file = draft.file
    pretrains = file.take("pretraining_dataset")
    listed = pretrains or file.take("datasets")
    entries = [{"path": item} if isinstance(item, str) else item for item in listed] if isinstance(listed, list) else []
    if not entries or not all(isinstance(entry, dict) and entry.get("path") for entry in entries):
        file.refuse("datasets: expected a list of data sets, each with a path and a type")
    for given in entries:
        entry = ForeignFile(file.path, {"type": "pretrain", **given} if pretrains else given)
        draft.parts.append(_judged(draft, entry, method) if method else _part(draft, entry))
        entry.take("trust_remote_code")
        keys = tuple(f"datasets.{key}" for left in entry.left_over(()) for key in left.keys)
        if keys:
            draft.not_kept.append(NotKept(keys, f"not followed for {given['path']}"))
    if file.number("val_set_size", 0.0) >= 1:
        draft.drop("val_set_size", "hpsearch splits by shares; 0.1 of the rows instead")


def _part(draft: Draft, entry: ForeignFile) -> Part:
    file = draft.file
    where = _where(draft, entry)
    kind = entry.take("type")
    if isinstance(kind, dict):
        return _user_defined(ForeignFile(file.path, kind), where)
    name = str(kind or "")
    if name.startswith(_PREFERENCES):
        file.refuse(f"data of type {name} hold preferences or rewards, and the file says no method (rl)")
    if name in ("completion", "pretrain"):
        column = entry.text("field") or entry.text("text_column") or "text"
        return Part(form="text", answer=column, **where)
    if name.startswith("alpaca"):
        if name not in _ALPACA:
            draft.not_kept.append(NotKept((f"type: {name}",), "the prompt is worded as for type: alpaca"))
        with_input, without_input = _ALPACA.get(name, _INSTRUCT)
        fields: dict[str, Any] = {"questions": ("instruction", "input"), "answer": "output"}
        return Part(form="template", with_input=with_input, without_input=without_input, **fields, **where)
    if name.startswith(("chat_template", "sharegpt")) or draft.has_images:
        return _turns(entry, where, is_sharegpt=name.startswith("sharegpt"), has_images=draft.has_images)
    return _unknown(draft, name, where)


def _judged(draft: Draft, entry: ForeignFile, method: str) -> Part:
    where, name = _where(draft, entry), str(entry.take("type") or "")
    turns = _turns(entry, where, is_sharegpt=False, has_images=draft.has_images)
    return axolotl_part(entry, name, where, turns, method) or _unknown(draft, name, where)


def _unknown(draft: Draft, name: str, where: dict[str, Any]) -> Part:
    shown = f"type: {name}" if name else "no type: its rows are tokens already"
    draft.to_do.append(
        f"data.columns: hpsearch does not know how rows of {where['name']} look ({shown}); name their columns, "
        "question and answer, or prompt and completion, or messages (role and content); where they have none of "
        "these, rewrite them into a JSONL that has"
    )
    return Part(form="unknown", **where)


def _where(draft: Draft, entry: ForeignFile) -> dict[str, Any]:
    """The source of the rows: a file or folder on this machine, or a data set on the hub."""
    file, path, files = draft.file, str(entry.take("path")), entry.names("data_files")
    entry.take("ds_type")
    if path in ("json", "csv", "parquet") and len(files) == 1:
        path, files = files[0], []
    found = file.find(path)
    looks_local = path.endswith(_FILES) or path.startswith((".", "/", "~"))
    if found is None and looks_local:
        draft.to_do.append(f"data.source: there is no {path} here or in a folder above the file; say where it is")
    return {
        "name": str(found.resolve()) if found else path,
        "is_local": found is not None or looks_local,
        "config": entry.text("name"),
        "split": entry.text("split") or "train",
        "data_files": tuple(files),
        "revision": entry.text("revision"),
    }


def _turns(entry: ForeignFile, where: dict[str, Any], *, is_sharegpt: bool, has_images: bool) -> Part:
    """`message_field_*` are older names for `message_property_mappings`; sharegpt is the old name of from and value."""
    properties = entry.section("message_property_mappings")
    usual = ("from", "value", "conversations") if is_sharegpt else ("role", "content", "messages")
    said_as = ForeignFile(entry.path, entry.section("roles"))
    roles = ROLES | {said: meant for meant in said_as.values for said in said_as.names(meant)}
    return Part(
        form="turns",
        messages=entry.text("field_messages") or usual[2],
        role=str(properties.get("role") or entry.text("message_field_role") or usual[0]),
        content=str(properties.get("content") or entry.text("message_field_content") or usual[1]),
        roles=tuple(roles.items()),
        images="images" if has_images else None,
        **where,
    )


def _user_defined(kind: ForeignFile, where: dict[str, Any]) -> Part:
    """A `type:` with its own fields and formats; its system prompt comes before them."""
    before = kind.text("system_prompt") or ""
    if before:
        before = (kind.text("system_format") or "{system}").replace("{system}", before)
    with_input = kind.text("format") or "{instruction} {input} "
    without_input = kind.text("no_input_format") or ("{instruction} " if "{input}" in with_input else with_input)
    return Part(
        form="template",
        questions=(kind.text("field_instruction") or "instruction", kind.text("field_input") or "input"),
        answer=kind.text("field_output") or "output",
        system=kind.text("field_system"),
        with_input=before + with_input,
        without_input=before + without_input,
        **where,
    )
