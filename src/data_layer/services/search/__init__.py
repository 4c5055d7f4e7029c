"""Full-text search over projects: the index, the language of queries, and what of a project they found."""

from data_layer.services.search.index import SearchIndex
from data_layer.services.search.service import ProjectSearch

__all__ = ["ProjectSearch", "SearchIndex"]
