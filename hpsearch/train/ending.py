"""Where an answer ends: at the end tokens of the base, and at the one that the tuned model was taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpsearch.files import write_text
from hpsearch.train.encoding import Encoder


def end_tokens(encoder: Encoder, generation_config: Any) -> list[int]:
    """The end tokens for `generate`: the base's own first.

    Qwen2.5-0.5B has only `<|endoftext|>`, while its chat template ends each taught answer with `<|im_end|>`: without
    that one its answers would run to the limit.
    """
    taught = [] if encoder.end_token is None else [encoder.end_token]
    return list(dict.fromkeys([*_own_ends(generation_config), *taught]))


def _own_ends(generation_config: Any) -> list[int]:
    own = generation_config.eos_token_id
    if own is None:
        return []
    return list(own) if isinstance(own, list | tuple) else [own]


def write_end(folder: Path, encoder: Encoder, generation_config: Any) -> None:
    """Makes other tools that load `folder` use the same end tokens.

    transformers and vLLM read all of them from generation_config.json. llama.cpp's converter uses one, the eos_token of
    tokenizer_config.json (gguf-py/gguf/vocab.py, `SpecialVocab`), so that is set to a taught end token which the base
    did not know. End tokens that the base knows stay unchanged.
    """
    file = folder / "generation_config.json"
    is_new = encoder.end_token is not None and encoder.end_token not in _own_ends(generation_config)
    if is_new or not file.exists():
        content = json.loads(file.read_text() if file.exists() else generation_config.to_json_string())
        write_text(file, json.dumps(content | {"eos_token_id": end_tokens(encoder, generation_config)}, indent=2))
    if is_new:
        token = encoder.tokenizer.convert_ids_to_tokens(encoder.end_token)
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (folder / name).exists():
                content = json.loads((folder / name).read_text()) | {"eos_token": token}
                write_text(folder / name, json.dumps(content, indent=2, ensure_ascii=False))
