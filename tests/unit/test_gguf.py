"""From a merged model to GGUF and Ollama: how the converter is called, and the message if it is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hpsearch.errors import HpsearchError, InputError
from hpsearch.results.export_folder import RECORD
from hpsearch.results.final import RunFolder
from tests.unit.answer_fixtures import SEEN, draw_rows
from tests.unit.export_fixtures import CHAT, exported, files, merging, run_with_adapter
from tests.unit.opening_fixtures import Desk
from tests.unit.worker_fixtures import nobody, plays

CONVERTER = """\
import json, pathlib, sys
arguments = sys.argv[1:]
log = pathlib.Path(__file__).with_name("calls.jsonl")
with log.open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
print("INFO: loading")
if (pathlib.Path(__file__).parent / "broken").exists():
    print("NotImplementedError: BPE pre-tokenizer was not recognized", file=sys.stderr)
    sys.exit(1)
pathlib.Path(arguments[arguments.index("--outfile") + 1]).write_text("GGUF")
"""


@pytest.fixture
def folder(desk: Desk) -> RunFolder:
    return run_with_adapter(desk)


@pytest.fixture
def checkout(desk: Desk) -> Path:
    """A llama.cpp whose converter notes how it was called, with an environment."""
    path = desk.folder / "llama.cpp"
    (path / ".venv" / "bin").mkdir(parents=True)
    (path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (path / "convert_hf_to_gguf.py").write_text(CONVERTER)
    return path


def calls(checkout: Path) -> list[list[str]]:
    file = checkout / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_text_model_becomes_one_gguf_file(desk: Desk, folder: RunFolder, checkout: Path) -> None:
    told = exported(desk, folder, plays(merging()), to="gguf", llama_cpp=checkout)
    target = folder.exports / "gguf-bfloat16"
    assert files(target) == {"demo-bf16.gguf", RECORD}
    assert str(target / "demo-bf16.gguf") in told
    (call,) = calls(checkout)
    draft = Path(call[2])
    assert draft.name == "demo-bf16.gguf"
    assert not draft.parent.exists(), "it was made in a draft folder"
    merged = str(folder.exports / "merged-bfloat16")
    assert [part for part in call if part != str(draft)] == [
        merged,
        "--outfile",
        "--model-name",
        "demo",
        "--outtype",
        "bf16",
    ]


def test_a_vision_model_becomes_two_files(desk: Desk, checkout: Path) -> None:
    draw_rows(desk)
    folder = run_with_adapter(desk, *SEEN)
    target = desk.folder / "out"
    exported(desk, folder, plays(merging()), to="gguf", llama_cpp=checkout, output=target, dtype="float16")
    assert files(target) == {"demo-f16.gguf", "mmproj-demo-f16.gguf", RECORD}
    assert [("--mmproj" in call, call[-1]) for call in calls(checkout)] == [(False, "f16"), (True, "f16")]


def test_what_is_converted_already_is_not_converted_again(desk: Desk, folder: RunFolder, checkout: Path) -> None:
    exported(desk, folder, plays(merging()), to="gguf", llama_cpp=checkout)
    assert exported(desk, folder, nobody, to="gguf", llama_cpp=checkout).startswith("converted already:")
    exported(desk, folder, nobody, to="gguf", llama_cpp=checkout, force=True)
    assert len(calls(checkout)) == 2


def test_a_converter_that_fails_is_quoted_and_leaves_nothing(
    desk: Desk, folder: RunFolder, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (checkout / "broken").touch()
    with pytest.raises(HpsearchError) as raised:
        exported(desk, folder, plays(merging()), to="gguf", llama_cpp=checkout)
    log = folder.exports / "convert.txt"
    assert str(raised.value) == (
        "llama.cpp's converter failed: NotImplementedError: BPE pre-tokenizer was not recognized\n"
        f"its whole output is in {log}"
    )
    assert "INFO: loading" in log.read_text()
    assert files(folder.exports) == {"merged-bfloat16", "convert.txt"}


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (
            "option",
            "--llama-cpp is missing: it names a checkout of llama.cpp, which converts the model; git clone https://github.com/",
        ),
        ("checkout", "llama.cpp is no folder; git clone"),
        ("convert_hf_to_gguf.py", "llama.cpp has no convert_hf_to_gguf.py; git clone"),
        (
            ".venv/bin/python",
            r"--python is missing: .*\n  python3 -m venv .*/.venv && .*pip install -r .*convert_hf_to_",
        ),
    ],
)
def test_what_the_conversion_needs_is_reported_before_the_work(
    desk: Desk, folder: RunFolder, checkout: Path, missing: str, words: str
) -> None:
    given: Path | None = checkout
    if missing == "option":
        given = None
    elif missing == "checkout":
        given = checkout / "llama.cpp"
    else:
        (checkout / missing).unlink()
    with pytest.raises(InputError, match=words):
        exported(desk, folder, nobody, to="gguf", llama_cpp=given)


def test_another_python_may_be_named(desk: Desk, folder: RunFolder, checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()
    exported(desk, folder, plays(merging()), to="gguf", llama_cpp=checkout, python=Path(sys.executable))
    assert len(calls(checkout)) == 1
    with pytest.raises(InputError, match="nowhere is no file"):
        exported(desk, folder, nobody, to="gguf", llama_cpp=checkout, python=Path("nowhere"))


def test_ollama_gets_a_modelfile_that_answers_as_the_evaluation_did(desk: Desk, checkout: Path) -> None:
    folder = run_with_adapter(desk, 'data.system_prompt=Say "yes" or "no"', "study=Demo")
    told = exported(desk, folder, plays(merging()), to="ollama", llama_cpp=checkout)
    file = folder.exports / "gguf-bfloat16" / "Modelfile"
    assert file.read_text() == (
        "FROM ./Demo-bf16.gguf\n"
        f'TEMPLATE """{CHAT.template}"""\n'
        'SYSTEM """Say "yes" or "no" """\n'
        'PARAMETER stop "<end>"\n'
        'PARAMETER stop "<eos>"\n'
        "PARAMETER temperature 0\n"
        "PARAMETER num_predict 32\n"
    )
    assert f"ollama create demo -f {file}\n" in told
    assert "--quantize q4_K_M" in told


def test_a_templates_own_system_prompt_stays(desk: Desk, folder: RunFolder, checkout: Path) -> None:
    chat = CHAT.model_copy(update={"default_system": "You are Qwen."})
    exported(desk, folder, plays(merging(chat=chat)), to="ollama", llama_cpp=checkout)
    assert 'SYSTEM "You are Qwen."\n' in (folder.exports / "gguf-bfloat16" / "Modelfile").read_text()


def test_an_edited_modelfile_is_overwritten_by_force_alone(desk: Desk, folder: RunFolder, checkout: Path) -> None:
    exported(desk, folder, plays(merging()), to="ollama", llama_cpp=checkout)
    exported(desk, folder, nobody, to="ollama", llama_cpp=checkout)
    file = folder.exports / "gguf-bfloat16" / "Modelfile"
    file.write_text("FROM mine")
    with pytest.raises(InputError, match="Modelfile: is there already, and another one; --force overwrites it"):
        exported(desk, folder, nobody, to="ollama", llama_cpp=checkout)
    assert file.read_text() == "FROM mine"


def test_three_quotes_do_not_fit_into_a_modelfile(desk: Desk, checkout: Path) -> None:
    folder = run_with_adapter(desk, 'data.system_prompt=Say """yes"""')
    with pytest.raises(InputError, match="a Modelfile can't hold three quotes in a row"):
        exported(desk, folder, plays(merging()), to="ollama", llama_cpp=checkout)
