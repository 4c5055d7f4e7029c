"""The data layer of Screenshot to Code: PostgreSQL, Redis and file storage behind one asynchronous library.

Importing this package opens nothing. Its names are loaded when they are first used, so importing it is quick, and
programs pay only for what they use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_layer.config import Environment, Settings, SslMode
    from data_layer.context import RequestContext, current_context, request_context
    from data_layer.entities import AuditLog, GeneratedCode, GeneratedImage, Project, Session, User
    from data_layer.entities.enums import (
        ApiScope,
        AuditAction,
        AuditCategory,
        AuditLevel,
        AuthProvider,
        CodeStack,
        ExportStatus,
        FactorKind,
        FileEncoding,
        FileState,
        GenerationProvider,
        GenerationStatus,
        GenerationType,
        ImageKind,
        ImageProvider,
        ImageQuality,
        ImageStyle,
        InputMode,
        MailKind,
        MailStatus,
        ProjectStatus,
        ProjectType,
        RequestType,
        SessionStatus,
        SessionType,
        StorageKind,
        UsageOutcome,
        UserRole,
        UserStatus,
    )
    from data_layer.errors import DataLayerError
    from data_layer.instance import (
        check_data_layer_health,
        get_data_layer_stats,
        initialize_data_layer,
        shutdown_data_layer,
    )
    from data_layer.layer import DataLayer
    from data_layer.observability.timing import timed
    from data_layer.schemas.actors import Actor
    from data_layer.schemas.generations import CodePiece, GenerationRequest, VariantModel, VariantResult, WholeCode
    from data_layer.schemas.projects import ProjectChanges, ProjectDraft, ProjectFilter, ProjectOrder
    from data_layer.schemas.users import ExternalIdentity, ProfileChanges

_MODULES = {
    "data_layer.config": ("Environment", "Settings", "SslMode"),
    "data_layer.context": ("RequestContext", "current_context", "request_context"),
    "data_layer.entities": ("AuditLog", "GeneratedCode", "GeneratedImage", "Project", "Session", "User"),
    "data_layer.entities.enums": (
        "ApiScope",
        "AuditAction",
        "AuditCategory",
        "AuditLevel",
        "AuthProvider",
        "CodeStack",
        "ExportStatus",
        "FactorKind",
        "FileEncoding",
        "FileState",
        "GenerationProvider",
        "GenerationStatus",
        "GenerationType",
        "ImageKind",
        "ImageProvider",
        "ImageQuality",
        "ImageStyle",
        "InputMode",
        "MailKind",
        "MailStatus",
        "ProjectStatus",
        "ProjectType",
        "RequestType",
        "SessionStatus",
        "SessionType",
        "StorageKind",
        "UsageOutcome",
        "UserRole",
        "UserStatus",
    ),
    "data_layer.errors": ("DataLayerError",),
    "data_layer.instance": (
        "check_data_layer_health",
        "get_data_layer_stats",
        "initialize_data_layer",
        "shutdown_data_layer",
    ),
    "data_layer.layer": ("DataLayer",),
    "data_layer.observability.timing": ("timed",),
    "data_layer.schemas.actors": ("Actor",),
    "data_layer.schemas.generations": (
        "CodePiece",
        "GenerationRequest",
        "VariantModel",
        "VariantResult",
        "WholeCode",
    ),
    "data_layer.schemas.projects": ("ProjectChanges", "ProjectDraft", "ProjectFilter", "ProjectOrder"),
    "data_layer.schemas.users": ("ExternalIdentity", "ProfileChanges"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Actor",
    "ApiScope",
    "AuditAction",
    "AuditCategory",
    "AuditLevel",
    "AuditLog",
    "AuthProvider",
    "CodePiece",
    "CodeStack",
    "DataLayer",
    "DataLayerError",
    "Environment",
    "ExportStatus",
    "ExternalIdentity",
    "FactorKind",
    "FileEncoding",
    "FileState",
    "GeneratedCode",
    "GeneratedImage",
    "GenerationProvider",
    "GenerationRequest",
    "GenerationStatus",
    "GenerationType",
    "ImageKind",
    "ImageProvider",
    "ImageQuality",
    "ImageStyle",
    "InputMode",
    "MailKind",
    "MailStatus",
    "ProfileChanges",
    "Project",
    "ProjectChanges",
    "ProjectDraft",
    "ProjectFilter",
    "ProjectOrder",
    "ProjectStatus",
    "ProjectType",
    "RequestContext",
    "RequestType",
    "Session",
    "SessionStatus",
    "SessionType",
    "Settings",
    "SslMode",
    "StorageKind",
    "UsageOutcome",
    "User",
    "UserRole",
    "UserStatus",
    "VariantModel",
    "VariantResult",
    "WholeCode",
    "check_data_layer_health",
    "current_context",
    "get_data_layer_stats",
    "initialize_data_layer",
    "request_context",
    "shutdown_data_layer",
    "timed",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
