"""Apple's `mlx_lm.server`: HTTP/1.0, no metrics, an empty model list without a hub cache."""

from __future__ import annotations

from mvllm_router.engines.base import Engine


class MLX(Engine):
    name = "mlx"
    health_path = "/health"
    default_capacity = 8
