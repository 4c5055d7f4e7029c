"""HTTP in, one service call, HTTP out."""

from data_layer.extras import require_extra

require_extra("service", "serving HTTP", "fastapi", "asgi_correlation_id")
