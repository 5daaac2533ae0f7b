"""What the settings promise to whoever writes a Deployment."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import pytest
import trustme
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from consumer import older_images, settings
from consumer.configuration import render_config
from consumer.errors import SettingsError
from consumer.settings import DetectSettings, Settings

README_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: vault-ml, labels: {app: vault-ml}}
spec:
  replicas: 1
  selector: {matchLabels: {app: vault-ml}}
  template:
    metadata: {labels: {app: vault-ml}}
    spec:
      containers:
        - name: kerberoshub-ml
          image: kerberos/vault-ml:nvidia
          resources: {limits: {nvidia.com/gpu: 1}}
          env:
            - {name: QUEUE_SYSTEM, value: "KAFKA"}
            - {name: QUEUE_NAME, value: "source_topic"}
            - {name: QUEUE_TARGET, value: "target_topic"}
            - {name: KAFKA_BROKER, value: "xxx-your-kafka-xxx:9092"}
            - {name: KAFKA_GROUP, value: "group"}
            - {name: KAFKA_USERNAME, value: "xxx"}
            - {name: KAFKA_PASSWORD, value: "xxx"}
            - {name: KAFKA_MECHANISM, value: "PLAIN"}
            - {name: KAFKA_SECURITY, value: "SASL_SSL"}
            - {name: VAULT_API_URL, value: "https://xxx.api.vault.kerberos.live"}
            - {name: VAULT_ACCESS_KEY, value: "xxx"}
            - {name: VAULT_SECRET_KEY, value: "xxx"}
            - {name: NUMBER_OF_PREDICTIONS, value: "5"}
"""
"""The Deployment of kerberos-io/nvidia-gpu-kubernetes:README.md, without its comments."""

SECRET = "s3cr3t-Pa55/word+&"

MINIMAL = {
    "QUEUE_NAME": "recordings",
    "QUEUE_TARGET": "results",
    "KAFKA_BROKER": "kafka:9092",
    "VAULT_API_URL": "https://vault.example.com/api",
    "VAULT_ACCESS_KEY": "the-access-key",
    "VAULT_SECRET_KEY": SECRET,
}
SASL = {"KAFKA_SECURITY": "SASL_SSL", "KAFKA_USERNAME": "user", "KAFKA_PASSWORD": "kafka-password"}


