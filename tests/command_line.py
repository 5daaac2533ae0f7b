"""The command line as its users call it: `vault-ml …` with its variables, in a process of its own or here."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from unittest import mock

from consumer import cli

SECONDS = 120.0


def vault_ml(
    *arguments: str, environ: Mapping[str, str], answer: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; nobody sits at its standard input, unless there is an answer to be read."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "TMPDIR", "LANG") or name.startswith("VAULT_ML_")
    }
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        env=inherited | dict(environ),
        input=answer or "",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def vault_ml_here(
    *arguments: str, environ: Mapping[str, str], answer: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves a second and more: for commands that start nothing."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    with (
        mock.patch.dict(os.environ, inherited | dict(environ), clear=True),
        mock.patch.object(sys, "argv", ["vault-ml", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO(answer or "")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
