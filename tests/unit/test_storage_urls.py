"""HPSEARCH_STORAGE as a URL: what is one, what is refused, and that nothing secret is repeated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpsearch.cli import app as app_module
from hpsearch.errors import InputError
from hpsearch.mirror.address import checked, is_url

SECRETS = ["s3://key:hunter2@bucket/x", "s3://bucket/x?secret=hunter2", "s3://hunter2@bucket", "s3://b/x#hunter2"]


@pytest.mark.parametrize("url", [*SECRETS, "simplecache::s3://hunter2/x"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    assert is_url(url) or url.startswith("simplecache")
    with pytest.raises(InputError, match="credentials come from the environment") as refused:
        checked(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s4://bucket/x", "s4:// URLs are not supported; known: s3, gs, file"),
        ("https://bucket/x", "https:// URLs are not supported; known: s3, gs, file"),
        ("memory://x", "memory:// URLs are not supported"),
        ("s3:/bucket/x", "expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER, found 's3:/bucket/x'"),
        ("s3://", "expected s3://BUCKET"),
        ("s3:///x", "expected s3://BUCKET"),
        ("file://x/y", "expected s3://BUCKET"),
        ("file:///", "expected s3://BUCKET"),
    ],
)
def test_what_is_no_storage_url_has_words(url: str, said: str) -> None:
    assert is_url(url)
    with pytest.raises(InputError) as refused:
        checked(url)
    assert str(refused.value).startswith("HPSEARCH_STORAGE: ")
    assert said in str(refused.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"the library for gs:// is not installed: pip install 'hpsearch\[gcs\]'"):
        checked("gs://bucket/x")


@pytest.mark.parametrize("folder", ["storage", "/data/storage", "C:storage", "./a:/b"])
def test_a_folder_is_no_url(folder: str) -> None:
    assert not is_url(folder)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("s4://bucket", "s4:// URLs are not supported"),
        ("file:///proc/nowhere", "HPSEARCH_STORAGE: "),
        ("file://{}/bucket", "set HPSEARCH_STORE, or --store, to a PostgreSQL or MySQL URL"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "worker"])
def test_bad_storage_is_reported_before_anything_begins(
    verb: str,
    storage: str,
    said: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = workplace / "demo.yaml"
    study.write_text(
        "study: demo\ntask: text-sft\nmodel: {base: 'tiny:qwen2'}\ndata: {source: rows.jsonl}\n"
        "search: {trials: 1, space: {lora.r: [8, 16]}}\n"
    )
    (workplace / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    monkeypatch.setenv("HPSEARCH_STORAGE", storage.format(workplace))
    monkeypatch.setenv("HPSEARCH_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(sys, "argv", ["hpsearch", verb, str(study)])
    monkeypatch.setattr("hpsearch.bridge.stopping.StopFlag.install", lambda *_, **__: None)
    with pytest.raises(SystemExit) as exited:
        app_module.main()
    said_so = capfd.readouterr().err
    assert exited.value.code in (1, 2)
    assert said in said_so
    assert "Traceback" not in said_so
    assert {path.name for path in workplace.rglob("*") if path.is_file()} == {"demo.yaml", "rows.jsonl"}