def readme_environment() -> dict[str, str]:
    container = yaml.safe_load(README_DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def problems_of(environ: Mapping[str, str], config_file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings.load(environ, config_file)
    return caught.value.problems


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# The README's Deployment


def test_the_readmes_deployment_works_with_only_the_image_changed() -> None:
    loaded = settings.load(readme_environment())
    assert (loaded.queue_name, loaded.queue_target, loaded.kafka_group) == (
        "source_topic",
        "target_topic",
        "group",
    )
    assert (loaded.kafka_security, loaded.kafka_mechanism) == ("SASL_SSL", "PLAIN")
    assert loaded.kafka_password is not None
    assert loaded.kafka_password.get_secret_value() == "xxx"
    assert loaded.vault_api_url == "https://xxx.api.vault.kerberos.live"
    assert loaded.number_of_predictions == 5
    assert settings.warnings(readme_environment(), dev=Path("/nonexistent")) == []


def test_what_is_not_set_has_the_documented_default() -> None:
    loaded = settings.load(MINIMAL)
    assert loaded.triton_url == "dns:///triton:8001"
    assert loaded.triton_model == "yolo"
    assert loaded.score_threshold == 0.5
    assert loaded.nms_iou == 0.45
    assert loaded.queue_dead_letter == "recordings.dead-letter"
    assert loaded.kafka_security == "PLAINTEXT"
    assert loaded.max_message_bytes < 1_000_012  # what Vault's own brokers take
    assert loaded.shutdown_grace < 30  # what Kubernetes gives a pod
    assert loaded.http_port == 8080
    assert loaded.workers >= 1


# Every problem, with its name


def test_every_missing_setting_is_named_at_once() -> None:
    problems = problems_of({})
    required = [name for name in settings.variables() if name in MINIMAL]
    assert [problem.split()[0] for problem in problems] == required
    assert all(" is not set: give " in problem for problem in problems)


def test_who_reads_topics_needs_to_know_kafka_and_no_vault() -> None:
    loaded = settings.load_topics({"QUEUE_NAME": "recordings", "KAFKA_BROKER": "kafka:9092"})
    assert loaded.queue_comparison == "recordings.comparison"
    with pytest.raises(SettingsError) as caught:
        settings.load_topics({})
    assert [problem.split()[0] for problem in caught.value.problems] == ["QUEUE_NAME", "KAFKA_BROKER"]


WRONG = {
    "QUEUE_SYSTEM": "RABBITMQ",
    "QUEUE_NAME": "two words",
    "QUEUE_TARGET": "..",
    "QUEUE_DEAD_LETTER": "x" * 250,
    "KAFKA_BROKER": "kafka:9092,http://kafka:9092",
    "KAFKA_MECHANISM": "GSSAPI",
    "KAFKA_SECURITY": "TLS",
    "KAFKA_CA_FILE": "/no/such/file.pem",
    "VAULT_API_URL": "vault.example.com",
    "VAULT_SECRET_KEY": "line\nbreak",
    "VAULT_TIMEOUT": "0",
    "SIGNED_URL_HOSTS": "https://minio/",
    "NUMBER_OF_PREDICTIONS": "1001",
    "TRITON_URL": "http://triton:8000",
    "TRITON_TIMEOUT": "nan",
    "TRITON_IN_FLIGHT": "0",
    "SCORE_THRESHOLD": "1.5",
    "NMS_IOU": "-0.1",
    "WORKERS": "two",
    "MAX_RECORDING_BYTES": "2 bananas",
    "RECORDING_DEADLINE": "-1",
    "RECORDING_TIME_LIMIT": "inf",
    "SHUTDOWN_GRACE": "soon",
    "HTTP_PORT": "65536",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "RESULT_FORMAT": "classify",
    "MAX_MESSAGE_BYTES": "1",
}


def test_all_wrong_values_are_told_in_one_go() -> None:
    problems = problems_of(MINIMAL | WRONG)
    assert {problem.split()[0] for problem in problems} == WRONG.keys()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_gives_one_sentence_that_begins_with_the_variable(name: str) -> None:
    (problem,) = problems_of(MINIMAL | {name: WRONG[name]})
    assert problem.startswith(f"{name} ")
    assert problem.endswith(".")
    assert ": " in problem  # what was found: what to do


@pytest.mark.parametrize("system", ["RABBITMQ", "SQS", "kinesis"])
def test_another_queue_system_is_told_that_this_image_reads_kafka(system: str) -> None:
    (problem,) = problems_of(MINIMAL | {"QUEUE_SYSTEM": system})
    assert "QUEUE_SYSTEM=KAFKA" in problem


@pytest.mark.parametrize("value", ["http://triton:8000", "https://t", "grpc://triton:8001", "grpcs://t:1"])
def test_a_triton_url_with_a_scheme_is_told_the_right_form(value: str) -> None:
    (problem,) = problems_of(MINIMAL | {"TRITON_URL": value})
    assert "dns:///triton:8001" in problem


@pytest.mark.parametrize(
    "value",
    [
        "triton:8001",
        "10.0.0.7:8001",
        "[::1]:8001",
        "dns:///triton:8001",
        "dns:triton:8001",
        "dns://10.0.0.10/triton.vault.svc:8001",
        "ipv4:10.0.0.7:8001,10.0.0.8:8001",
        "ipv6:[::1]:8001",
        "unix:/run/triton.sock",
        "unix:///run/triton.sock",
    ],
)
def test_every_form_of_grpc_address_is_taken_as_it_is(value: str) -> None:
    assert settings.load(MINIMAL | {"TRITON_URL": value}).triton_url == value


@pytest.mark.parametrize(
    "value", ["triton", "triton:", "triton:0", "triton:99999", "dns:///triton", "unix:", "a b:1"]
)
def test_a_triton_url_that_cannot_be_dialled_is_a_problem(value: str) -> None:
    assert problems_of(MINIMAL | {"TRITON_URL": value})[0].startswith("TRITON_URL is ")


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://vault.example.com", "https://vault.example.com"),
        ("https://vault.example.com/api/", "https://vault.example.com/api"),
        ("http://vault-lb.kerberos-vault:8080/api", "http://vault-lb.kerberos-vault:8080/api"),
    ],
)
def test_vaults_address_is_taken_with_and_without_api(url: str, taken: str) -> None:
    assert settings.load(MINIMAL | {"VAULT_API_URL": url}).vault_api_url == taken


