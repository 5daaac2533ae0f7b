"""A stand-in for an identity provider: it gives tokens to one client (OAuth 2.0, client credentials).

Tokens are signed as RFC 7515 and 7519 say (RS256), the key is shown as in RFC 7517.
"""

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote

import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://id.example.com"
AUDIENCE = "kafka"
TOKEN_SECONDS = 300


class IdentityProvider:
    """Serves `/token` and `/keys` on loopback, in the clear and over TLS, as a context manager.

    Attributes:
        ca_file: vouches for the certificate of `secure_token_url`.
        subject: who the tokens are for; the broker's name of the user.
        asked: the form of every request for a token that was granted.
        refusing: answer every request for a token with a 401, with a body that repeats the secret.
    """

    def __init__(self, directory: Path, client_id: str, client_secret: str) -> None:
        self.client_id, self.client_secret = client_id, client_secret
        self.subject = f"service-{client_id}"
        self.ca_file = directory / "identity-ca.pem"
        self.asked: list[dict[str, str]] = []
        self.refusing = False
        self._key = rsa.generate_private_key(65537, 2048)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        handler = type("Handler", (_Handler,), {"provider": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self._servers[1].socket = context.wrap_socket(self._servers[1].socket, server_side=True)
        plain, secure = (server.server_port for server in self._servers)
        self.token_url, self.keys_url = (f"http://127.0.0.1:{plain}/{name}" for name in ("token", "keys"))
        self.secure_token_url = f"https://127.0.0.1:{secure}/token"

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def keys(self) -> dict[str, Any]:
        """Return the public key as a set of JSON Web Keys."""
        numbers = self._key.public_key().public_numbers()
        parts = {"n": numbers.n, "e": numbers.e}
        encoded = {
            name: _encoded(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in parts.items()
        }
        return {"keys": [{"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", **encoded}]}

    def token(self, scope: str) -> str:
        """Return a signed token."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": self.subject, "scope": scope, "iat": now,
            "exp": now + TOKEN_SECONDS,
        }  # fmt: skip
        head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"


class _Handler(BaseHTTPRequestHandler):
    provider: IdentityProvider

    def do_GET(self) -> None:  # the base class's name
        self._answer(200, self.provider.keys())

    def do_POST(self) -> None:  # the base class's name
        provider = self.provider
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        known = unquote(login) == f"{provider.client_id}:{provider.client_secret}"
        if not known or provider.refusing or form.get("grant_type") != "client_credentials":
            said = f"client {login} is not known here, {provider.client_secret} neither"
            self._answer(401, {"error": "invalid_client", "error_description": said})
            return
        provider.asked.append(form)
        token = provider.token(form.get("scope", "all"))
        self._answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
