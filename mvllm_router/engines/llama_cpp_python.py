"""`python -m llama_cpp.server`: no metrics, one request at a time, to be asked gently."""

from __future__ import annotations

from mvllm_router.engines.base import Engine, is_uuid


class LlamaCppPython(Engine):
    """The server of llama-cpp-python.

    By default any other request, even GET /v1/models, cuts a running stream; only
    /openapi.json does not take its lock. Its models are asked for while it is idle.
    """

    name = "llama-cpp-python"
    health_path = "/openapi.json"
    default_capacity = 1
    one_at_a_time = True

    def accepts_request_id(self, request_id: str) -> bool:
        """It answers 400 to an id that is no UUID."""
        return is_uuid(request_id)