@pytest.mark.parametrize(
    "url", ["ftp://vault", "https://", "https://vault:port", "https://vault?key=1", "http://[::1"]
)
def test_an_address_that_is_not_vaults_is_a_problem(url: str) -> None:
    assert problems_of(MINIMAL | {"VAULT_API_URL": url})[0].startswith("VAULT_API_URL ")


def test_a_kafka_broker_may_be_a_list_and_may_leave_its_port_out() -> None:
    loaded = settings.load(MINIMAL | {"KAFKA_BROKER": " kafka-0:9092 , kafka-1 ,[::1]:9093"})
    assert loaded.kafka_broker == "kafka-0:9092,kafka-1,[::1]:9093"


@pytest.mark.parametrize(
    ("text", "seconds"), [("300", 300.0), ("2.5", 2.5), ("500ms", 0.5), ("30s", 30.0), ("5M", 300.0)]
)
def test_a_time_is_seconds_or_says_its_unit(text: str, seconds: float) -> None:
    environ = MINIMAL | {"VAULT_TIMEOUT": text}
    assert settings.load(environ).vault_timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000000", 1_000_000), ("2GiB", 2 * 1024**3), ("2Gi", 2 * 1024**3), ("1.5 MB", 1_500_000)],
)
def test_a_size_is_bytes_or_says_its_unit(text: str, size: int) -> None:
    assert settings.load(MINIMAL | {"MAX_RECORDING_BYTES": text}).max_recording_bytes == size


@pytest.mark.parametrize("written", ["scram-sha-256", "SCRAM_SHA_256", "Scram-Sha-256"])
def test_words_are_taken_in_any_case(written: str) -> None:
    environ = MINIMAL | SASL | {"KAFKA_MECHANISM": written, "KAFKA_SECURITY": "sasl_ssl", "LOG_LEVEL": "WARN"}
    loaded = settings.load(environ)
    assert (loaded.kafka_mechanism, loaded.kafka_security, loaded.log_level) == (
        "SCRAM-SHA-256",
        "SASL_SSL",
        "warning",
    )


# Settings that are wrong together


@pytest.mark.parametrize("missing", ["KAFKA_USERNAME", "KAFKA_PASSWORD"])
def test_sasl_without_a_login_is_a_problem(missing: str) -> None:
    environ = {name: value for name, value in (MINIMAL | SASL).items() if name != missing}
    (problem,) = problems_of(environ)
    assert problem.startswith(f"{missing} is not set, but KAFKA_SECURITY is SASL_SSL")


def test_a_login_without_kafka_security_is_asked_which_rather_than_sent_in_the_clear() -> None:
    (problem,) = problems_of(MINIMAL | {"KAFKA_USERNAME": "user", "KAFKA_PASSWORD": SECRET})
    assert problem.startswith("KAFKA_SECURITY is not set")
    assert "SASL_SSL" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ({"QUEUE_TARGET": "recordings"}, "QUEUE_TARGET"),
        ({"QUEUE_DEAD_LETTER": "recordings"}, "QUEUE_DEAD_LETTER"),
        ({"QUEUE_DEAD_LETTER": "results"}, "QUEUE_DEAD_LETTER"),
        ({"QUEUE_COMPARISON": "results"}, "QUEUE_COMPARISON"),
        ({"QUEUE_COMPARISON": "recordings"}, "QUEUE_COMPARISON"),
        ({"QUEUE_TARGET": "recordings.dead-letter"}, "QUEUE_DEAD_LETTER"),
    ],
)
def test_results_cannot_go_where_events_come_from(names: dict[str, str], first: str) -> None:
    (problem,) = problems_of(MINIMAL | names)
    assert problem.startswith(f"{first} ")


