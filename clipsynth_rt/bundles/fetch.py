"""Bundles from elsewhere: a folder, an archive, or an address on a hub."""

from __future__ import annotations

import os
from pathlib import Path

from clipsynth_rt.bundles.store import Opener

ARCHIVE_ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
HUB_SCHEME = "hf://"


def local_folder(address: str | Path, opener: Opener) -> Path:
    """Return the folder of a bundle, unpacking or downloading it if need be.

    Args:
        address: A folder, a .zip, .tar.gz, .tgz or .tar file, or ``hf://owner/name[@revision]``.
        opener: Opens what was unpacked or downloaded, to check it.

    Raises:
        BundleError: If it cannot be had, or is not to be trusted.
        MissingExtraError: If a hub is asked for and huggingface_hub is not installed.
    """
    text = os.fspath(address)
    if text.startswith(HUB_SCHEME):
        from clipsynth_rt.bundles.hub import fetch_from_hub

        return fetch_from_hub(text, opener)
    # os.path swallows what an absurd path raises: it is simply no file
    if text.lower().endswith(ARCHIVE_ENDINGS) and os.path.isfile(text):
        from clipsynth_rt.bundles.archive import unpacked

        return unpacked(Path(text), opener)
    return Path(text)
