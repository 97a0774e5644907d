"""The folder of the local Hugging Face cache, by the environment of this process."""

from __future__ import annotations

import os
from os.path import expanduser, expandvars, join


def hub() -> str:
    """The folder that `huggingface_hub` uses: HF_HUB_CACHE, or `hub` in HF_HOME, or the user's cache folder.

    Source: `huggingface_hub/constants.py`.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or join("~", ".cache")
    home = os.environ.get("HF_HOME") or join(cache, "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return expandvars(expanduser(named or join(home, "hub")))