def test_a_topic_whose_own_topics_have_too_long_names_is_a_problem() -> None:
    problems = problems_of(MINIMAL | {"QUEUE_NAME": "x" * 245})
    assert [problem.split()[0] for problem in problems] == ["QUEUE_COMPARISON", "QUEUE_DEAD_LETTER"]


def test_a_port_that_kubernetes_put_there_for_a_service_is_explained() -> None:
    (problem,) = problems_of(MINIMAL | {"HTTP_PORT": "tcp://10.0.0.1:80"})
    assert problem.startswith("HTTP_PORT is ")
    assert "enableServiceLinks: false" in problem


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ({"RECORDING_TIME_LIMIT": "301"}, "RECORDING_TIME_LIMIT"),
        ({"RECORDING_TIME_LIMIT": "90", "RECORDING_DEADLINE": "60"}, "RECORDING_TIME_LIMIT"),
        ({"TRITON_TIMEOUT": "121"}, "TRITON_TIMEOUT"),
    ],
)
def test_a_shorter_time_cannot_exceed_the_longer_one_around_it(names: dict[str, str], first: str) -> None:
    (problem,) = problems_of(MINIMAL | names)
    assert problem.startswith(f"{first} ")


def test_a_default_gives_way_to_a_shorter_time_around_it() -> None:
    assert settings.load(MINIMAL | {"RECORDING_DEADLINE": "60"}).recording_deadline == 60


def test_a_problem_of_one_setting_does_not_hide_a_conflict_of_others() -> None:
    problems = problems_of(MINIMAL | {"WORKERS": "0", "QUEUE_TARGET": "recordings"})
    assert {problem.split()[0] for problem in problems} == {"WORKERS", "QUEUE_TARGET"}


# Names


ALIASES = [(alias, name) for name, variable in settings.variables().items() for alias in variable.aliases]


@pytest.mark.parametrize(("alias", "name"), ALIASES)
def test_an_alias_means_the_same_as_the_variable(alias: str, name: str) -> None:
    values = MINIMAL | {"SCORE_THRESHOLD": "0.3", "NMS_IOU": "0.6"}
    renamed = {alias if each == name else each: value for each, value in values.items()}
    loaded = settings.load(renamed)
    assert loaded.model_dump(exclude={"origins"}) == settings.load(values).model_dump(exclude={"origins"})
    assert loaded.origins[name] == f"environment ({alias})"


@pytest.mark.parametrize(("alias", "name"), ALIASES)
def test_two_names_with_different_values_are_a_problem_that_names_both(alias: str, name: str) -> None:
    (problem,) = problems_of(MINIMAL | {name: "0.1", alias: "0.2"})
    assert problem.startswith(f"{name} and {alias} ")


def test_two_names_with_the_same_value_are_fine() -> None:
    loaded = settings.load(MINIMAL | {"STORAGE_URI": MINIMAL["VAULT_API_URL"]})
    assert loaded.origins["VAULT_API_URL"] == "environment"


def test_a_problem_speaks_of_the_name_that_was_written() -> None:
    environ = {name: value for name, value in MINIMAL.items() if name != "VAULT_API_URL"}
    (problem,) = problems_of(environ | {"STORAGE_URI": "ftp://vault"})
    assert problem.startswith("STORAGE_URI is ")


@pytest.mark.parametrize("empty", ["", "   ", "\n"])
def test_an_empty_variable_is_not_set(empty: str) -> None:
    assert problems_of(MINIMAL | {"QUEUE_NAME": empty})[0].startswith("QUEUE_NAME is not set")
    assert settings.load(MINIMAL | {"NUMBER_OF_PREDICTIONS": empty}).number_of_predictions == 5


