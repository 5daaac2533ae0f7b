"""Stands between a consumer and its Triton, hands everything on, and notes the priority of each request."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc  # type: ignore[import-untyped]  # ships no types, and only this fake asks for it
from tritonclient.grpc import service_pb2

_ANY_SIZE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class TritonSpy(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """A gRPC server whose `url` stands for that of the Triton behind it."""

    def __init__(self, triton_url: str) -> None:
        self._channel = grpc.insecure_channel(triton_url, options=_ANY_SIZE)
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=_ANY_SIZE)
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.priorities: list[int] = []

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401  # grpc ships no types
        """Return what answers a call: Triton's own answer, byte for byte."""
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(self._handed_on(method, self._channel.unary_unary(method)))

    def _handed_on(self, method: str, call: Callable[[bytes], bytes]) -> Callable[[bytes, Any], bytes]:
        def answer(request: bytes, context: Any) -> bytes:  # noqa: ANN401  # grpc ships no types
            if method.endswith("/ModelInfer"):
                parameters = service_pb2.ModelInferRequest.FromString(request).parameters
                self.priorities.append(parameters["priority"].uint64_param)
            try:
                return call(request)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return answer
