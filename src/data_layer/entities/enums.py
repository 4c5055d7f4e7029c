"""The closed sets of values: stored as text with a CHECK constraint, so that a migration can extend them."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import TYPE_CHECKING


class TextEnum(StrEnum):
    """Members that are their text."""

    if not TYPE_CHECKING:
        # An answer is written by asking each member for its value, and Enum's own property is a function in Python: a
        # list of 50 versions asks 350 times.
        value = property(operator.attrgetter("_value_"))


class UserStatus(TextEnum):
    """Whether an account can be used."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    SUSPENDED = "suspended"
    PENDING = "pending"


class UserRole(TextEnum):
    """What an account may do; each role includes the rights of those before it."""

    USER = "user"
    MODERATOR = "moderator"
    ADMIN = "admin"


class AuthProvider(TextEnum):
    """Who vouches for an account's identity."""

    LOCAL = "local"
    AZURE_AD = "azure_ad"
    GOOGLE = "google"
    GITHUB = "github"
    OIDC = "oidc"


class ProjectStatus(TextEnum):
    """Where a project is in its life; ``DELETED`` is a soft deletion, the row stays."""

    DRAFT = "draft"
    ACTIVE = "active"
    COMPLETED = "completed"
    ARCHIVED = "archived"
    DELETED = "deleted"


class ProjectType(TextEnum):
    """What the screenshot shows."""

    WEBSITE = "website"
    MOBILE_APP = "mobile_app"
    COMPONENT = "component"
    PROTOTYPE = "prototype"


class CodeStack(TextEnum):
    """Language and framework of the generated code."""

    HTML_TAILWIND = "html_tailwind"
    HTML_CSS = "html_css"
    REACT_TAILWIND = "react_tailwind"
    VUE_TAILWIND = "vue_tailwind"
    BOOTSTRAP = "bootstrap"
    IONIC_TAILWIND = "ionic_tailwind"
    SVG = "svg"


class GenerationProvider(TextEnum):
    """Whose language model wrote the code."""

    OPENAI = "openai"
    AZURE_OPENAI = "azure_openai"
    CLAUDE = "claude"
    GEMINI = "gemini"
    OPENROUTER = "openrouter"
    OTHER = "other"


class GenerationStatus(TextEnum):
    """Where a generation is; ``next_statuses`` lists the legal moves."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def next_statuses(self) -> frozenset[GenerationStatus]:
        """The statuses that may follow this one in a single move."""
        return _MOVES[self]

    @property
    def is_running(self) -> bool:
        """Whether it has not ended: more may follow."""
        return bool(_MOVES[self])


_MOVES = {
    GenerationStatus.PENDING: frozenset(
        {GenerationStatus.PROCESSING, GenerationStatus.CANCELLED, GenerationStatus.FAILED}
    ),
    GenerationStatus.PROCESSING: frozenset(
        {GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED}
    ),
    GenerationStatus.COMPLETED: frozenset(),
    GenerationStatus.FAILED: frozenset(),
    GenerationStatus.CANCELLED: frozenset(),
}


class GenerationType(TextEnum):
    """Why the code was generated: from nothing, as a change, or as a refinement."""

    CREATE = "create"
    UPDATE = "update"
    REFINE = "refine"


class RequestType(TextEnum):
    """What a request does: it asks for code, or puts code from elsewhere or from an earlier version in place."""

    CREATE = "create"
    UPDATE = "update"
    REFINE = "refine"
    IMPORT = "import"
    RESTORE = "restore"


class InputMode(TextEnum):
    """What a request shows to the model."""

    IMAGE = "image"
    VIDEO = "video"
    TEXT = "text"


class ImageProvider(TextEnum):
    """Whose model made an image; ``sizes`` lists what it can make."""

    DALLE3 = "dalle3"
    FLUX_SCHNELL = "flux_schnell"
    OPENAI = "openai"
    REPLICATE = "replicate"
    OTHER = "other"

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes, width x height in pixels, that this provider makes; empty where they are not known."""
        return _IMAGE_SIZES.get(self, ())


_IMAGE_SIZES = {
    ImageProvider.DALLE3: ("1024x1024", "1792x1024", "1024x1792"),
    ImageProvider.FLUX_SCHNELL: ("512x512", "768x768", "1024x1024", "1536x1024", "1024x1536"),
}


class ImageKind(TextEnum):
    """How an image came about."""

    GENERATED = "generated"
    EDITED = "edited"
    BACKGROUND_REMOVED = "background_removed"
    EXTRACTED = "extracted"
    UPLOADED = "uploaded"


class ImageQuality(TextEnum):
    """How much detail was asked for."""

    STANDARD = "standard"
    HD = "hd"


class ImageStyle(TextEnum):
    """How dramatic an image was asked to be."""

    VIVID = "vivid"
    NATURAL = "natural"