def test_blanks_around_a_value_are_dropped() -> None:
    assert settings.load(MINIMAL | {"QUEUE_NAME": " recordings\n"}).queue_name == "recordings"


def test_a_name_has_one_meaning_only() -> None:
    written = [
        each
        for name, variable in settings.variables().items()
        for each in (*variable.names(name), *variable.file_names(name))
    ]
    assert len(written) == len(set(written))
    assert not older_images.ADVICE.keys() & set(written)


# Secrets


SECRETS = [name for name, variable in settings.variables().items() if variable.secret]
SECRET_FILES = [
    (file_name, name) for name in SECRETS for file_name in settings.variables()[name].file_names(name)
]


def secret_of(name: str) -> str:
    """A value that this secret may have."""
    return f"token={SECRET}" if name == "TRITON_ACCESS_KEY" else SECRET


@pytest.mark.parametrize(("file_name", "name"), SECRET_FILES)
def test_every_secret_can_come_from_a_file(file_name: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(secret_of(name) + "\n", encoding="utf-8")
    environ = {each: value for each, value in (MINIMAL | SASL).items() if each != name}
    loaded = settings.load(environ | {file_name: str(path)})
    assert getattr(loaded, name.lower()).get_secret_value() == secret_of(name)
    assert loaded.origins[name] == f"file {path}"


def test_the_secrets_are_typed_as_secrets() -> None:
    loaded = settings.load(MINIMAL | SASL)
    assert all(isinstance(getattr(loaded, name.lower()), SecretStr | None) for name in SECRETS)
    assert set(settings.secret_values(loaded)) == {"kafka-password", "the-access-key", SECRET}


def test_a_secret_set_directly_and_by_file_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET, encoding="utf-8")
    (problem,) = problems_of(MINIMAL | {"VAULT_SECRET_KEY_FILE": str(path)})
    assert problem.startswith("VAULT_SECRET_KEY and VAULT_SECRET_KEY_FILE are both set")


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"\n", "is empty"), (b"\xff\xfe", "not text"), (b"x" * 70_000, "more than")],
)
def test_an_unusable_secret_file_is_a_problem(content: bytes | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    environ = {name: value for name, value in MINIMAL.items() if name != "VAULT_SECRET_KEY"}
    (problem,) = problems_of(environ | {"VAULT_SECRET_KEY_FILE": str(path)})
    assert problem.startswith(f"VAULT_SECRET_KEY_FILE is '{path}'")
    assert why in problem


@pytest.mark.parametrize("name", ["VAULT_ACCESS_KEY", "VAULT_SECRET_KEY"])
def test_a_secret_that_cannot_be_used_is_not_shown(name: str) -> None:
    (problem,) = problems_of(MINIMAL | {name: SECRET + "\nmore"})
    assert problem.startswith(f"{name} ")
    assert SECRET not in problem


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_pasted_into_another_variable_is_not_shown_there(name: str) -> None:
    (problem,) = problems_of(
        MINIMAL | SASL | {name: secret_of(name), "QUEUE_NAME": f"no topic {secret_of(name)}"}
    )
    assert problem.startswith("QUEUE_NAME is 'no topic ***'")


@pytest.mark.parametrize("name", ["VAULT_API_URL", "KAFKA_BROKER", "TRITON_URL"])
def test_a_password_inside_an_address_is_a_problem_that_does_not_show_it(name: str) -> None:
    (problem,) = problems_of(MINIMAL | {name: "https://user:hunter2@host:1"})
    assert problem.startswith(f"{name} ")
    assert "hunter2" not in problem


def test_what_is_in_force_is_shown_without_secrets() -> None:
    loaded = settings.load(MINIMAL | SASL)
    for text in (render_config(loaded), repr(loaded), str(settings.describe(loaded))):
        assert SECRET not in text
        assert "kafka-password" not in text
    assert "recordings.dead-letter" in render_config(loaded)


# The file of --config


def test_a_yaml_file_says_the_same_as_the_environment(tmp_path: Path) -> None:
    path = config(tmp_path, yaml.safe_dump({name.lower(): value for name, value in MINIMAL.items()}))
    loaded = settings.load({}, path)
    assert loaded.model_dump(exclude={"origins"}) == settings.load(MINIMAL).model_dump(exclude={"origins"})
    assert loaded.origins["QUEUE_NAME"] == f"config file {path}"


def test_the_environment_wins_over_the_file_whatever_the_names(tmp_path: Path) -> None:
    path = config(tmp_path, "storage_uri: https://other\nQueue_Name: other\nworkers: 0\n")
    loaded = settings.load(MINIMAL | {"WORKERS": "3"}, path)
    assert (loaded.vault_api_url, loaded.queue_name, loaded.workers) == (
        MINIMAL["VAULT_API_URL"],
        "recordings",
        3,
    )


def test_values_of_the_file_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        "kafka_password: 0123\nkafka_username: yes\nkafka_security: SASL_SSL\nworkers: 2\n"
        "signed_url_hosts: [minio.example.com, S3.example.com]\nscore_threshold:\nnms_iou: ~\n",
    )
    loaded = settings.load(MINIMAL, path)
    assert loaded.kafka_password is not None
    assert loaded.kafka_password.get_secret_value() == "0123"
    assert loaded.kafka_username == "yes"
    assert loaded.signed_url_hosts == ("minio.example.com", "s3.example.com")
    assert (loaded.score_threshold, loaded.nms_iou) == (0.5, 0.45)


