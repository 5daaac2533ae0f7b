"""Seeds of the kept corpus, made by code: `python -m tests.fuzz.seeds` writes them into tests/fuzz/corpus."""

import json
import random
import struct
from pathlib import Path

from tests.fakes.recorded_events import VERSIONS, WORKFLOW_RUN
from tests.fuzz.targets import CANARY
from tests.hostile_media import Movie, box, fragmented, nested

CORPUS = Path(__file__).parent / "corpus"


def events() -> dict[str, bytes]:
    """Events of all versions, with a secret of ours in them, and what they must not be."""
    secret = {"data": {"storage_secret": CANARY.decode(), "note": f"key is {CANARY.decode()}!"}}
    seeds = {f"version-{name}": json.dumps(event | secret).encode() for name, event in VERSIONS.items()}
    small = json.dumps({"payload": {"key": "u/a.mp4"}, "token": CANARY.decode()})
    return seeds | {
        "workflow-run": json.dumps(WORKFLOW_RUN).encode(),
        "wrapped": f'{{"message": {small}}}'.encode(),
        "list": f'[{small}, 1, "a ] b", {small}]'.encode(),
        "nested-list": f"[[{small}]]".encode(),
        "no-json": b"key=u/a.mp4&secret=" + CANARY,
        "url": b'{"payload": {"key": "https://user:' + CANARY + b'@host/a?sig=1"}}',
        "numbers": b'{"payload": {"key": "a"}, "x": [1e999, -0, 1.5, NaN, 99999999999999999999]}',
        "twice": b'{"a": 1, "a": 2}',
        "surrogate": b'{"payload": {"key": "\\ud83d\\ude00\\ud800"}}',
        "mark": b"\xef\xbb\xbf" + small.encode(),
        "open": b'[{"a": "\\"',
        "deep": b"[" * 100 + b"]" * 100,
    }


def boxes() -> dict[str, bytes]:
    """Small MP4s without any video in them, sound and broken."""
    sound = Movie(frame=b"picture", samples=3).build()
    fragments = fragmented(5, fragments=2)
    third = fragments.index(b"moof", fragments.index(b"moof") + 1) - 4
    return {
        "sound": sound,
        "fragments": fragments,
        "gap": fragments[:third] + bytes(20) + fragments[third:],
        "tail": sound + bytes(40),
        "cut-off": sound[:-9],
        "large-sizes": struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8) + struct.pack(">I4s", 0, b"moov"),
        "unfinished": box(b"ftyp", b"isom") + box(b"free", bytes(30)) + box(b"moof") + box(b"mdat", b"x"),
        "compressed": box(b"moov", box(b"cmov", bytes(8))),
        "claims": box(b"moov", box(b"stsz", struct.pack(">3I", 0, 1, 2**32 - 1))),
        "deep": box(b"moov", nested(b"udta", 12)),
        "no-box": b"\x1a\x45\xdf\xa3 no MP4",
        "encrypted": b"Salted__12345678",
    }


def decryption() -> dict[str, bytes]:
    """A salt and a body; of lengths around one block, two, and the buffer."""
    noise = random.Random(0)
    return {
        f"{length}-bytes": noise.randbytes(8 + length) for length in (0, 1, 7, 8, 9, 16, 24, 31, 500, 2100)
    }


SEEDS = {"events": events, "boxes": boxes, "decryption": decryption}

if __name__ == "__main__":
    for target, seeds in SEEDS.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds().items():
            (CORPUS / target / name).write_bytes(data)
