"""A base or a data set from the hub while the hub can't be reached: no mistake of the study file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest

from hpsearch.data.source import open_source
from hpsearch.errors import FieldError, HpsearchError, InputError
from hpsearch.spec.data import DataSpec
from hpsearch.spec.model import ModelSpec
from hpsearch.train.bases import HubUnreachable, load_config


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds between the tries: a hub is asked for that is not there."""
    pauses: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=pauses.append))
    for library in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{NOBODY}/{{repo_id}}/{{filename}}")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", NOBODY)
    return pauses


def test_a_base_s_hub_that_can_not_be_reached_is_told_apart_from_a_wrong_name(pauses: list[float]) -> None:
    with pytest.raises(HubUnreachable, match=r"the hub .* can't be reached to download an/other: .*\n"):
        load_config(ModelSpec(base="an/other"), lambda *_: None)
    assert pauses == [1, 2, 4, 8, 8], "one round of retries, which `load_config` is there for"


@pytest.mark.usefixtures("own_cache", "pauses")
def test_so_is_a_data_set_s(tmp_path: Path) -> None:
    with pytest.raises(HpsearchError) as raised:
        open_source(DataSpec(source="nobody/nothing"), tmp_path)
    assert not isinstance(raised.value, InputError)
    assert "can't be reached to download the data set nobody/nothing" in str(raised.value)
    with pytest.raises(FieldError, match="there is no file or folder nothing; from the hub it "):
        open_source(DataSpec(source="nothing"), tmp_path)


NOBODY = "http://127.0.0.1:9"