def test_a_file_may_name_files_of_secrets(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n", encoding="utf-8")
    path = config(tmp_path, f"vault_secret_key_file: {tmp_path / 'secret'}\n")
    environ = {name: value for name, value in MINIMAL.items() if name != "VAULT_SECRET_KEY"}
    assert settings.load(environ, path).vault_secret_key.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("text", "begins", "says"),
    [
        ("kafka_brokers: x", "KAFKA_BROKERS", "did you mean kafka_broker?"),
        ("moon_phase: full", "MOON_PHASE", "is not a setting"),
        ("workers: {a: 1}", "WORKERS", "more than one value"),
        ("workers: 1\nWORKERS: 2", "WORKERS", "second time"),
        ("workers: none", "WORKERS", "a whole number from 1 to 1024"),
        ("storage_uri: https://a\nvault_api_url: https://b", "VAULT_API_URL", "STORAGE_URI"),
        ("move_distance: 100", "MOVE_DISTANCE", "does nothing"),
        ("- workers", "--config", "`name: value`"),
        ("workers: [", "--config", "line 1"),
        ("workers: !!python/object:os.system x\n", "WORKERS", "give a whole number"),
    ],
)
def test_what_is_wrong_with_the_file_is_a_problem(text: str, begins: str, says: str, tmp_path: Path) -> None:
    path = config(tmp_path, text)
    environ = {name: value for name, value in MINIMAL.items() if name != "VAULT_API_URL"}
    if "vault_api_url" not in text:
        environ = MINIMAL
    (problem,) = problems_of(environ, path)
    assert problem.startswith(begins)
    assert says in problem
    assert str(path) in problem


def test_a_file_that_is_not_there_or_no_text_is_a_problem(tmp_path: Path) -> None:
    assert problems_of(MINIMAL, tmp_path / "absent.yaml")[0].startswith("--config ")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in problems_of(MINIMAL, tmp_path / "binary")[0]


def test_a_file_that_is_not_yaml_does_not_show_its_lines(tmp_path: Path) -> None:
    path = config(tmp_path, f"vault_secret_key: '{SECRET}\nqueue_name: x")
    assert SECRET not in "\n".join(problems_of(MINIMAL, path))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert settings.load(MINIMAL, config(tmp_path, "# nothing yet\n")).queue_name == "recordings"


# Certificates


def test_a_ca_file_with_a_certificate_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    loaded = settings.load(MINIMAL | {"VAULT_CA_FILE": str(path), "KAFKA_CA_FILE": str(path)})
    assert (loaded.vault_ca_file, loaded.kafka_ca_file) == (path, path)


