"""Rewrites the rows of another tool's data sets into the form that hpsearch reads. Run it once.

`hpsearch new` puts a copy of this file beside a study whose data hpsearch can't read as it is; hpsearch itself
never imports it. Rows that don't fit are left out and counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import load_dataset

Row = dict[str, Any]

PARTS: list[dict[str, Any]] = []
TO = "messages"
OUT = Path(__file__).with_suffix(".jsonl")


def rewritten(row: Row, part: dict[str, Any], number: int) -> Row | str:
    """The row in the format `TO`, or why it is left out."""
    if part["chosen"] or part["desirable"]:
        return judged(row, part, number)
    if TO == "text":
        text = row.get(part["answer"])
        return {"text": str(text)} if text else "no text"
    if TO == "prompt-completion":
        return from_template(row, part)
    messages = from_turns(row, part) if part["form"] == "turns" else from_columns(row, part)
    if isinstance(messages, str):
        return messages
    return with_images({"messages": messages}, row, part, number)


def from_columns(row: Row, part: dict[str, Any]) -> list[dict[str, str]] | str:
    question = part["between"].join(str(row[name]) for name in part["questions"] if row.get(name))
    answer = row.get(part["answer"])
    if not question or not answer:
        return "no question or no answer"
    system = row.get(part["system"]) if part["system"] else None
    before = [{"role": "system", "content": str(system)}] if system else []
    return [*before, {"role": "user", "content": question}, {"role": "assistant", "content": str(answer)}]


def from_turns(row: Row, part: dict[str, Any]) -> list[dict[str, str]] | str:
    messages = turns_of(row, part)
    if not isinstance(messages, str) and (not messages or messages[-1]["role"] != "assistant"):
        return "the last turn is not the assistant's"
    return messages


def turns_of(row: Row, part: dict[str, Any]) -> list[dict[str, str]] | str:
    messages = []
    for turn in row.get(part["messages"]) or []:
        role = part["roles"].get(turn.get(part["role"]))
        if role is None:
            return f"a turn of {turn.get(part['role'])!r}"
        messages.append({"role": role, "content": text_of(turn.get(part["content"]))})
    return messages


def judged(row: Row, part: dict[str, Any], number: int) -> Row | str:
    """Two answers to the same turns, or one with a label whether it is desirable."""
    if part["form"] == "turns":
        asked = turns_of(row, part)
        if part["desirable"] and not isinstance(asked, str):
            *asked, last = asked or [{"content": ""}]
            answers = {"answer": last["content"]}
    else:
        asked = asked_in(row, part)
        answers = {"answer": answer_of(row.get(part["answer"]), part)}
    if isinstance(asked, str):
        return asked
    if part["chosen"]:
        answers = {role: answer_of(row.get(part[role]), part) for role in ("chosen", "rejected")}
    if not asked or not all(answers.values()):
        return "no question or no answer"
    verdict = {} if part["chosen"] else {"desirable": row.get(part["desirable"])}
    return with_images({"question": asked, **answers, **verdict}, row, part, number)


def asked_in(row: Row, part: dict[str, Any]) -> list[dict[str, str]] | str:
    """The turns before the answer, from columns or from the conversation that the answer ends."""
    if not part["questions"]:
        talk = row.get(part["chosen"] or part["answer"])
        return turns_of({"talk": talk[:-1] if isinstance(talk, list) else []}, {**part, "messages": "talk"})
    found = from_columns({**row, "": "?"}, {**part, "answer": ""})
    return found if isinstance(found, str) else found[:-1]


def answer_of(value: Any, part: dict[str, Any]) -> str:
    """The answer as text: from a text, a turn, or the last turn of a conversation."""
    last = value[-1] if isinstance(value, list) and value else value
    return text_of(last.get(part["content"])) if isinstance(last, dict) else str(last or "")


def text_of(content: Any) -> str:
    """The text of typed parts, with a placeholder for each image."""
    pieces = content if isinstance(content, list) else [{"text": content}]
    return "".join(text_of_piece(piece) for piece in pieces).strip()


def text_of_piece(piece: dict[str, Any]) -> str:
    if str(piece.get("type")).startswith("image"):
        return "<image>" if TO == "image" else ""
    return str(piece.get("text") or piece.get("value") or "") if piece.get("type", "text") == "text" else ""


def from_template(row: Row, part: dict[str, Any]) -> Row | str:
    texts = [str(row.get(name) or "") for name in (*part["questions"], "")][:2]
    prompt = part["with_input"] if texts[1] else part["without_input"]
    answer = row.get(part["answer"])
    if not texts[0] or not answer:
        return "no instruction or no answer"
    parts = {"{instruction}": texts[0], "{input}": texts[1], "{system}": str(row.get(part["system"]) or "")}
    prompt = re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], prompt)  # not within the texts
    return {"prompt": prompt, "completion": str(answer)}


def with_images(made: Row, row: Row, part: dict[str, Any], number: int) -> Row | str:
    """`made` with the row's images in order. If the texts have no placeholders, hpsearch puts them before the first
    question.
    """
    if TO != "image":
        return made
    images = row.get(part["images"]) or images_in(row, part)
    images = images if isinstance(images, list) else [images]
    if None in images:
        return "an image without its path"
    return {"image": [image_path(image, part, f"{number}-{place}") for place, image in enumerate(images, 1)], **made}


def images_in(row: Row, part: dict[str, Any]) -> list[Any]:
    """Images among the typed parts of a turn's content."""
    contents = [turn.get(part["content"]) for turn in row.get(part["messages"]) or []]
    pieces = [piece for content in contents if isinstance(content, list) for piece in content]
    found = [piece for piece in pieces if str(piece.get("type")).startswith("image")]
    return [piece.get("path") or piece.get("value") or piece.get("image") or piece.get("url") for piece in found]


def image_path(image: Any, part: dict[str, Any], name: str) -> str:
    if isinstance(image, str):
        return image if "://" in image else str(Path(part["image_folder"] or ".", image))
    folder = OUT.with_suffix("")
    folder.mkdir(exist_ok=True)
    image.convert("RGB").save(folder / f"{name}.png")
    return str(Path(folder.name, f"{name}.png"))


def rows_of(part: dict[str, Any]) -> Iterator[Row]:
    rows = load_dataset(**part["load"])
    for position, row in enumerate(rows):
        if part["limit"] and position == part["limit"]:
            return
        yield dict(row)


def main() -> None:
    left_out: Counter[str] = Counter()
    written = 0
    with OUT.open("w", encoding="utf-8") as file:
        for part in PARTS:
            for row in rows_of(part):
                made = rewritten(row, part, written)
                if isinstance(made, str):
                    left_out[made] += 1
                    continue
                file.write(json.dumps(made, ensure_ascii=False) + "\n")
                written += 1
    print(f"{OUT.name}: {written} rows", *(f"left out: {count} × {why}" for why, count in left_out.items()), sep="\n")


if __name__ == "__main__":
    main()
