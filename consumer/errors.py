"""Everything that can go wrong, and what then happens to the message.

    VaultMLError
    |-- SetupError                    ours: say what was expected and found, and stop
    |   |-- SettingsError             a setting is missing or wrong; lists every problem at once
    |   |-- ContractError             the model does not keep the contract
    |   `-- StreamSetupError          no such topic, login refused, no right to the group
    |       |-- TransactionsRefused   KAFKA_DELIVERY is exactly-once, and Kafka does not let us
    |       `-- ProducerEnded         Kafka ended our transactions: begin anew
    |           `-- ProducerFenced    another pod writes under our transactional id
    |-- Outage                        wait with jitter, pause the partitions, keep the place
    |   |-- VaultAway                 Vault does not answer, or refuses our keys
    |   |-- TritonAway                Triton does not answer or drains
    |   |   `-- TritonFull            its queue is full: fewer requests first, then wait
    |   |-- DiskFull                  no room for a download
    |   `-- BrokerAway                Kafka does not take the result
    `-- RecordingError                this recording only; the next one goes on
        |-- MayHeal                   try again until RECORDING_DEADLINE, then dead letter `retry_exhausted`
        |   |-- RecordingUnavailable  5xx, time-out or a broken download for it alone
        |   |-- RecordingUnfinished   only the head of the file is there (a `free` box)
        |   |-- SignedUrlExpired      the link has run out; the next try asks for a new one
        |   |-- InferenceFailed       Triton answered, with a failure, for its frames
        |   |-- ModelChanged          the version that it was asked of is not served, or not any more
        |   |-- WorkerDied            the worker process died or hung on it
        |   |   |-- WorkerTooLarge      the worker needed more memory than it may have
        |   |   `-- PodDied             the whole pod ended while it was tried
        |   `-- Unforeseen            a fault of ours; tried again as if a worker had died
        `-- NeverHeals                dead letter at once, with the reason
            |-- EventMalformed        not JSON, no key, wrong types
            |-- RecordingRefused      401/403/404 for it while Vault is fine
            |-- UrlForbidden          a link to a place that we do not follow
            |-- RecordingTooLarge     over MAX_RECORDING_BYTES, or more pixels or samples than we read
            |-- RecordingEncrypted    the file is encrypted and we hold no key
            |-- DecryptionFailed      the file is encrypted, and not with our key
            |-- MessageTooLarge       the topic does not take its result, cut to MAX_MESSAGE_BYTES as it is
            `-- RecordingUndecodable  no frame could be decoded

A recording without anything to look at (zero bytes, `request: "ondemand"`, no video key) is not an error:
it ends as the outcome `skipped:<reason>`.
"""

from typing import Literal

Part = Literal["vault", "triton", "kafka", "disk", "workers"]
"""What all recordings share."""


class VaultMLError(Exception):
    """Root of the tree; `reason` is a short stable word for headers, metrics and logs."""

    reason = "internal"
    part: Part | None = None
    """What all recordings share and this error speaks of; None where it speaks of one recording alone."""


class SetupError(VaultMLError):
    """Ours to fix: the program names what it expected and found, and stops."""

    reason = "setup"


class SettingsError(SetupError):
    """One or more settings are missing or wrong.

    Args:
        problems: one sentence per setting, each beginning with the variable's name.
    """

    reason = "settings"

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ContractError(SetupError):
    """The model that Triton serves does not keep the contract of consumer/contract.py."""

    reason = "contract"
    part = "triton"


class StreamSetupError(SetupError):
    """Kafka answers, but not for us: no such topic, login refused, not authorised."""

    reason = "stream_setup"


class TransactionsRefused(StreamSetupError):
    """Kafka does not let us use our transactional id; only KAFKA_DELIVERY=at-least-once goes without one."""

    reason = "transactions_refused"


class ProducerEnded(StreamSetupError):
    """Our transactional producer writes no more; a new one goes on from what is committed."""

    reason = "producer_ended"


