"""Setting fields of the way to Triton: TLS, a client certificate, a key; the model's side reads them too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from consumer import setting_types
from consumer.variables import Variable


class TritonAccessSettings(BaseModel):
    """What a program needs that asks Triton, beside the address. Built by load_triton_access()."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    triton_ca_file: Annotated[
        setting_types.CaFile | None,
        Variable(
            "A file with the certificates that Triton's must be signed by (PEM).",
            "a file of certificates",
            default_words="those that gRPC brings",
        ),
    ] = None
    triton_certificate_file: Annotated[
        Path | None,
        Variable(
            "A file with our certificate, for a Triton that asks who we are (PEM); with TRITON_KEY_FILE.",
            "a file with a certificate",
        ),
    ] = None
    triton_key_file: Annotated[
        Path | None,
        Variable(
            "A file with the private key of TRITON_CERTIFICATE_FILE (PEM, without a password).",
            "a file with a private key",
        ),
    ] = None
    triton_tls: Annotated[
        bool,
        Variable(
            "Whether the connection to Triton is encrypted.",
            "true or false",
            default_words="`true` where TRITON_CA_FILE or TRITON_CERTIFICATE_FILE is set",
        ),
    ] = Field(
        default_factory=lambda values: any(
            values.get(name) for name in ("triton_ca_file", "triton_certificate_file")
        )
    )
    triton_server_name: Annotated[
        str | None,
        Field(min_length=1, max_length=253),
        Variable("The name in Triton's certificate, where it is not the one in TRITON_URL.", "a host's name"),
    ] = None
    triton_access_key: Annotated[
        setting_types.ProtocolKeySecret | None,
        Variable(
            "NAME=VALUE of a Triton whose protocols for inference, metadata, model-config or health are "
            "restricted.",
            "NAME=VALUE, as after the colon of the server's --grpc-restricted-protocol",
            secret=True,
        ),
    ] = None

    origins: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Where each variable that is not at its default came from, by its own name."""
