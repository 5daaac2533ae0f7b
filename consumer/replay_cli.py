"""The command `vault-ml replay`."""

import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer import logs
from consumer.moments import in_words, parse_span

if TYPE_CHECKING:
    from consumer.replay import Order, Replay, Summary


def replay(
    since: Annotated[
        str,
        typer.Option(
            "--from", metavar="TIME", help="Events since then: 2h, yesterday, 2026-05-01T12:00 (UTC)."
        ),
    ],
    topic_to: Annotated[
        str, typer.Option(metavar="TOPIC", help="Where results go; created if missing. No topic of the pods.")
    ],
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Events before that.")] = "now",
    camera: Annotated[
        list[str] | None,
        typer.Option(
            "--camera", help="Only of this camera, as events name it; repeatable.", show_default=False
        ),
    ] = None,
    model_version: Annotated[
        int | None,
        typer.Option(
            min=1, help="The version of the model that looks; the live one without it.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many events in this run.", show_default=False)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most so many events a second.", show_default=False)
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="From the beginning, also where this replay was done before.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A YAML file with settings; the environment wins.", show_default=False),
    ] = None,
) -> None:
    """Look at past events again with one version of the model; results go to another topic.

    Takes the pods' settings and runs beside them: their work, their place in the topic and their results stay
    as they are, and Triton answers them first. Interrupted, it goes on with the command that it prints.
    """
    from consumer import replay as past
    from consumer import settings
    from consumer.past_source import Window

    now = datetime.now(UTC)
    begin, end = parse_span(since, until, now)
    loaded = settings.load(os.environ, config)
    logs.configure(loaded.log_level, loaded.log_format, settings.secret_values(loaded))
    past.check_target(loaded, topic_to)
    window = Window(begin or now, min(end or now, now), tuple(camera or ()), limit, rate)
    order = past.Order(window, topic_to, model_version)
    prepared = past.prepare(loaded, order)
    command = _command(order, prepared, config)
    _say_before(loaded.queue_name, order, prepared)
    # Whoever starts it may not be there at its end, or it may have none: killed, out of memory.
    _say(f"If it is interrupted, this goes on: {command}")
    summary = past.run(loaded, order, prepared, anew=anew)
    _say_after(summary, order)
    if not summary.complete:
        _say(f"Interrupted; this goes on: {command}")
        raise typer.Exit(1)
    if summary.limited:
        _say(f"More may be left (--limit); this goes on: {command}")


def _say_before(source: str, order: "Order", prepared: "Replay") -> None:
    if prepared.gone_until is not None:
        _say(
            f"Some events before {in_words(prepared.gone_until)} are gone: "
            f"topic {source!r} keeps them no longer."
        )
    begin, end = in_words(order.window.since), in_words(order.window.until)
    _say(
        f"{prepared.name}: events of {source} from {begin} to {end}, "
        f"looked at by version {prepared.version}, results to {order.topic_to}."
    )


def _say_after(summary: "Summary", order: "Order") -> None:
    if summary.complete and not summary.events and not summary.outcomes:
        _say("Nothing is left to do: no event is meant, or this replay was done before (--anew repeats it).")
        return
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.most_common())
    outcomes = outcomes or "no outcome"
    _say(f"{summary.events} events in {summary.seconds:.0f} s, to {order.topic_to}: {outcomes}.")
    if any(outcome.startswith("dead-letter") for outcome in summary.outcomes):
        _say(f"What failed lists: QUEUE_DEAD_LETTER={order.letters_topic} vault-ml dead-letter list")


def _command(order: "Order", prepared: "Replay", config: Path | None) -> str:
    window = order.window
    words = ["vault-ml", "replay", "--from", in_words(window.since), "--to", in_words(window.until)]
    words += [word for camera in window.cameras for word in ("--camera", camera)]
    words += ["--model-version", str(prepared.version), "--topic-to", order.topic_to]
    words += [] if window.limit is None else ["--limit", str(window.limit)]
    words += [] if window.rate is None else ["--rate", f"{window.rate:g}"]
    words += [] if config is None else ["--config", str(config)]
    return shlex.join(words)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
