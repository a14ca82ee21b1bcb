"""From a merged model to GGUF, with the llama.cpp checkout that a person names, and on to Ollama."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import HpsearchError, InputError
from hpsearch.files import write_text
from hpsearch.jobs import ExportResult, Tell
from hpsearch.results.export_folder import Dtype, check_target, made_of, new_export, write_record
from hpsearch.results.final import RunFolder
from hpsearch.results.merge import Merged
from hpsearch.spec.study import StudySpec

_SCRIPT = "convert_hf_to_gguf.py"
_REQUIREMENTS = f"requirements/requirements-{_SCRIPT.removesuffix('.py')}.txt"
_OUTTYPES: dict[Dtype, str] = {"bfloat16": "bf16", "float16": "f16"}


@dataclass(frozen=True)
class LlamaCpp:
    """A checkout of llama.cpp, and a Python with the packages of its converter."""

    script: Path
    python: Path


@dataclass(frozen=True)
class Gguf:
    """`files`: the model, and its vision encoder and projector where it has one."""

    folder: Path
    files: list[Path]
    result: ExportResult
    is_new: bool


def find_llama_cpp(checkout: Path | None, python: Path | None) -> LlamaCpp:
    """Raises InputError with how to get what is missing."""
    get = "git clone https://github.com/ggml-org/llama.cpp"
    if checkout is None:
        raise InputError(f"--llama-cpp is missing: it names a checkout of llama.cpp, which converts the model; {get}")
    script = checkout / _SCRIPT
    if not script.is_file():
        what = f"has no {_SCRIPT}" if checkout.is_dir() else "is no folder"
        raise InputError(f"--llama-cpp: {checkout} {what}; {get}")
    if python is None:
        found = [checkout / name / "bin" / "python" for name in (".venv", "venv")]
        python = next((path for path in found if path.exists()), None)
    if python is None or not python.is_file():
        why = "is missing" if python is None else f"{python} is no file"
        raise InputError(
            f"--python {why}: the converter needs an environment of its own, with other versions than hpsearch:\n"
            f"  python3 -m venv {checkout}/.venv && {checkout}/.venv/bin/pip install -r {checkout}/{_REQUIREMENTS}"
        )
    return LlamaCpp(script.absolute(), python.absolute())


def check_convertible(spec: StudySpec) -> None:
    """Raises InputError for a run that is no language model."""
    if spec.task_facts.has("head"):
        raise InputError(
            "a GGUF can't hold a classification head: export with --to merged, where it lies beside the model"
        )


def convert(
    folder: RunFolder, merged: Merged, target: Path, dtype: Dtype, llama_cpp: LlamaCpp, tell: Tell, *, force: bool
) -> Gguf:
    """The merged model as GGUF: one file, or two for a vision-language model.

    Raises:
        InputError: the target holds something else.
        HpsearchError: the converter failed.
    """
    spec = folder.load()[0].spec
    kind = _OUTTYPES[dtype]
    runs = {f"{spec.study}-{kind}.gguf": ["--outtype", kind]}
    if spec.data.columns.image:
        # The vision encoder is mostly unchanged by training, and not every backend computes its layers in bf16.
        runs[f"mmproj-{spec.study}-f16.gguf"] = ["--mmproj", "--outtype", "f16"]
    made = made_of(folder, "gguf", dtype)
    files = [target / name for name in runs]
    if check_target(target, made, force=force):
        return Gguf(target, files, merged.result, is_new=False)
    log = folder.exports / "convert.txt"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    with new_export(target) as draft:
        for name, options in runs.items():
            tell(f"converting: {name}", 0, 0)
            arguments = [str(merged.folder), "--outfile", str(draft / name), "--model-name", spec.study, *options]
            _run(llama_cpp, arguments, draft / name, log)
        write_record(draft, made, merged.result)
    return Gguf(target, files, merged.result, is_new=True)


def _run(llama_cpp: LlamaCpp, arguments: Sequence[str], made: Path, log: Path) -> None:
    command = [str(llama_cpp.python), str(llama_cpp.script), *arguments]
    # Otherwise Python writes what was printed before an error behind it.
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode or not made.exists():
        words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise HpsearchError(f"llama.cpp's converter failed: {words[-1].strip()}\nits whole output is in {log}")


def write_modelfile(gguf: Gguf, spec: StudySpec, *, force: bool) -> Path:
    """The Modelfile beside the GGUF files: answers are as in the evaluation, greedy and with the same prompt.

    Raises:
        InputError: another one is there.
    """
    file = gguf.folder / "Modelfile"
    system = spec.data.system_prompt or gguf.result.chat.default_system
    lines = [f"FROM ./{path.name}" for path in gguf.files]
    lines += [f"TEMPLATE {_quoted(gguf.result.chat.template)}"]
    lines += [f"SYSTEM {_quoted(system)}"] if system else []
    lines += [f"PARAMETER stop {_quoted(token)}" for token in gguf.result.chat.stop]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_predict {spec.evaluation.max_new_tokens}"]
    text = "\n".join(lines) + "\n"
    if file.exists() and file.read_text() != text and not force:
        raise InputError(f"{file}: is there already, and another one; --force overwrites it")
    write_text(file, text)
    return file


def _quoted(text: str) -> str:
    """In triple quotes where single ones are not enough: a Modelfile has no escapes."""
    if '"' not in text and "\n" not in text:
        return f'"{text}"'
    if '"""' in text:
        raise InputError(f"a Modelfile can't hold three quotes in a row, as in {text!r}")
    return f'"""{text} """' if text.endswith('"') else f'"""{text}"""'