def test_a_ca_file_without_a_certificate_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate", encoding="utf-8")
    (problem,) = problems_of(MINIMAL | {"VAULT_CA_FILE": str(path)})
    assert problem.startswith("VAULT_CA_FILE is ")
    assert "PEM" in problem


# detect


def test_detect_needs_no_setting_and_has_its_own_threshold() -> None:
    loaded = settings.load_detect({})
    assert (loaded.score_threshold, loaded.triton_model) == (0.25, "yolo")
    assert not hasattr(loaded, "kafka_broker")


def test_detect_is_not_disturbed_by_settings_of_run() -> None:
    assert (
        settings.load_detect({"QUEUE_SYSTEM": "SQS", "KAFKA_CA_FILE": "/none", "NMS_IOU": "0.6"}).nms_iou
        == 0.6
    )


def test_options_of_the_command_line_win_and_are_checked_like_the_rest() -> None:
    options: dict[str, tuple[str, object]] = {
        "TRITON_URL": ("--triton", " other:8001 "),
        "NUMBER_OF_PREDICTIONS": ("--predictions", 7),
        "SCORE_THRESHOLD": ("--score-threshold", None),
    }
    loaded = settings.load_detect({"TRITON_URL": "triton:8001", "SCORE_THRESHOLD": "0.4"}, options=options)
    assert (loaded.triton_url, loaded.number_of_predictions, loaded.score_threshold) == ("other:8001", 7, 0.4)
    with pytest.raises(SettingsError, match=r"^--predictions is '0'"):
        settings.load_detect({}, options={"NUMBER_OF_PREDICTIONS": ("--predictions", 0)})


def test_a_file_for_run_serves_detect_too(tmp_path: Path) -> None:
    path = config(tmp_path, "queue_name: recordings\ntriton_model: other\n")
    assert settings.load_detect({}, path).triton_model == "other"


# The object


def test_settings_cannot_be_changed_and_travel_to_worker_processes() -> None:
    loaded = settings.load(MINIMAL | SASL)
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    with pytest.raises(ValidationError):
        loaded.workers = 5
    assert isinstance(loaded, DetectSettings)


def test_each_value_says_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    path = config(tmp_path, "workers: 2\n")
    environ = {
        name: value for name, value in MINIMAL.items() if name not in {"VAULT_SECRET_KEY", "QUEUE_NAME"}
    }
    environ |= {"VAULT_SECRET_KEY_FILE": str(tmp_path / "secret"), "KAFKA_QUEUE_NAME": "recordings"}
    origins = {each.name: each.origin for each in settings.describe(settings.load(environ, path))}
    assert origins["QUEUE_TARGET"] == "environment"
    assert origins["QUEUE_NAME"] == "environment (KAFKA_QUEUE_NAME)"
    assert origins["VAULT_SECRET_KEY"] == f"file {tmp_path / 'secret'}"
    assert origins["WORKERS"] == f"config file {path}"
    assert origins["HTTP_PORT"] == "default"


@hypothesis.settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(settings.known_names())),
        st.text(max_size=300).filter(lambda text: "\0" not in text),
    )
)
def test_no_environment_does_anything_but_load_or_list_problems(environ: dict[str, str]) -> None:
    try:
        loaded = settings.load(MINIMAL | environ)
    except SettingsError as error:
        assert error.problems
        assert all(problem.startswith(tuple(settings.known_names())) for problem in error.problems)
    else:
        assert isinstance(loaded, Settings)
    settings.warnings(MINIMAL | environ)


# Warnings


def warned(environ: dict[str, str], dev: Path = Path("/nonexistent")) -> list[str]:
    return settings.warnings(MINIMAL | environ, dev=dev)


@pytest.mark.parametrize("name", older_images.ADVICE)
def test_a_variable_of_an_older_image_is_told_what_to_do_instead(name: str) -> None:
    (sentence,) = warned({name: "True"})
    assert sentence.startswith(f"{name} is set but does nothing here: ")
    assert "remove it" in sentence


