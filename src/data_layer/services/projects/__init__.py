"""Projects of people, and what operators see of them."""

from data_layer.services.projects.overview import ProjectDetails, ProjectRow
from data_layer.services.projects.service import ProjectService

__all__ = ["ProjectDetails", "ProjectRow", "ProjectService"]
