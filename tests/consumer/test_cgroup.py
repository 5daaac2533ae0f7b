"""How near the pod is to its memory limit, as the kernel says it."""

from pathlib import Path

import pytest

from consumer.cgroup import MemoryUse, memory_use

MIB = 1024**2


def use(tmp_path: Path, files: dict[str, str], own: str) -> MemoryUse | None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    (tmp_path / "own").write_text(own, encoding="ascii")
    return memory_use(tmp_path / "cgroup", tmp_path / "own")


def v2(directory: str, limit: str, used_mib: int, cached_mib: int = 0) -> dict[str, str]:
    return {
        f"{directory}memory.max": f"{limit}\n",
        f"{directory}memory.current": f"{used_mib * MIB}\n",
        f"{directory}memory.stat": f"anon 1\nactive_file {cached_mib * MIB // 2}\ninactive_file "
        f"{cached_mib * MIB // 2}\nshmem 5\n",
    }


V1 = {
    "memory/memory.limit_in_bytes": f"{1024 * MIB}",
    "memory/memory.usage_in_bytes": f"{600 * MIB}",
    "memory/memory.stat": f"cache 7\ntotal_active_file {50 * MIB}\ntotal_inactive_file {50 * MIB}\n",
}


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        (v2("", str(1024 * MIB), 700), "0::/\n", (700, 1024)),
        (v2("", str(1024 * MIB), 700, cached_mib=300), "0::/\n", (400, 1024)),
        (v2("", "max", 700), "0::/\n", None),
        (v2("pod/one/", "max", 500) | v2("pod/", str(2048 * MIB), 1900), "0::/pod/one\n", (1900, 2048)),
        (
            v2("pod/one/", str(512 * MIB), 500) | v2("pod/", str(2048 * MIB), 600),
            "0::/pod/one\n",
            (500, 512),
        ),
        (V1, "4:memory:/\n0::/\n", (500, 1024)),
        (V1, "4:memory:/kubepods/pod1/abc\n", (500, 1024)),
        (V1 | {"memory/memory.limit_in_bytes": "9223372036854771712"}, "4:memory:/\n", None),
        ({}, "0::/\n", None),
        ({"memory.max": "lots", "memory.current": "1"}, "0::/\n", None),
    ],
    ids=[
        "v2",
        "files can be read again",
        "no limit",
        "the pod's limit binds",
        "the container's limit binds",
        "v1",
        "v1 with the node's path",
        "v1 without a limit",
        "no cgroup",
        "not understood",
    ],
)
def test_what_counts_is_the_limit_that_is_nearest(
    files: dict[str, str], own: str, expected: tuple[int, int] | None, tmp_path: Path
) -> None:
    found = use(tmp_path, files, own)
    assert found == (None if expected is None else MemoryUse(expected[0] * MIB, expected[1] * MIB))
