"""The calls of the hosted application, which is not changed for it: those of its page, and those of its back end."""

from data_layer.extras import require_extra

require_extra("service", "answering the hosted application", "fastapi")
