"""A base from the hub while the hub can't be reached: no mistake of the study file."""

from __future__ import annotations

from types import SimpleNamespace

import huggingface_hub
import pytest

from hpsearch.spec.model import ModelSpec
from hpsearch.train.bases import HubUnreachable, load_config


def test_a_hub_that_can_not_be_reached_is_told_apart_from_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{NOBODY}/{{repo_id}}/{{filename}}")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    with pytest.raises(HubUnreachable, match=r"the hub .* can't be reached to download an/other: .*\n"):
        load_config(ModelSpec(base="an/other"), lambda *_: None)
    assert pauses == [1, 2, 4, 8, 8], "one round of retries, which `load_config` is there for"


NOBODY = "http://127.0.0.1:9"