@pytest.mark.parametrize("value", ["false", "False", "0", "", " ", "no"])
def test_a_variable_of_an_older_image_that_is_off_is_not_warned_about(value: str) -> None:
    assert warned(dict.fromkeys(older_images.ADVICE, value)) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KAFKA_BROKERS", "KAFKA_BROKER"),
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKER"),
        ("KAFKA_GROUP_ID", "KAFKA_GROUP"),
        ("KAFKA_SECURITY_PROTOCOL", "KAFKA_SECURITY"),
        ("KAFKA_SASL_MECHANISM", "KAFKA_MECHANISM"),
        ("VAULT_API_KEY", "VAULT_A"),
        ("VAULT_URL", "VAULT_API_URL"),
        ("VAULT_SECRETKEY", "VAULT_SECRET_KEY"),
        ("KAKFA_BROKER", "KAFKA_BROKER"),
        ("NUMBER_OF_PREDICTION", "NUMBER_OF_PREDICTIONS"),
        ("TRITON_MODELS", "TRITON_MODEL"),
        ("kafka_broker", "KAFKA_BROKER"),
    ],
)
def test_a_misspelt_name_is_asked_about(name: str, meant: str) -> None:
    (sentence,) = warned({name: "x"})
    assert sentence.startswith(f"{name} is not a setting of vault-ml: did you mean {meant}")


def test_what_others_put_into_a_pods_environment_is_not_ours_to_judge() -> None:
    links = {
        f"{service}_{part}": "x"
        for service in ("TRITON", "KAFKA", "VAULT", "VAULT_ML", "VAULT_API", "QUEUE")
        for part in (
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_GRPC",
            "PORT",
            "PORT_8001_TCP",
            "PORT_80_TCP_ADDR",
        )
    }
    usual = [
        "PATH",
        "HOME",
        "HOSTNAME",
        "HTTP_PROXY",
        "http_proxy",
        "NO_PROXY",
        "VAULT_TOKEN",
        "KAFKA_HEAP_OPTS",
        "LOG_DIR",
        "TZ",
        "LANG",
    ]
    usual += ["VAULT_ML_CACHE", "PYTHONUNBUFFERED", "OTEL_EXPORTER_OTLP_ENDPOINT", "VAULT_ADDR"]
    assert warned(links | dict.fromkeys(usual, "x")) == []


@pytest.mark.parametrize("given", ["GPU-8f1c", "all", "0"])
def test_a_gpu_held_by_a_consumer_is_told_to_be_given_back(given: str) -> None:
    (sentence,) = warned({"NVIDIA_VISIBLE_DEVICES": given})
    assert "remove nvidia.com/gpu from this Deployment" in sentence


def test_a_gpu_device_in_a_pod_is_told_to_be_given_back(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    (sentence,) = warned({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
    assert "remove nvidia.com/gpu from this Deployment" in sentence
    assert warned({}, tmp_path) == []  # a developer's machine


@pytest.mark.parametrize("given", ["", "none", "void"])
def test_a_consumer_without_a_gpu_is_not_warned(given: str) -> None:
    assert warned({"NVIDIA_VISIBLE_DEVICES": given, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == []


def test_a_login_that_is_not_used_is_told_so_without_showing_it() -> None:
    sentences = warned(SASL | {"KAFKA_SECURITY": "PLAINTEXT"})
    assert [sentence.split()[0] for sentence in sentences] == ["KAFKA_USERNAME", "KAFKA_PASSWORD"]
    assert "kafka-password" not in "".join(sentences)


def test_certificates_without_tls_are_told_so() -> None:
    sentences = warned(
        {"KAFKA_CA_FILE": "/ca.pem", "VAULT_CA_FILE": "/ca.pem", "VAULT_API_URL": "http://vault"}
    )
    assert [sentence.split()[0] for sentence in sentences] == ["KAFKA_CA_FILE", "VAULT_CA_FILE"]