class ProducerFenced(ProducerEnded):
    """Another producer has taken our transactional id: two pods share POD_NAME, or this one was given up."""

    reason = "producer_fenced"


class Outage(VaultMLError):
    """Something that every recording needs is away: wait, keep the place, never dead-letter."""

    reason = "outage"


class VaultAway(Outage):
    """Vault does not answer its /ping, or answers it with a refusal of our keys."""

    reason = "vault_away"
    part = "vault"


class TritonAway(Outage):
    """Triton does not answer, or is draining."""

    reason = "triton_away"
    part = "triton"


class TritonFull(TritonAway):
    """Triton rejects because its queue is full."""

    reason = "triton_full"


class DiskFull(Outage):
    """A recording cannot be written to TMPDIR."""

    reason = "disk_full"
    part = "disk"


class BrokerAway(Outage):
    """Kafka did not confirm a result in time."""

    reason = "broker_away"
    part = "kafka"


class RecordingError(VaultMLError):
    """Concerns one recording; the others go on."""

    reason = "recording"


class MayHeal(RecordingError):
    """Worth another try until RECORDING_DEADLINE; then a dead letter `retry_exhausted`.

    Where it names a part, several different recordings in a row that fail so mean that the part is away.
    """

    reason = "may_heal"


class RecordingUnavailable(MayHeal):
    """5xx, time-out or a broken download, for this recording."""

    reason = "unavailable"
    part = "vault"


class RecordingUnfinished(MayHeal):
    """The file is only a head (`free` box without moov): the camera is still writing, or crashed."""

    reason = "unfinished"


class SignedUrlExpired(MayHeal):
    """The signed link was refused as expired; the next try asks Vault for a new one."""

    reason = "signed_url_expired"


class InferenceFailed(MayHeal):
    """Triton answers, but failed on the frames of this recording."""

    reason = "inference_failed"
    part = "triton"


class ModelChanged(MayHeal):
    """Triton does not serve the version that was asked: look again, with the one that is named now."""

    reason = "model_changed"


class WorkerDied(MayHeal):
    """The worker process died or outlived its time limit on this recording."""

    reason = "worker_died"
    part = "workers"


class WorkerTooLarge(WorkerDied):
    """The worker process was ended on this recording because it needed more memory than a worker may have."""

    reason = "worker_too_large"


class PodDied(WorkerDied):
    """The pod ended without a word while this recording was the one suspect, after as much before."""

    reason = "pod_died"


class Unforeseen(MayHeal):
    """A fault of ours, met on this recording; its traceback is in the log."""

    reason = "unforeseen"
    part = "workers"


class NeverHeals(RecordingError):
    """No further try can help: dead letter at once."""

    reason = "never_heals"


class EventMalformed(NeverHeals):
    """The message is not a recording event: not JSON, no key, or a key of the wrong type."""

    reason = "malformed"


class RecordingRefused(NeverHeals):
    """Vault refuses this recording (4xx) while its /ping is fine; or a local file cannot be read."""

    reason = "refused"


class UrlForbidden(NeverHeals):
    """The link points to a host that we do not follow (SIGNED_URL_HOSTS) or to an inside address."""

    reason = "url_forbidden"


class RecordingTooLarge(NeverHeals):
    """More bytes than MAX_RECORDING_BYTES, or more pixels, samples or boxes than we read."""

    reason = "too_large"


class RecordingEncrypted(NeverHeals):
    """The file begins with `Salted__`: an agent encrypted it, and we hold no key."""

    reason = "encrypted"


class DecryptionFailed(NeverHeals):
    """The file begins with `Salted__`, and what our key makes of it is no video: another key made it."""

    reason = "wrong_key"


class RecordingUndecodable(NeverHeals):
    """Not a video, no video track, no keyframe, or nothing in it could be decoded."""

    reason = "undecodable"


class MessageTooLarge(NeverHeals):
    """The topic's own limit is below MAX_MESSAGE_BYTES, so it does not take this result."""

    reason = "message_too_large"
