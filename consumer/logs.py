"""Logs: one structured line per fact, from structlog and the standard library alike; no secret in any.

People at a terminal get aligned words, machines get one JSON object per line.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from consumer.masking import Masker

LogFormat = Literal["auto", "json", "console"]

_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
"""Line breaks of Unicode, and marks that turn the reading direction: what follows would look different."""
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"} | {
    code: f"\\u{code:04x}" for code in _DIRECTIONS
}
"""A recording's name must not move the cursor of the terminal that shows it."""
_CONTROLS_AND_BREAKS = _CONTROLS | {ord("\n"): "\\n", ord("\t"): "\\t"}


def configure(
    level: str = "info",
    format: LogFormat = "auto",  # noqa: A002  # the word of LOG_FORMAT
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process to one stream; to be called once in each process, spawned ones too.

    Args:
        level: debug, info, warning or error; less important lines are dropped.
        format: `auto` is `console` when the stream is a terminal, else `json`.
        secrets: values to mask wherever they appear; users and queries of URLs are always masked.
        stream: standard error unless said otherwise, as results of `vault-ml detect` go to standard output.
    """
    stream = stream or sys.stderr
    to_people = format == "console" or (format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # text from here on, so that it is masked too
        _mask_with(Masker(secrets)),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a logger made before configure() must not keep the old way
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(
                    _for_people(stream)
                    if to_people
                    else [_what_matters_first, structlog.processors.JSONRenderer()]
                ),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the base class's name
        """Say that a line is lost, but not what was in it: the base class prints it before masking."""
        error = sys.exc_info()[0]
        with contextlib.suppress(OSError, ValueError):  # standard error may be what is broken, or closed
            sys.stderr.write(
                f"A log line of {record.name} could not be written: {error and error.__name__}.\n"
            )


def _for_people(stream: TextIO) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        exception_formatter=structlog.dev.plain_traceback,  # it comes as text already; others would warn
    )
    return [_escape_controls, renderer]


def _mask_with(mask: Masker) -> Processor:
    def mask_values(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        # What begins with _ is structlog's own and does not reach the line.
        event_dict.update(mask.fields({key: each for key, each in event_dict.items() if key[0] != "_"}))
        return event_dict

    return mask_values


def _escape_controls(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    for key, value in event_dict.items():
        if isinstance(value, str):
            multi_line = key in {"exception", "stack"}
            event_dict[key] = value.translate(_CONTROLS if multi_line else _CONTROLS_AND_BREAKS)
    return event_dict


def _what_matters_first(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    return {key: event_dict.pop(key) for key in ("timestamp", "level", "event")} | dict(event_dict)


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger("vault-ml").critical("stopped by an unforeseen error", exc_info=(kind, error, trace))


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None:
        structlog.get_logger("vault-ml").critical(
            "a thread ended with an unforeseen error",
            thread=crash.thread.name if crash.thread else None,
            exc_info=(crash.exc_type, crash.exc_value, crash.exc_traceback),
        )
