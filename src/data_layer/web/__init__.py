"""What every HTTP face needs: who calls, problem answers, conditions, compression, proxies, hostile pages."""

from data_layer.extras import require_extra

require_extra("service", "serving HTTP", "fastapi", "asgi_correlation_id")