class SessionStatus(TextEnum):
    """Whether a session is accepted."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    INVALID = "invalid"


class SessionType(TextEnum):
    """What kind of client holds the session."""

    WEB = "web"
    API = "api"
    MOBILE = "mobile"
    DESKTOP = "desktop"


class ApiScope(TextEnum):
    """What an API key may do for the person whose it is."""

    READ = "read"
    WRITE = "write"
    GENERATE = "generate"
    ADMIN = "admin"


class FactorKind(TextEnum):
    """What somebody shows beside the password."""

    TOTP = "totp"
    PASSKEY = "passkey"


class AuditLevel(TextEnum):
    """How serious an audited event is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class AuditCategory(TextEnum):
    """What an audited event is about."""

    AUTHENTICATION = "authentication"
    AUTHORIZATION = "authorization"
    DATA_ACCESS = "data_access"
    DATA_MODIFICATION = "data_modification"
    SECURITY = "security"
    ADMINISTRATION = "administration"
    SYSTEM = "system"
    COMPLIANCE = "compliance"


class AuditAction(TextEnum):
    """What happened."""

    USER_LOGIN = "user_login"
    USER_LOGOUT = "user_logout"
    USER_REGISTER = "user_register"
    USER_UPDATE_PROFILE = "user_update_profile"
    USER_CHANGE_PASSWORD = "user_change_password"  # noqa: S105  (the name of an action)
    USER_DELETE_ACCOUNT = "user_delete_account"
    USER_VERIFY_EMAIL = "user_verify_email"
    USER_RESET_PASSWORD = "user_reset_password"  # noqa: S105  (the name of an action)
    USER_CREATE_API_KEY = "user_create_api_key"
    USER_REVOKE_API_KEY = "user_revoke_api_key"
    USER_ADD_FACTOR = "user_add_factor"
    USER_REMOVE_FACTOR = "user_remove_factor"
    PROJECT_CREATE = "project_create"
    PROJECT_UPDATE = "project_update"
    PROJECT_DELETE = "project_delete"
    PROJECT_ARCHIVE = "project_archive"
    PROJECT_RESTORE = "project_restore"
    PROJECT_SHARE = "project_share"
    PROJECT_UNSHARE = "project_unshare"
    PROJECT_CLONE = "project_clone"
    CODE_GENERATE = "code_generate"
    CODE_UPDATE = "code_update"
    CODE_DELETE = "code_delete"
    CODE_COPY = "code_copy"
    CODE_DOWNLOAD = "code_download"
    CODE_RATE = "code_rate"
    IMAGE_GENERATE = "image_generate"
    IMAGE_UPDATE = "image_update"
    IMAGE_DELETE = "image_delete"
    IMAGE_DOWNLOAD = "image_download"
    IMAGE_RATE = "image_rate"
    DESIGN_CREATE = "design_create"
    DESIGN_UPDATE = "design_update"
    DESIGN_DELETE = "design_delete"
    SESSION_CREATE = "session_create"
    SESSION_EXTEND = "session_extend"
    SESSION_REVOKE = "session_revoke"
    SESSION_EXPIRE = "session_expire"
    SECURITY_LOGIN_FAILED = "security_login_failed"
    SECURITY_ACCOUNT_LOCKED = "security_account_locked"
    SECURITY_ACCOUNT_UNLOCKED = "security_account_unlocked"
    SECURITY_SUSPICIOUS_ACTIVITY = "security_suspicious_activity"
    SECURITY_DATA_EXPORT = "security_data_export"
    SECURITY_PRIVACY_SETTINGS = "security_privacy_settings"
    ADMIN_USER_CREATE = "admin_user_create"
    ADMIN_USER_UPDATE = "admin_user_update"
    ADMIN_USER_DELETE = "admin_user_delete"
    ADMIN_USER_SUSPEND = "admin_user_suspend"
    ADMIN_USER_UNSUSPEND = "admin_user_unsuspend"
    ADMIN_SYSTEM_CONFIG = "admin_system_config"
    ADMIN_DATA_EXPORT = "admin_data_export"
    ADMIN_BUDGET_UPDATE = "admin_budget_update"
    ADMIN_BULK_ACTION = "admin_bulk_action"
    SYSTEM_STARTUP = "system_startup"
    SYSTEM_SHUTDOWN = "system_shutdown"
    SYSTEM_ERROR = "system_error"
    SYSTEM_MAINTENANCE = "system_maintenance"
    SYSTEM_BACKUP = "system_backup"
    SYSTEM_RESTORE = "system_restore"


class UsageOutcome(TextEnum):
    """What became of work that was paid for."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StorageKind(TextEnum):
    """Where the bytes of a file are."""

    LOCAL = "local"
    AZURE = "azure"
    S3 = "s3"


class FileState(TextEnum):
    """Whether a file can be read: one that is pending is not verified yet, one that is deleted is being removed."""

    PENDING = "pending"
    STORED = "stored"
    DELETED = "deleted"


class FileEncoding(TextEnum):
    """How the bytes of a file are packed in the storage, as HTTP's Content-Encoding names it."""

    GZIP = "gzip"


class MailKind(TextEnum):
    """What a mail is about."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105  (the name of a kind)
    ADDRESS_TAKEN = "address_taken"
    EXPORT_READY = "export_ready"


class ExportStatus(TextEnum):
    """How far an export of everything about a person is: one that has expired has no archive any more."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


class MailStatus(TextEnum):
    """What became of a mail: one that is dropped was not worth sending any more."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"
