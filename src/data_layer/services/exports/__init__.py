"""Archives of everything about a person: jobs, and what makes them."""

from data_layer.services.exports.service import ExportService
from data_layer.services.exports.worker import ExportWorker

__all__ = ["ExportService", "ExportWorker"]
