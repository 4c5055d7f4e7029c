"""The tables, one short file each, and the enumerations of their values."""

import data_layer.entities.validation  # noqa: F401  (importing it puts the checks in force)
from data_layer.entities.api_key import ApiKey
from data_layer.entities.audit_log import AuditLog
from data_layer.entities.base import Entity
from data_layer.entities.code_body import code_bodies
from data_layer.entities.design_system import DesignSystem
from data_layer.entities.export import Export
from data_layer.entities.generated_code import GeneratedCode
from data_layer.entities.generated_image import GeneratedImage
from data_layer.entities.generation import Generation, GenerationEvent
from data_layer.entities.idempotency_key import idempotency_keys
from data_layer.entities.login_attempt import login_attempts
from data_layer.entities.mail import Mail
from data_layer.entities.project import Project
from data_layer.entities.project_search import project_search, project_search_changes
from data_layer.entities.second_factor import SecondFactor, recovery_codes
from data_layer.entities.session import RefreshToken, Session, session_changes
from data_layer.entities.share import Share
from data_layer.entities.stored_file import FileReference, StoredFile
from data_layer.entities.usage import Budget, UsageEntry, budget_reservations, usage_days, usage_totals
from data_layer.entities.user import User, UserIdentity

__all__ = [
    "ApiKey",
    "AuditLog",
    "Budget",
    "DesignSystem",
    "Entity",
    "Export",
    "FileReference",
    "GeneratedCode",
    "GeneratedImage",
    "Generation",
    "GenerationEvent",
    "Mail",
    "Project",
    "RefreshToken",
    "SecondFactor",
    "Session",
    "Share",
    "StoredFile",
    "UsageEntry",
    "User",
    "UserIdentity",
    "budget_reservations",
    "code_bodies",
    "idempotency_keys",
    "login_attempts",
    "project_search",
    "project_search_changes",
    "recovery_codes",
    "session_changes",
    "usage_days",
    "usage_totals",
]
