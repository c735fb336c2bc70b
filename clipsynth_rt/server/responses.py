"""Finished clips as responses: a sound file, an archive, or JSON."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from clipsynth_rt.audio.clip import AudioClip
from clipsynth_rt.files import file_stem

MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "mp3": "audio/mpeg",
}


@dataclass(frozen=True)
class EncodedClip:
    """A clip as a sound file, and its facts.

    Attributes:
        clip: The clip; its stage ``write`` is the encoding.
        data: The file's bytes.
        format: One of ``MEDIA_TYPES``.
        waited_s: How long it was in the queue.
        batch: How many clips it was made with.
    """

    clip: AudioClip
    data: bytes
    format: str
    waited_s: float
    batch: int

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the clip, as JSON data."""
        clip = self.clip
        return {
            "query": clip.query,
            "seed": clip.seed,
            "num_steps": clip.num_steps,
            "guidance_scale": clip.guidance_scale,
            "audio_s": clip.audio_s,
            "sample_rate": clip.sample_rate,
            "rtf": clip.rtf,
            "stages_s": clip.stages_s,
            "queue_s": self.waited_s,
            "batch": self.batch,
            "network_calls": clip.network_calls,
            "distilled": clip.distilled,
            "provider": clip.provider,
        }


def file_response(encoded: EncodedClip) -> Response:
    """Return a sound file; its facts stand in the headers."""
    clip = encoded.clip
    stages = {"queue": encoded.waited_s, **clip.stages_s}
    timing = ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in stages.items())
    headers = {
        "Content-Disposition": _attachment(f"{file_stem(clip.query)}.{encoded.format}"),
        "Server-Timing": timing,
        "Clipsynth-Seed": str(clip.seed),
        "Clipsynth-Num-Steps": str(clip.num_steps),
        "Clipsynth-Guidance-Scale": f"{clip.guidance_scale:g}",
        "Clipsynth-Audio-Seconds": f"{clip.audio_s:.6f}",
        "Clipsynth-Rtf": f"{clip.rtf:.6f}",
        "Clipsynth-Provider": clip.provider,
        "Clipsynth-Network-Calls": str(clip.network_calls),
        "Clipsynth-Distilled": str(clip.distilled).lower(),
        "Clipsynth-Batch": str(encoded.batch),
    }
    return Response(encoded.data, headers=headers, media_type=MEDIA_TYPES[encoded.format])


def json_response(clips: Sequence[EncodedClip]) -> Response:
    """Return everything as JSON, the sounds in base64."""
    return JSONResponse({"clips": [clip_data(clip) for clip in clips]})


def clip_data(encoded: EncodedClip) -> dict[str, Any]:
    """Return a clip and its facts as JSON data, the sound in base64."""
    return {
        **encoded.facts,
        "media_type": MEDIA_TYPES[encoded.format],
        "sound": base64.b64encode(encoded.data).decode(),
    }


def zip_response(clips: Sequence[EncodedClip]) -> Response:
    """Return an archive of sound files and a manifest.json that lists them."""
    buffer = io.BytesIO()
    listed = []
    # stored: sound does not get smaller
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for i, encoded in enumerate(clips, 1):
            name = f"{i:02}-{file_stem(encoded.clip.query)}.{encoded.format}"
            archive.writestr(name, encoded.data)
            listed.append({"file": name, **encoded.facts})
        archive.writestr("manifest.json", json.dumps({"clips": listed}, indent=1))
    headers = {"Content-Disposition": _attachment("sounds.zip")}
    return Response(buffer.getvalue(), headers=headers, media_type="application/zip")


def _attachment(name: str) -> str:
    """Return the header that names a download, of any script (RFC 6266)."""
    plain = name.encode("ascii", "ignore").decode().lstrip(".-") or "sound"
    if "." not in plain:
        plain = f"sound.{plain}"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
