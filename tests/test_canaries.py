"""No secret comes out: canaries are planted in settings, events and answers, and all outputs are searched."""

import base64
import json
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from consumer import settings
from consumer.rollout import Rollout
from consumer.topics import Record
from modelops.embedded import EmbeddedTriton
from tests import clips, leaking_pod, planted
from tests.authorities import Authority
from tests.brokers import kafka as apache_kafka
from tests.brokers.guarded import GuardedBroker
from tests.command_line import vault_ml_here
from tests.fakes import faulty_vault
from tests.fakes.faulty_vault import FaultyVault
from tests.fakes.identity_provider import IdentityProvider
from tests.faults.planted_pod import CRASHES
from tests.planted import Planted
from tests.pods import Pod
from tests.secured_triton import SERVER_NAME, over_tls
from tests.worlds import World

CLIENT_ID = "vault-ml"
_TAIL = '/+&="%\\'
"""What JSON, URLs and Python write in another way."""

SETTINGS = {
    "KAFKA_PASSWORD": "canary-kafka-password" + _TAIL,
    "KAFKA_KEY_PASSWORD": "canary-key-password" + _TAIL,
    "KAFKA_OAUTH_CLIENT_SECRET": "canary-oauth-secret" + _TAIL,
    "VAULT_ACCESS_KEY": "canary-vault-access" + _TAIL,
    "VAULT_SECRET_KEY": "canary-vault-secret" + _TAIL,
    "TRITON_ACCESS_KEY": "token=canary-triton-key" + _TAIL,
    "RECORDING_ENCRYPTION_KEY": "canary-encryption-key" + _TAIL,
}
"""Every secret setting, with its value."""

STORAGE, CAMERA, TOKEN, SIGNATURE = (
    f"canary-{each}-{_TAIL}" for each in ("storage-secret", "camera-password", "stage-token", "signature")
)
"""Secrets of others, which come in events and links."""

SIGNED = f"X-Amz-Expires=60&X-Amz-Signature={quote(SIGNATURE, safe='')}"
"""What makes a link a key."""

CANARIES = [*SETTINGS.values(), "canary-triton-key" + _TAIL, STORAGE, CAMERA, TOKEN, SIGNATURE]
CAT = Planted(("cat",), [(8, 8, 40, 40, 0.9, 0)])


