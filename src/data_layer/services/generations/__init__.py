"""Generations: started, streamed into, ended once, compared and restored."""

from data_layer.services.generations.expiry import end_expired
from data_layer.services.generations.publishing import LiveStreams
from data_layer.services.generations.service import GenerationService
from data_layer.services.generations.streams import GenerationStreams

__all__ = ["GenerationService", "GenerationStreams", "LiveStreams", "end_expired"]
