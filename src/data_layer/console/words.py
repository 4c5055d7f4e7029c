"""Words for what the services name in code: statuses, roles, actions of the audit trail, steps of long work.

A test requires a word for each value that a page may show; the translators of ``locale`` write it in their languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from data_layer.entities.enums import (
    ApiScope,
    AuditAction,
    AuditCategory,
    AuditLevel,
    CodeStack,
    FactorKind,
    GenerationStatus,
    UserRole,
    UserStatus,
)
from data_layer.schemas.doctor import Outcome
from data_layer.services.files.check import Problem


def N_(message: str) -> str:  # noqa: N802  (what gettext calls a text that is translated later)
    """Mark a text for ``make translations``."""
    return message


OF_VALUES: Mapping[type[StrEnum], Mapping[str, str]] = {
    UserStatus: {
        UserStatus.ACTIVE: N_("active"),
        UserStatus.INACTIVE: N_("closed"),
        UserStatus.SUSPENDED: N_("suspended"),
        UserStatus.PENDING: N_("not verified"),
    },
    UserRole: {
        UserRole.USER: N_("user"),
        UserRole.MODERATOR: N_("moderator"),
        UserRole.ADMIN: N_("administrator"),
    },
    ApiScope: {
        ApiScope.READ: N_("read"),
        ApiScope.WRITE: N_("write"),
        ApiScope.GENERATE: N_("generate"),
        ApiScope.ADMIN: N_("administer"),
    },
    FactorKind: {
        FactorKind.TOTP: N_("authenticator app"),
        FactorKind.PASSKEY: N_("passkey"),
    },
    GenerationStatus: {
        GenerationStatus.PENDING: N_("waiting"),
        GenerationStatus.PROCESSING: N_("running"),
        GenerationStatus.COMPLETED: N_("complete"),
        GenerationStatus.FAILED: N_("failed"),
        GenerationStatus.CANCELLED: N_("cancelled"),
    },
    AuditLevel: {
        AuditLevel.INFO: N_("information"),
        AuditLevel.WARNING: N_("warning"),
        AuditLevel.ERROR: N_("error"),
        AuditLevel.CRITICAL: N_("critical"),
    },
    AuditCategory: {
        AuditCategory.AUTHENTICATION: N_("Logging in"),
        AuditCategory.AUTHORIZATION: N_("Permissions"),
        AuditCategory.DATA_ACCESS: N_("Reading of data"),
        AuditCategory.DATA_MODIFICATION: N_("Changes of data"),
        AuditCategory.SECURITY: N_("Security"),
        AuditCategory.ADMINISTRATION: N_("Administration"),
        AuditCategory.SYSTEM: N_("System"),
        AuditCategory.COMPLIANCE: N_("Compliance"),
    },
    AuditAction: {
        AuditAction.USER_LOGIN: N_("Logged in"),
        AuditAction.USER_LOGOUT: N_("Logged out"),
        AuditAction.USER_REGISTER: N_("Registered"),
        AuditAction.USER_UPDATE_PROFILE: N_("Changed the profile"),
        AuditAction.USER_CHANGE_PASSWORD: N_("Changed the password"),
        AuditAction.USER_DELETE_ACCOUNT: N_("Deleted the account"),
        AuditAction.USER_VERIFY_EMAIL: N_("Confirmed the email address"),
        AuditAction.USER_RESET_PASSWORD: N_("Reset the password"),
        AuditAction.USER_CREATE_API_KEY: N_("Made an API key"),
        AuditAction.USER_REVOKE_API_KEY: N_("Revoked an API key"),
        AuditAction.USER_ADD_FACTOR: N_("Added a second factor"),
        AuditAction.USER_REMOVE_FACTOR: N_("Removed a second factor"),
        AuditAction.PROJECT_CREATE: N_("Created a project"),
        AuditAction.PROJECT_UPDATE: N_("Changed a project"),
        AuditAction.PROJECT_DELETE: N_("Deleted a project"),
        AuditAction.PROJECT_ARCHIVE: N_("Archived a project"),
        AuditAction.PROJECT_RESTORE: N_("Restored a project"),
        AuditAction.PROJECT_SHARE: N_("Shared a project"),
        AuditAction.PROJECT_UNSHARE: N_("Ended the sharing of a project"),
        AuditAction.PROJECT_CLONE: N_("Copied a project"),
        AuditAction.CODE_GENERATE: N_("Generated code"),
        AuditAction.CODE_UPDATE: N_("Changed code"),
        AuditAction.CODE_DELETE: N_("Deleted code"),
        AuditAction.CODE_COPY: N_("Copied code"),
        AuditAction.CODE_DOWNLOAD: N_("Downloaded code"),
        AuditAction.CODE_RATE: N_("Rated code"),
        AuditAction.IMAGE_GENERATE: N_("Generated an image"),
        AuditAction.IMAGE_UPDATE: N_("Changed an image"),
        AuditAction.IMAGE_DELETE: N_("Deleted an image"),
        AuditAction.IMAGE_DOWNLOAD: N_("Downloaded an image"),
        AuditAction.IMAGE_RATE: N_("Rated an image"),
        AuditAction.DESIGN_CREATE: N_("Created a design system"),
        AuditAction.DESIGN_UPDATE: N_("Changed a design system"),
        AuditAction.DESIGN_DELETE: N_("Deleted a design system"),
        AuditAction.SESSION_CREATE: N_("Began a session"),
        AuditAction.SESSION_EXTEND: N_("Extended a session"),
        AuditAction.SESSION_REVOKE: N_("Ended a session"),
        AuditAction.SESSION_EXPIRE: N_("Session expired"),
        AuditAction.SECURITY_LOGIN_FAILED: N_("Failed to log in"),
        AuditAction.SECURITY_ACCOUNT_LOCKED: N_("Account locked"),
        AuditAction.SECURITY_ACCOUNT_UNLOCKED: N_("Account unlocked"),
        AuditAction.SECURITY_SUSPICIOUS_ACTIVITY: N_("Suspicious activity"),
        AuditAction.SECURITY_DATA_EXPORT: N_("Exported personal data"),
        AuditAction.SECURITY_PRIVACY_SETTINGS: N_("Changed privacy settings"),
        AuditAction.ADMIN_USER_CREATE: N_("Created an account"),
        AuditAction.ADMIN_USER_UPDATE: N_("Changed an account"),
        AuditAction.ADMIN_USER_DELETE: N_("Erased an account"),
        AuditAction.ADMIN_USER_SUSPEND: N_("Suspended an account"),
        AuditAction.ADMIN_USER_UNSUSPEND: N_("Ended a suspension"),
        AuditAction.ADMIN_SYSTEM_CONFIG: N_("Changed the configuration"),
        AuditAction.ADMIN_DATA_EXPORT: N_("Exported data"),
        AuditAction.ADMIN_BUDGET_UPDATE: N_("Changed a budget"),
        AuditAction.ADMIN_BULK_ACTION: N_("Changed many things at once"),
        AuditAction.SYSTEM_STARTUP: N_("Service started"),
        AuditAction.SYSTEM_SHUTDOWN: N_("Service stopped"),
        AuditAction.SYSTEM_ERROR: N_("System error"),
        AuditAction.SYSTEM_MAINTENANCE: N_("Maintenance"),
        AuditAction.SYSTEM_BACKUP: N_("Backup"),
        AuditAction.SYSTEM_RESTORE: N_("Restored a backup"),
    },
    Outcome: {
        Outcome.OK: N_("ok"),
        Outcome.WARNING: N_("warning"),
        Outcome.FAILED: N_("failed"),
        Outcome.SKIPPED: N_("skipped"),
    },
    Problem: {
        Problem.MISSING: N_("missing"),
        Problem.ORPHAN: N_("unknown"),
        Problem.WRONG_SIZE: N_("wrong size"),
        Problem.WRONG_HASH: N_("wrong content"),
        Problem.WRONG_HEADERS: N_("wrong headers"),
    },
    CodeStack: {
        CodeStack.HTML_TAILWIND: "HTML + Tailwind",
        CodeStack.HTML_CSS: "HTML + CSS",
        CodeStack.REACT_TAILWIND: "React + Tailwind",
        CodeStack.VUE_TAILWIND: "Vue + Tailwind",
        CodeStack.BOOTSTRAP: "Bootstrap",
        CodeStack.IONIC_TAILWIND: "Ionic + Tailwind",
        CodeStack.SVG: "SVG",
    },
}
"""The words for values of enumerations. Technologies are called the same in every language."""

MAINTENANCE = {
    "sessions_removed": N_("Sessions removed"),
    "refresh_tokens_removed": N_("Refresh tokens removed"),
    "api_keys_removed": N_("API keys removed"),
    "session_changes_removed": N_("Notes of ended sessions removed"),
    "idempotency_keys_removed": N_("Notes of repeatable requests removed"),
    "login_attempts_removed": N_("Failed logins removed"),
    "projects_removed": N_("Projects removed"),
    "variants_expired": N_("Variants ended whose writer had stopped"),
    "generation_events_removed": N_("Events of generations removed"),
    "mails_removed": N_("Mails removed"),
    "projects_indexed": N_("Projects indexed for the search"),
    "codes_packed": N_("Codes packed"),
    "code_bodies_removed": N_("Texts of codes removed"),
    "files_expired": N_("Expired files removed"),
    "uploads_abandoned": N_("Unfinished uploads removed"),
    "objects_removed": N_("Objects removed from the storage"),
    "images_given_thumbnails": N_("Images given their small pictures"),
    "exports_expired": N_("Exports whose time was over"),
    "exports_removed": N_("Old exports removed from the list"),
    "audit_partitions_made": N_("Months of the audit trail made"),
    "audit_partitions_dropped": N_("Months of the audit trail dropped"),
    "audit_partitions_moved": N_("Months of the audit trail moved"),
    "audit_triggers_restored": N_("Protections of the audit trail restored"),
}
"""What a round of maintenance has done, by the fields of ``MaintenanceReport``."""

CLEANUP = {
    "expired": N_("Expired files"),
    "abandoned": N_("Unfinished uploads"),
    "half_deleted": N_("Half-deleted objects"),
    "unreferenced": N_("Unreferenced objects"),
    "orphans": N_("Unknown objects"),
}
"""What cleaning up of files removes, by its steps."""

DOCTOR_PARTS = {
    "settings": N_("Settings"),
    "process": N_("Process"),
    "database": N_("Database"),
    "cache": N_("Cache"),
    "storage": N_("Storage"),
    "second_storage": N_("Second storage"),
    "mail": N_("Mail"),
    "openid": N_("Logging in with another service"),
}
"""What the doctor looks at."""

DOCTOR_CHECKS = {
    "values": N_("Values"),
    "unknown": N_("Unknown names"),
    "environment": N_("Environment"),
    "secrets": N_("Secrets"),
    "files": N_("Files"),
    "proxies": N_("Proxies"),
    "limits": N_("Limits"),
    "python": N_("Python"),
    "open_files": N_("Open files"),
    "memory": N_("Memory"),
    "folders": N_("Folders"),
    "clock": N_("Clock"),
    "server": N_("Server"),
    "address": N_("Address"),
    "login": N_("Login"),
    "primary": N_("Primary"),
    "version": N_("Version"),
    "tls": N_("Encryption"),
    "role": N_("Role"),
    "durability": N_("Durability"),
    "encoding": N_("Encoding"),
    "connections": N_("Connections"),
    "time_limits": N_("Time limits"),
    "extensions": N_("Extensions"),
    "pooler": N_("Pooler"),
    "direct_address": N_("Direct address"),
    "replicas": N_("Replicas"),
    "schema": N_("Tables"),
    "rights": N_("Rights"),
    "migration_rights": N_("Rights for migrations"),
    "audit_partitions": N_("Months of the audit trail"),
    "topology": N_("Topology"),
    "writes": N_("Writing"),
    "persistence": N_("Persistence"),
    "tracking": N_("Tracking"),
    "latency": N_("Latency"),
    "file_system": N_("File system"),
    "space": N_("Space"),
    "public": N_("Access by everybody"),
    "signed_urls": N_("Signed addresses"),
    "bucket": N_("Bucket"),
    "container": N_("Container"),
    "configured": N_("Configured"),
    "templates": N_("Templates"),
}
"""What the doctor checks, of whichever part."""

EVENT_KINDS = {
    "thinking": N_("Thoughts"),
    "assistant": N_("Answer"),
    "toolStart": N_("Tool started"),
    "toolResult": N_("Result of a tool"),
    "status": N_("Status"),
}
"""What happens while a variant is made, as Screenshot to Code names it; other applications have other names."""

SOURCES = {
    "api": N_("HTTP API"),
    "console": N_("Console"),
    "cli": N_("Command line"),
    "recorder": N_("Recorder"),
    "hosted": N_("Hosted application"),
    "import": N_("Import"),
    "maintenance": N_("Maintenance"),
    "mails": N_("Mails"),
}
"""Where an entry of the audit trail comes from."""

SCHEMA_STATES = {
    "up_to_date": N_("up to date"),
    "behind": N_("older than this version"),
    "ahead": N_("newer than this version"),
    "empty": N_("empty"),
    "foreign": N_("tables of another application"),
}
"""What the tables are to this version."""

LOG_LEVELS = {
    "error": N_("errors only"),
    "warn": N_("warnings and errors"),
    "info": N_("what happens"),
    "debug": N_("every detail"),
}
"""What each level logs."""

WEAK_PASSWORDS = {
    "too_long": N_("The password is too long."),
    "untypable": N_("The password holds a character that cannot be typed again. Remove it."),
    "too_short": N_("The password needs %(minimum)s characters or more. A few words in a row are easy to remember."),
    "common": N_("The password is one of the most common ones, which are tried first. Choose another."),
    "repetitive": N_("The password repeats a few characters, or is a sequence. Choose another."),
    "personal": N_("The password is the address or the name of the account. Choose another."),
}
"""Why a new password is refused, by the reason of ``WeakPasswordError``."""

REFUSALS = {
    "changed_meanwhile": N_("It was changed meanwhile. Open the page again, and then repeat your change."),
    "duplicate": N_("It is there already."),
    "generation_ended": N_("It has ended already."),
    "last_admin": N_("This is the last active administrator. Make another person one first."),
    "limit_reached": N_("You have as many of these as one person may have. Remove one first."),
    "permission_denied": N_("Your account has no right to do this, or the request came from another site."),
}
"""Why something was refused, by the code of the error."""

REFUSED_FIELDS = {
    "after": N_("The list has no such page any more. Begin with its first page."),
    "cursor": N_("The list has no such page any more. Begin with its first page."),
    "email": N_("No mail can be sent to this address."),
    "first_name": N_("The first name is missing, is too long, or holds a character that cannot be stored."),
    "last_name": N_("The last name is missing, is too long, or holds a character that cannot be stored."),
    "name": N_("The name is missing, is too long, or holds a character that cannot be stored."),
    "password": N_("Show the password, or a second factor, once more."),
    "scopes": N_("Choose at least one thing that the key may do."),
    "status": N_("Its state has changed meanwhile. Open the page again."),
    "user": N_("A person is named by the id of the account."),
}
"""What is wrong with a field that browsers let through, by the name that services have for it."""

OF_STORAGES = {"local": N_("local disk"), "azure": "Azure Blob Storage", "s3": "S3"}
"""Storages; those of vendors are called the same in every language."""