def forms(secret: str) -> set[bytes]:
    """Return a secret as it may stand in text, JSON, JSON inside JSON, URLs, Python and base64."""
    once = json.dumps(secret)[1:-1]
    written = {
        secret,
        once,
        json.dumps(once)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
    }
    written |= {repr(secret)[1:-1], repr(once)[1:-1]}
    found = {each.encode() for each in written}
    for before in range(3):  # three ways, by where it begins among the groups of three bytes
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode()
        found.add(encoded[(0, 2, 3)[before] : len(encoded) // 4 * 4 - 4].encode())
    return found


def leaks(output: bytes) -> list[str]:
    """Return the canaries that an output holds, or that it holds the beginning of one."""
    whole = [secret for secret in CANARIES if any(form in output for form in forms(secret))]
    return whole + (["a piece of one"] if b"canary-" in output else [])


def test_the_search_finds_each_canary_however_it_is_written() -> None:
    for secret in CANARIES:
        for text in (
            secret,
            json.dumps({"a": secret}),
            json.dumps(json.dumps(secret)),
            quote(secret, safe=""),
            repr([secret]),
        ):
            assert leaks(text.encode())
        for before in ("", "a", "ab"):
            assert leaks(base64.b64encode(f"{before}{secret}{before}".encode()))


def test_every_secret_setting_has_a_canary() -> None:
    secret = {name for name, variable in settings.variables().items() if variable.secret}
    assert set(SETTINGS) == secret


@dataclass
class Guarded:
    """A world where everybody wants to know who asks."""

    world: World
    vault: FaultyVault
    environ: dict[str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    lacking = apache_kafka.missing()
    if lacking:
        pytest.skip(lacking)
    directory = tmp_path_factory.mktemp("canaries")
    authority = Authority(directory)
    ours = authority.pair("consumer", key_password=SETTINGS["KAFKA_KEY_PASSWORD"])
    repository = planted.write_repository(directory / "repository", {1: CAT}, Rollout(1, 1))
    key = SETTINGS["TRITON_ACCESS_KEY"]
    strict = [
        *over_tls(authority.pair("server", SERVER_NAME)),
        f"--grpc-restricted-protocol=inference,metadata,model-config,health:{key}",
    ]
    vault = FaultyVault(access_key=SETTINGS["VAULT_ACCESS_KEY"], secret_key=SETTINGS["VAULT_SECRET_KEY"])
    with (
        IdentityProvider(directory, CLIENT_ID, SETTINGS["KAFKA_OAUTH_CLIENT_SECRET"]) as identity,
        GuardedBroker(tmp_path_factory.mktemp("kafka"), identity, authority.ca) as broker,
        EmbeddedTriton.start(repository, model_config_name="", extra_arguments=strict) as triton,
        vault,
    ):
        world = World(broker, triton.grpc_url, vault, directory / "pods", partitions=2)
        (directory / "temporary").mkdir()
        yield Guarded(
            world,
            vault,
            world.environ
            | SETTINGS
            | {
                "KAFKA_BROKER": broker.token_bootstrap,
                "KAFKA_SECURITY": "SASL_SSL",
                "KAFKA_MECHANISM": "OAUTHBEARER",
                "KAFKA_CA_FILE": str(broker.ca_file),
                "KAFKA_CERTIFICATE_FILE": str(ours.certificate_file),
                "KAFKA_KEY_FILE": str(ours.key_file),
                "KAFKA_USERNAME": "somebody",
                "KAFKA_OAUTH_TOKEN_URL": identity.token_url,
                "KAFKA_OAUTH_CLIENT_ID": CLIENT_ID,
                "TRITON_CA_FILE": str(authority.ca_file),
                "TRITON_SERVER_NAME": SERVER_NAME,
                "RECORDING_DEADLINE": "3",
                "RECORDING_TIME_LIMIT": "3",
                "LOG_LEVEL": "debug",
                "TMPDIR": str(directory / "temporary"),
                leaking_pod.LINK: f"https://store.example.com/a.mp4?{SIGNED}",
            },
        )


def with_secrets(event: dict[str, Any], vault: FaultyVault) -> dict[str, Any]:
    """Return an event with credentials at all the places where events have them."""
    link = f"{vault.origin}/storage/signed?n=a&{SIGNED}"
    event["payload"]["signedUrl"] = link
    event["payload"]["metadata"]["camera-link"] = f"rtsp://admin:{quote(CAMERA, safe='')}@10.0.0.9/stream"
    event["payload"]["result"] = json.dumps({"storage_secret": STORAGE, "url": link})
    return event | {
        "note": {"text": [f"we use {each}" for each in SETTINGS.values()]},
        "data": {"storage_uri": "https://v", "storage_access_key": STORAGE, "storage_secret": STORAGE},
        "monitorStage": {"user": {"access_token": TOKEN, "amazon_secret_access_key": TOKEN}, "link": link},
        "vaultOverrideSecretKey": STORAGE,
    }


def echo(handler: faulty_vault.FaultyHandler) -> None:
    """Refuse, and repeat all that was sent, as some servers do for who debugs them."""
    body = f"{handler.path}\n{handler.headers}\n{json.dumps(dict(handler.headers))}".encode()
    handler.begin(403, Content_Length=str(len(body)), Content_Type="text/plain")
    handler.wfile.write(body)


def send_everything(guarded: Guarded, clip: Path) -> int:
    """Send an event of each kind, all with secrets in them; returns how many become dead letters."""
    world, vault, directory = guarded.world, guarded.vault, clip.parent
    for name, sign in (("crashes", CRASHES), ("leaks", leaking_pod.LEAKS)):
        path = directory / f"{name}.mp4"
        path.write_bytes(clip.read_bytes() + sign)
        world.send(with_secrets(world.store(f"cam/{name}.mp4", path), vault))
    locked = directory / "locked.mp4"
    locked.write_bytes(clip.read_bytes())
    clips.encrypt(locked, SETTINGS["RECORDING_ENCRYPTION_KEY"])
    other = directory / "other.mp4"
    other.write_bytes(clip.read_bytes())
    clips.encrypt(other, "another key")
    broken = directory / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    for name, path in (("sound", clip), ("locked", locked), ("other", other), ("broken", broken)):
        world.send(with_secrets(world.store(f"cam/{name}.mp4", path), vault))
    gone = with_secrets(world.store("cam/gone.mp4", clip), vault)
    del vault.recordings["cam/gone.mp4"]
    world.send(gone)
    words = f'not JSON, storage_secret="{STORAGE}" {guarded.environ[leaking_pod.LINK]}'
    world.send(words.encode(), [gone], {"payload": {"secret": STORAGE}})
    return 8  # all but the sound and the locked one


def offsets_with_notes(world: World) -> bytes:
    """Return what the group has committed, the notes beside the offsets too."""
    admin = AdminClient({"bootstrap.servers": world.kafka.bootstrap, "log_level": 0})
    asked = ConsumerGroupTopicPartitions(world.group)
    answer = admin.list_consumer_group_offsets([asked])[world.group].result(30)
    return repr([(each.topic, each.offset, each.metadata) for each in answer.topic_partitions or []]).encode()


def text_of(record: Record) -> bytes:
    """Return all of a record, and what is inside its base64."""
    value = record.value or b""
    payload = b""
    if b'"payload"' in value and b"dead-letter/v1" in value:
        payload = base64.b64decode(json.loads(value)["payload"])
    return b"\n".join([record.key or b"", value, payload, repr(record.headers).encode()])


def command_lines(pod: Pod) -> bytes:
    """Return the arguments of the pod and of all that it started."""
    found = b""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                ours = os.getpgid(int(process.name)) == os.getpgid(pod.process.pid)
                found += (process / "cmdline").read_bytes() if ours else b""
            except OSError:
                continue
    return found


@pytest.mark.triton
@pytest.mark.kafka
def test_no_secret_comes_out_of_a_whole_run(guarded: Guarded, tmp_path: Path) -> None:
    world = guarded.world
    clip = clips.write(tmp_path / "sound.mp4")
    guarded.vault.faults["GET /storage/signed"] = [echo] * 3
    outputs: dict[str, bytes] = {}
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # the pod must see to it itself
    letters = send_everything(guarded, clip)
    try:
        with Pod(world.directory, guarded.environ, module="tests.leaking_pod") as pod:
            pod.wait_until_ready()
            outputs["dead letters"] = b"\n".join(
                map(text_of, world.read(world.letters_topic, letters, 120.0))
            )
            outputs["results"] = b"\n".join(map(text_of, world.results(2)))
            for path in ("/metrics", "/readyz", "/healthz"):
                outputs[path] = pod.get(path)[1].encode()
            outputs["arguments"] = command_lines(pod)
            assert pod.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    outputs["log"] = pod.log.read_bytes()
    outputs["offsets"] = offsets_with_notes(world)
    for words in (
        ("config",),
        ("dead-letter", "list", "--json"),
        ("dead-letter", "list"),
        ("dead-letter", "export"),
    ):
        done = vault_ml_here(*words, environ=guarded.environ)
        assert done.returncode == 0, done.stderr
        outputs[" ".join(words)] = (done.stdout + done.stderr).encode()
    shown = vault_ml_here("dead-letter", "show", "0/0", environ=guarded.environ)
    outputs["dead-letter show"] = (shown.stdout + shown.stderr).encode()

    # It all took place: each kind was seen, and each output says something.
    assert b"a worker failed in a way that nobody foresaw" in outputs["log"]
    assert b"worker_died" in outputs["log"]
    assert b'"level": "debug"' in outputs["log"]
    assert all(outputs.values())
    assert {name: leaks(output) for name, output in outputs.items() if leaks(output)} == {}
    # Nothing is left: no core file, no temporary file.
    assert list(Path(guarded.environ["TMPDIR"]).iterdir()) == []
    assert not [path for path in (Path.cwd(), world.directory) for _ in path.glob("core*")]


@pytest.mark.kafka
def test_a_provider_that_echoes_the_secret_does_not_bring_it_into_the_log(guarded: Guarded) -> None:
    environ = guarded.environ | {"KAFKA_OAUTH_CLIENT_ID": "somebody-else"}
    with Pod(guarded.world.directory, environ) as pod:
        line = pod.wait_for_line(event="not ready", check="kafka")
        readyz = pod.get("/readyz")[1].encode()
    assert "invalid_client" in line["why"]
    assert leaks(pod.log.read_bytes() + readyz) == []
