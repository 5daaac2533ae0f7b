"""Whether a Triton of ours is ready, and whether it still has all its processes."""

import contextlib
import http.client
from pathlib import Path


def is_ready(http_url: str) -> bool:
    """Ask a server on loopback, by `host:port`, whether it and its models are ready."""
    connection = http.client.HTTPConnection(http_url, timeout=2)  # never through a proxy of the environment
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def has_dead_child(pid: int) -> bool:
    """Whether a child has died that its parent did not expect to: it stays a zombie (proc(5), stat)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == pid:
                return True
    return False
