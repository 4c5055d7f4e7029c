"""The values that the API answers and takes.

Written by `make clients` from docs/reference/openapi.json; changes here are lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from data_layer.client.base import Answer

ApiScope = Literal["read", "write", "generate", "admin"]
"""What an API key may do for the person whose it is."""
AuditAction = Literal[
    "user_login",
    "user_logout",
    "user_register",
    "user_update_profile",
    "user_change_password",
    "user_delete_account",
    "user_verify_email",
    "user_reset_password",
    "user_create_api_key",
    "user_revoke_api_key",
    "user_add_factor",
    "user_remove_factor",
    "project_create",
    "project_update",
    "project_delete",
    "project_archive",
    "project_restore",
    "project_share",
    "project_unshare",
    "project_clone",
    "code_generate",
    "code_update",
    "code_delete",
    "code_copy",
    "code_download",
    "code_rate",
    "image_generate",
    "image_update",
    "image_delete",
    "image_download",
    "image_rate",
    "design_create",
    "design_update",
    "design_delete",
    "session_create",
    "session_extend",
    "session_revoke",
    "session_expire",
    "security_login_failed",
    "security_account_locked",
    "security_account_unlocked",
    "security_suspicious_activity",
    "security_data_export",
    "security_privacy_settings",
    "admin_user_create",
    "admin_user_update",
    "admin_user_delete",
    "admin_user_suspend",
    "admin_user_unsuspend",
    "admin_system_config",
    "admin_data_export",
    "admin_budget_update",
    "admin_bulk_action",
    "system_startup",
    "system_shutdown",
    "system_error",
    "system_maintenance",
    "system_backup",
    "system_restore",
]
"""What happened."""
AuditCategory = Literal[
    "authentication",
    "authorization",
    "data_access",
    "data_modification",
    "security",
    "administration",
    "system",
    "compliance",
]
"""What an audited event is about."""
AuditLevel = Literal["info", "warning", "error", "critical"]
"""How serious an audited event is."""
AuditView = Literal["secure", "compliance", "full"]
"""Which of the three pictures of an entry: ``AuditSecure``, ``AuditCompliance`` or ``AuditFull``."""
AuthProvider = Literal["local", "azure_ad", "google", "github", "oidc"]
"""Who vouches for an account's identity."""
BreakerState = Literal["closed", "half_open", "open"]
"""Closed: commands pass. Open: they are refused at once. Half open: refused, while one attempt is
made.
"""
CodeStack = Literal["html_tailwind", "html_css", "react_tailwind", "vue_tailwind", "bootstrap", "ionic_tailwind", "svg"]
"""Language and framework of the generated code."""
ExportFormat = Literal["jsonl", "csv"]
"""How an export is written."""
ExportStatus = Literal["queued", "running", "done", "failed", "expired"]
"""How far an export of everything about a person is: one that has expired has no archive any more."""
FactorKind = Literal["totp", "passkey"]
"""What somebody shows beside the password."""
GenerationProvider = Literal["openai", "azure_openai", "claude", "gemini", "openrouter", "other"]
"""Whose language model wrote the code."""
GenerationStatus = Literal["pending", "processing", "completed", "failed", "cancelled"]
"""Where a generation is; ``next_statuses`` lists the legal moves."""
GenerationType = Literal["create", "update", "refine"]
"""Why the code was generated: from nothing, as a change, or as a refinement."""
ImageKind = Literal["generated", "edited", "background_removed", "extracted", "uploaded"]
"""How an image came about."""
ImageProvider = Literal["dalle3", "flux_schnell", "openai", "replicate", "other"]
"""Whose model made an image; ``sizes`` lists what it can make."""
ImageQuality = Literal["standard", "hd"]
"""How much detail was asked for."""
ImageStyle = Literal["vivid", "natural"]
"""How dramatic an image was asked to be."""
InputMode = Literal["image", "video", "text"]
"""What a request shows to the model."""
MailKind = Literal["verify_email", "reset_password", "address_taken", "export_ready"]
"""What a mail is about."""
MailStatus = Literal["queued", "sent", "failed", "dropped"]
"""What became of a mail: one that is dropped was not worth sending any more."""
ProjectOrder = Literal["updated", "created", "name", "views", "last_generated"]
"""By what a list of projects is ordered."""
ProjectStatus = Literal["draft", "active", "completed", "archived", "deleted"]
"""Where a project is in its life; ``DELETED`` is a soft deletion, the row stays."""
ProjectType = Literal["website", "mobile_app", "component", "prototype"]
"""What the screenshot shows."""
RequestType = Literal["create", "update", "refine", "import", "restore"]
"""What a request does: it asks for code, or puts code from elsewhere or from an earlier version in
place.
"""
SearchedField = Literal["name", "tags", "description", "instructions", "prompt", "page"]
"""What of a project was searched."""
SessionStatus = Literal["active", "expired", "revoked", "invalid"]
"""Whether a session is accepted."""
SessionType = Literal["web", "api", "mobile", "desktop"]
"""What kind of client holds the session."""
SumsFormat = Literal["json", "csv"]
"""How sums are sent."""
Topology = Literal["single", "sentinel", "cluster"]
"""How the servers of the cache belong together."""
TreeCode = Literal["none", "selected", "all"]
"""Which variants of a tree come with their code."""
UsageGroup = Literal["person", "project", "provider", "model", "stack", "outcome", "day"]
"""By what sums of usage can be divided. Days are those of UTC."""
UsageOutcome = Literal["completed", "failed", "cancelled"]
"""What became of work that was paid for."""
UserRole = Literal["user", "moderator", "admin"]
"""What an account may do; each role includes the rights of those before it."""
UserStatus = Literal["active", "inactive", "suspended", "pending"]
"""Whether an account can be used."""


class Accepted(Answer):
    """The answer to everybody: everything else goes by mail."""

    status: Literal["accepted"] = "accepted"


class AcceptedRegistration(Answer):
    """The answer to everybody who registers.

    ``proof`` is for the device that registers, to be sent along when the address is verified; it is
    null where it went into a cookie.
    """

    status: Literal["accepted"] = "accepted"
    proof: str | None


class ActiveSession(Answer):
    """An accepted session: the person and their role.

    ``expires_at`` is when it ends if nothing more is done in it; use moves that on.
    """

    id: UUID
    user_id: UUID
    role: UserRole | str
    type: SessionType | str
    created_at: datetime
    expires_at: datetime


class AddedApp(Answer):
    """An app that counts once a code of it was shown. ``uri`` is for a QR code; neither can be had again."""

    id: UUID
    secret: str
    uri: str


class AddedFactor(Answer):
    """A factor that counts from now on. ``recovery_codes`` come with the first one, and cannot be had
    again.
    """

    factor: FactorView
    recovery_codes: Sequence[str]


class ApiKeyPage(Answer):
    """A page of keys, the newest first; those that have ended for 90 days more. ``next`` is null on the
    last one.
    """

    api_keys: Sequence[ApiKeyView]
    next: UUID | None


class ApiKeyView(Answer):
    """A key, without what a program shows: ``prefix`` is how it begins. ``last_used_at`` may be some
    seconds old.
    """

    id: UUID
    name: str
    prefix: str
    scopes: Sequence[ApiScope | str]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class Appended(Answer):
    """The number of the last piece that the generation has."""

    sequence: int


class AssetPage(Answer):
    """A page of assets, the oldest first; ``next`` is null on the last one."""

    assets: Sequence[AssetView]
    next: UUID | None


class AssetView(Answer):
    """A file as its owner sees it. ``public_name`` is the end of its permanent address, if it has one."""

    id: UUID
    file_name: str | None
    content_type: str
    size: int
    sha256: str | None
    width: int | None
    height: int | None
    dominant_color: str | None
    project_id: UUID | None
    code_id: UUID | None
    image_id: UUID | None
    expires_at: datetime | None
    public_name: str | None
    created_at: datetime


class AuditCompliance(Answer):
    """What an auditor needs: also from where, with which outcome, and what changed."""

    id: UUID
    user_id: UUID | None
    action: AuditAction | str
    level: AuditLevel | str
    category: AuditCategory | str
    description: str
    resource_type: str | None
    resource_id: str | None
    is_success: bool
    created_at: datetime
    ip_address: str | None
    user_agent: str | None
    correlation_id: str | None
    source: str | None
    old_values: Mapping[str, Any]
    new_values: Mapping[str, Any]
    error_message: str | None
    duration: float | None


class AuditFull(Answer):
    """Everything."""

    id: UUID
    user_id: UUID | None
    action: AuditAction | str
    level: AuditLevel | str
    category: AuditCategory | str
    description: str
    resource_type: str | None
    resource_id: str | None
    is_success: bool
    created_at: datetime
    ip_address: str | None
    user_agent: str | None
    correlation_id: str | None
    source: str | None
    old_values: Mapping[str, Any]
    new_values: Mapping[str, Any]
    error_message: str | None
    duration: float | None
    details: str | None
    session_id: str | None
    context: Mapping[str, Any]
    metadata: Mapping[str, Any]


class AuditSecure(Answer):
    """What happened, without from where and without the values."""

    id: UUID
    user_id: UUID | None
    action: AuditAction | str
    level: AuditLevel | str
    category: AuditCategory | str
    description: str
    resource_type: str | None
    resource_id: str | None
    is_success: bool
    created_at: datetime


class BegunSession(Answer):
    """A session that has begun. ``token`` cannot be had again; it is null where it went into a cookie."""

    token: str | None
    session: ActiveSession


class BudgetView(Answer):
    """A monthly budget, and what has become of it in this month of UTC.

    ``remaining`` is negative after work that cost more than was reserved for it. ``updated_at`` is when
    the limit was set.
    """

    user_id: UUID
    currency: str
    monthly_limit: str
    spent: str
    reserved: str
    updated_at: datetime
    remaining: str


class CacheStatistics(Answer):
    """One moment of the cache.

    The ``server_`` figures are sums over all servers that answered: the server, the primary that the
    sentinels named, or the primaries of the cluster. ``keys`` counts the keys under this application's
    prefix, sessions included; ``keys_complete`` is false when there are too many to look at them all,
    or a server did not answer.
    """

    breaker: BreakerState | str
    near: NearCopyStatistics
    hits: int
    misses: int
    hit_rate: float | None
    undecodable: int
    failures: int
    compressed_values: int
    compression_saved: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    topology: Topology | str
    servers: Sequence[ServerStatistics]
    server: str
    server_uptime_seconds: int
    server_memory_used: int
    server_memory_limit: int | None
    server_clients: int
    server_hits: int
    server_misses: int
    server_hit_rate: float | None
    server_evicted_keys: int
    server_expired_keys: int
    keys: int
    keys_complete: bool


class CodeDiff(Answer):
    """How two codes differ; ``unified`` can be given to ``patch``."""

    old_id: UUID
    new_id: UUID
    unified: str
    hunks: Sequence[Hunk]
    added_lines: int
    removed_lines: int


class CreatedKey(Answer):
    """A key that was made. ``secret`` is what a program sends as bearer token; it cannot be had again."""

    secret: str
    api_key: ApiKeyView


class CreatedShare(Answer):
    """A new share. ``token`` and ``url`` are shown here once; ``url`` is absolute where PUBLIC_URL is set."""

    share: ShareView
    token: str
    url: str


class DatabaseStatistics(Answer):
    """The database. What could not be asked is ``None``, and ``notes`` says why, by the name of the field.

    ``statements`` are those of this database that took the most time in all.
    """

    name: str
    server: str
    role: str
    sees_everything: bool
    is_standby: bool
    started_at: datetime
    connections: int
    connections_by_state: Mapping[str, int]
    server_connections: int
    connection_limit: int
    waiting_for_locks: int
    longest_transaction_seconds: float | None
    commits: int
    rollbacks: int
    deadlocks: int
    hit_rate: float | None
    temporary_size: int
    counted_since: datetime | None
    pool: PoolStatistics
    size: int | None
    tables: Sequence[TableStatistics] | None
    unused_indexes: Sequence[UnusedIndex] | None
    statements: Sequence[StatementStatistics] | None
    standbys: Sequence[StandbyStatistics] | None
    slots: Sequence[SlotStatistics] | None
    replicas: Sequence[ReplicaStatistics]
    notes: Mapping[str, str]


class DesignSystemView(Answer):
    """A design system, as its owner sees it."""

    id: UUID
    name: str
    content: str
    created_at: datetime
    updated_at: datetime


class DesignSystems(Answer):
    """All of them, in the order of their creation."""

    design_systems: Sequence[DesignSystemView]


class DirectUpload(Answer):
    """Permission to send a file straight to the storage. The URL is the permission: never store or log it.

    ``id`` is the file's once `complete_upload` has accepted it; ``headers`` must be sent exactly so.
    """

    id: UUID
    url: str
    method: str
    headers: Mapping[str, str]
    expires_at: datetime


class Ended(Answer):
    """How many sessions were ended."""

    ended: int


class EndedSessions(Answer):
    """How many sessions were ended."""

    ended: int


class EndedVariant(Answer):
    """A variant that has ended."""

    id: UUID
    variant_index: int
    status: GenerationStatus | str


class EntryPage(Answer):
    """A page of the ledger; ``next`` is null on the last one."""

    entries: Sequence[UsageEntryView]
    next: UUID | None


class ExportPage(Answer):
    """A page of exports, the newest first; ``next`` is the ``after`` of the page after it, null on the
    last one.
    """

    exports: Sequence[ExportView]
    next: UUID | None


class ExportView(Answer):
    """An export, and how far it is.

    ``projects`` and ``files`` (those that belong to no project) are how many there were when it began,
    null before; ``projects_done`` and ``files_done`` are how many of them are in the archive. ``size``
    is in bytes, and like ``expires_at`` there once the archive is complete. ``error`` says why it
    failed.
    """

    id: UUID
    user_id: UUID
    status: ExportStatus | str
    projects: int | None
    projects_done: int
    files: int | None
    files_done: int
    size: int | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None


class FactorView(Answer):
    """A factor that counts, without its secret."""

    id: UUID
    kind: FactorKind | str
    name: str
    last_used_at: datetime | None
    created_at: datetime


class FactorsView(Answer):
    """The factors of a person, the oldest first, and how many recovery codes are left."""

    factors: Sequence[FactorView]
    recovery_codes_left: int


class FileStatistics(Answer):
    """The storage. ``free_size`` is missing where the backend has no limit; ``notes`` says why something
    else is.
    """

    backend: str
    is_estimate: bool = False
    file_count: int | None = None
    total_size: int | None = None
    free_size: int | None = None
    by_type: Sequence[FileUsage] = Field(default_factory=list)
    by_owner: Sequence[FileUsage] = Field(default_factory=list)
    by_state: Sequence[FileUsage] = Field(default_factory=list)
    notes: Mapping[str, str] = Field(default_factory=dict)


class FileUsage(Answer):
    """How many objects of one kind there are, and what they take."""

    name: str
    count: int
    size: int
    stored_size: int


class GeneratedCodeFull(Answer):
    """Everything."""

    id: UUID
    project_id: UUID
    name: str | None
    code_stack: CodeStack | str
    provider: GenerationProvider | str
    model: str
    status: GenerationStatus | str
    generation_type: GenerationType | str
    version: int
    parent_id: UUID | None
    generation_id: UUID
    variant_index: int
    total_tokens: int | None
    generation_time_seconds: float | None
    error_message: str | None
    is_favorite: bool
    rating: int | None
    created_at: datetime
    updated_at: datetime
    code: str
    original_prompt: str | None
    revised_prompt: str | None
    additional_instructions: str | None
    input_image_url: str | None
    result_image_url: str | None
    generation_params: Mapping[str, Any]
    temperature: float | None
    max_tokens: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error_details: Mapping[str, Any]
    correlation_id: str | None
    view_count: int
    copy_count: int
    download_count: int
    feedback: Mapping[str, Any]
    metrics: Mapping[str, Any]
    metadata: Mapping[str, Any]


class GeneratedCodeSummary(Answer):
    """A row in the list of versions; ``code_size`` is in bytes of UTF-8."""

    id: UUID
    project_id: UUID
    name: str | None
    code_stack: CodeStack | str
    provider: GenerationProvider | str
    model: str
    status: GenerationStatus | str
    generation_type: GenerationType | str
    version: int
    parent_id: UUID | None
    generation_id: UUID
    variant_index: int
    total_tokens: int | None
    generation_time_seconds: float | None
    error_message: str | None
    is_favorite: bool
    rating: int | None
    created_at: datetime
    updated_at: datetime
    code_size: int


class GeneratedImageFull(Answer):
    """Everything."""

    id: UUID
    name: str | None
    image_url: str | None
    thumbnail_url: str | None
    width: int | None
    height: int | None
    created_at: datetime
    project_id: UUID
    prompt: str
    provider: ImageProvider | str
    kind: ImageKind | str
    model: str
    status: GenerationStatus | str
    size: str
    file_size: int | None
    is_favorite: bool
    rating: int | None
    updated_at: datetime
    revised_prompt: str | None
    quality: ImageQuality | str | None
    style: ImageStyle | str | None
    seed: int | None
    storage_key: str | None
    mime_type: str | None
    generation_params: Mapping[str, Any]
    generation_time_seconds: float | None
    error_message: str | None
    error_details: Mapping[str, Any]
    correlation_id: str | None
    view_count: int
    download_count: int
    feedback: Mapping[str, Any]
    image_metadata: Mapping[str, Any]
    metadata: Mapping[str, Any]


class GeneratedImageSummary(Answer):
    """A row in a list."""

    id: UUID
    name: str | None
    image_url: str | None
    thumbnail_url: str | None
    width: int | None
    height: int | None
    created_at: datetime
    project_id: UUID
    prompt: str
    provider: ImageProvider | str
    kind: ImageKind | str
    model: str
    status: GenerationStatus | str
    size: str
    file_size: int | None
    is_favorite: bool
    rating: int | None
    updated_at: datetime


class GenerationFull(Answer):
    """Everything about a generation, without the code of its variants."""

    id: UUID
    project_id: UUID
    number: int
    generation_type: RequestType | str
    input_mode: InputMode | str
    prompt: str | None
    selected_variant: int
    created_by: UUID | None
    started_at: datetime
    ended_at: datetime | None
    status: GenerationStatus | str
    variants: Sequence[GeneratedCodeSummary]
    full_prompt: str | None
    inputs: Mapping[str, Any]
    design_system: str | None
    external_source: str | None
    external_key: str | None


class GenerationRequest(Answer):
    """What a generation was asked for.

    Attributes:
        parent_id: the variant that is being changed.
        inputs: files by their ids, the selected element and options as they came; what is named like a secret is left
            out.
        external_key: an id of the application that asks, once for each of its sources.
        external_source: names that application.
    """

    generation_type: RequestType | str = "create"
    input_mode: InputMode | str = "image"
    code_stack: CodeStack | str = "html_tailwind"
    parent_id: UUID | None = None
    prompt: str | None = None
    full_prompt: str | None = None
    design_system: str | None = None
    inputs: Mapping[str, Any] = Field(default_factory=dict)
    external_source: str | None = None
    external_key: str | None = None


class GenerationView(Answer):
    """A generation and its variants, without their code. Its status follows from theirs."""

    id: UUID
    project_id: UUID
    number: int
    generation_type: RequestType | str
    input_mode: InputMode | str
    prompt: str | None
    selected_variant: int
    created_by: UUID | None
    started_at: datetime
    ended_at: datetime | None
    status: GenerationStatus | str
    variants: Sequence[GeneratedCodeSummary]


class GrowthStep(Answer):
    """From one state of a code to the next; the first one continues nothing.

    Attributes:
        at: milliseconds since the variant began.
        start: so many characters at the beginning stay.
        end: so many characters at the end stay.
        text: stands between them.
        length: how many characters the code has then.
        is_gap: whether there were states before it that are not known.
    """

    at: int
    start: int
    end: int
    text: str
    length: int
    is_gap: bool = False


class Highlight(Answer):
    """A piece of text that holds what was looked for.

    It is plain text, as people and models wrote it: escape it before it becomes part of a page.
    ``ranges`` are the places to emphasize, as pairs of first character and the one after the last,
    counted in Unicode characters.
    """

    field: SearchedField | str
    text: str
    ranges: Sequence[tuple[int, int]]


class Hunk(Answer):
    """Lines that differ, with their surroundings. Lines count from 1; ``lines`` begin with a blank, ``-``
    or ``+``.
    """

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: Sequence[str]


class IdentityView(Answer):
    """An external identity by which somebody logs in; ``issuer`` names that of ``oidc``."""

    provider: AuthProvider | str
    issuer: str | None
    subject: str


class ImagePage(Answer):
    """A page of a list; ``next`` is what to ask for the page after it with, None on the last one."""

    images: Sequence[GeneratedImageSummary]
    next: UUID | None


class LoginMethods(Answer):
    """How somebody can log in; second factors are apart."""

    has_password: bool
    identities: Sequence[IdentityView]


class MailPage(Answer):
    """A page of mails; ``next`` is null on the last one."""

    mails: Sequence[MailView]
    next: UUID | None


class MailView(Answer):
    """A mail in the queue, or what became of it. Its text, which holds a token, is never shown."""

    id: UUID
    user_id: UUID
    email: str
    kind: MailKind | str
    status: MailStatus | str
    attempts: int
    next_attempt_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    last_error: str | None
    message_id: str
    created_at: datetime


class MaintenanceReport(Answer):
    """One round. In a dry run the numbers are what there is to do, those of entries to move about.

    ``is_complete`` is false when another process was at it, or something was kept for the next round
    because its tables were busy. ``objects_removed`` are those of the storage that nothing refers to
    any more, files and uploads aside. ``codes_packed`` were moved out of their rows, and
    ``code_bodies_removed`` are texts that no code has any more. ``variants_expired`` were still running
    when their writers stopped. ``projects_indexed`` had changed since a search indexed them.
    ``images_given_thumbnails`` were stored by processes that ended before they had made any.
    ``audit_triggers_restored`` are those that protect the audit trail and did not hold always.
    """

    is_dry_run: bool = False
    is_complete: bool = True
    sessions_removed: int = 0
    refresh_tokens_removed: int = 0
    api_keys_removed: int = 0
    session_changes_removed: int = 0
    idempotency_keys_removed: int = 0
    login_attempts_removed: int = 0
    projects_removed: int = 0
    variants_expired: int = 0
    generation_events_removed: int = 0
    mails_removed: int = 0
    exports_expired: int = 0
    exports_removed: int = 0
    projects_indexed: int = 0
    codes_packed: int = 0
    code_bodies_removed: int = 0
    files_expired: int = 0
    uploads_abandoned: int = 0
    objects_removed: int = 0
    images_given_thumbnails: int = 0
    audit_partitions_made: Sequence[str] = Field(default_factory=list)
    audit_partitions_dropped: Sequence[str] = Field(default_factory=list)
    audit_partitions_moved: Sequence[str] = Field(default_factory=list)
    audit_triggers_restored: Sequence[str] = Field(default_factory=list)
    problems: Sequence[str] = Field(default_factory=list)


class NearCopyStatistics(Answer):
    """The copy in this process. ``is_answering`` is false while it may miss changes. Sizes are in bytes."""

    is_answering: bool
    entries: int
    size: int
    capacity: int
    hits: int
    evictions: int
    invalidations: int


class OwnSessions(Answer):
    """Where somebody is logged in, the one that was active last first; ``current`` is the session that
    asks, if any.
    """

    current: UUID | None
    sessions: Sequence[SessionSecure]


class PasskeyOptions(Answer):
    """What a passkey answers: ``options`` are for the browser; send ``challenge`` back with what it
    answers.
    """

    challenge: str
    options: Mapping[str, Any]
    expires_in: int


class PoolStatistics(Answer):
    """The connections of this process."""

    maximum: int
    in_use: int
    idle: int


class ProjectFull(Answer):
    """Everything."""

    id: UUID
    name: str
    description: str | None
    type: ProjectType | str
    thumbnail_image: str | None
    tags: Sequence[str]
    view_count: int
    generation_count: int
    created_at: datetime
    user_id: UUID
    status: ProjectStatus | str
    is_public: bool
    is_favorite: bool
    last_generated_at: datetime | None
    updated_at: datetime
    original_image: str | None
    original_image_filename: str | None
    original_image_size: int | None
    original_image_mime_type: str | None
    image_metadata: Mapping[str, Any]
    instructions: str | None
    settings: Mapping[str, Any]
    last_viewed_at: datetime | None
    revision: int
    deleted_at: datetime | None
    metadata: Mapping[str, Any]


class ProjectHit(Answer):
    """A project that was found. Of somebody else's only what is public is shown, and was searched."""

    project: ProjectSummary | ProjectPublic
    rank: float
    highlights: Sequence[Highlight]


class ProjectPage(Answer):
    """A page of a list; ``next`` is the cursor of the page after it, None on the last one."""

    projects: Sequence[ProjectSummary]
    next: str | None


class ProjectPublic(Answer):
    """What anyone may see of a public project."""

    id: UUID
    name: str
    description: str | None
    type: ProjectType | str
    thumbnail_image: str | None
    tags: Sequence[str]
    view_count: int
    generation_count: int
    created_at: datetime


class ProjectSummary(Answer):
    """A row in the list of your own projects."""

    id: UUID
    name: str
    description: str | None
    type: ProjectType | str
    thumbnail_image: str | None
    tags: Sequence[str]
    view_count: int
    generation_count: int
    created_at: datetime
    user_id: UUID
    status: ProjectStatus | str
    is_public: bool
    is_favorite: bool
    last_generated_at: datetime | None
    updated_at: datetime


class ProjectTree(Answer):
    """A project with all its generations, last one first."""

    project: ProjectFull
    generations: Sequence[TreeGeneration]


class ProviderButton(Answer):
    """Whom people can log in by: what a button says, and where it leads."""

    name: str
    label: str
    login_url: str


class ProviderList(Answer):
    """Everybody whom people can log in by."""

    providers: Sequence[ProviderButton]


class PublicFile(Answer):
    """A file with a permanent address, readable by anybody who knows it.

    Attributes:
        id: That of the file that keeps the bytes: to delete it is to take the address back.
        name: The end of the address: random, with a true file extension.
        url: The address, without a signature; absolute where PUBLIC_URL is set.
    """

    id: UUID
    name: str
    url: str


class RecoveryCodes(Answer):
    """Ten codes, each of which works once in place of a factor; they cannot be had again."""

    recovery_codes: Sequence[str]


class ReplayedEvent(Answer):
    """Something that happened while a variant was made, ``at`` so many milliseconds after it began."""

    at: int
    sequence: int
    kind: str
    payload: Mapping[str, Any]


class ReplicaStatistics(Answer):
    """One server of DB_REPLICA_HOSTS, as this process sees it; it is at most ``lag_seconds`` behind."""

    address: str
    is_used: bool
    lag_seconds: float | None


class Reservation(Answer):
    """A part of a budget that is set aside until it is settled, released, or expires.

    ``is_limited`` is false for a person without a budget in this currency: nothing is set aside then.
    """

    id: UUID
    user_id: UUID
    amount: str
    currency: str
    expires_at: datetime
    is_limited: bool


class Reset(Answer):
    """How many second factors were removed."""

    removed: int


class SearchPage(Answer):
    """The best hits first; ``next`` is the cursor of the page after it, None on the last one."""

    hits: Sequence[ProjectHit]
    next: str | None


class SecondFactorNeeded(Answer):
    """The password is right, and no session has begun yet: answer ``challenge`` within ``expires_in``
    seconds.

    ``methods`` are ``totp``, ``passkey`` and ``recovery_code``; ``passkey`` holds the options for
    ``navigator.credentials.get``.
    """

    status: Literal["second_factor_required"] = "second_factor_required"
    challenge: str
    methods: Sequence[str]
    passkey: Mapping[str, Any] | None
    expires_in: int


class ServerStatistics(Answer):
    """One server since its start, with what other applications did; or ``error``, which says why it did
    not answer.
    """

    name: str
    breaker: BreakerState | str
    error: str | None = None
    version: str = ""
    uptime_seconds: int = 0
    memory_used: int = 0
    memory_limit: int | None = None
    clients: int = 0
    hits: int = 0
    misses: int = 0
    hit_rate: float | None = None
    evicted_keys: int = 0
    expired_keys: int = 0


class SessionAdmin(Answer):
    """What administrators also see."""

    id: UUID
    status: SessionStatus | str
    type: SessionType | str
    expires_at: datetime
    last_active_at: datetime
    ip_address: str | None
    device_type: str | None
    browser: str | None
    browser_version: str | None
    operating_system: str | None
    os_version: str | None
    country: str | None
    city: str | None
    timezone: str | None
    created_at: datetime
    user_id: UUID
    user_agent: str | None
    device_id: str | None
    request_count: int
    revoked_at: datetime | None
    revoked_reason: str | None
    metadata: Mapping[str, Any]
    updated_at: datetime


class SessionPage(Answer):
    """A page of where somebody is logged in, the session that began last first; ``next`` is null on the
    last one.
    """

    sessions: Sequence[SessionAdmin]
    next: UUID | None


class SessionSecure(Answer):
    """What its owner may see, to recognise a device."""

    id: UUID
    status: SessionStatus | str
    type: SessionType | str
    expires_at: datetime
    last_active_at: datetime
    ip_address: str | None
    device_type: str | None
    browser: str | None
    browser_version: str | None
    operating_system: str | None
    os_version: str | None
    country: str | None
    city: str | None
    timezone: str | None
    created_at: datetime


class SharePage(Answer):
    """A page of the shares of a project, also those that have ended, the newest first.

    ``next`` is null on the last one.
    """

    shares: Sequence[ShareView]
    next: UUID | None


class ShareView(Answer):
    """A share, without its token. ``version`` and ``variant_index`` are empty where it follows the latest
    version.
    """

    id: UUID
    project_id: UUID
    version: int | None
    variant_index: int | None
    expires_at: datetime | None
    revoked_at: datetime | None
    view_count: int
    last_viewed_at: datetime | None
    created_at: datetime


class SlotStatistics(Answer):
    """One replication slot, and how much log the server keeps for it: an inactive one fills the disk in
    the end.
    """

    name: str
    is_active: bool
    kept_size: int | None


class StandbyStatistics(Answer):
    """One server that receives the log of this one; ``None`` is what this role may not see."""

    name: str | None
    address: str | None
    state: str | None
    synchronous: str | None
    lag_size: int | None
    lag_seconds: float | None


class StartedGeneration(Answer):
    """A generation that can be written. ``writer_token`` is a secret that lets its holder write the
    variants.

    ``reservations`` are what was set aside for each variant; `UsageService.extend` changes one.
    """

    id: UUID
    project_id: UUID
    number: int
    variant_ids: Sequence[UUID]
    writer_token: str
    reservations: Sequence[Reservation] = Field(default_factory=list)


class StatementStatistics(Answer):
    """One statement as pg_stat_statements keeps it: without values. Durations are in milliseconds."""

    statement: str
    calls: int
    total_ms: float
    mean_ms: float
    maximum_ms: float
    rows: int


class Statistics(Answer):
    """All parts; one that could not be asked is missing, and ``errors`` says why."""

    taken_at: datetime
    database: DatabaseStatistics | None
    cache: CacheStatistics | None
    storage: FileStatistics | None
    errors: Mapping[str, str]


class Sums(Answer):
    """The sums; costs in several currencies are never added."""

    sums: Sequence[UsageSum]


class TableStatistics(Answer):
    """One table, its partitions included. ``rows`` and ``dead_rows`` are PostgreSQL's estimates."""

    name: str
    rows: int
    dead_rows: int
    size: int
    index_size: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None


class TrailPage(Answer):
    """A page of the audit trail; ``next`` is null on the last one."""

    entries: Sequence[AuditFull | AuditCompliance | AuditSecure]
    next: str | None


class TreeGeneration(Answer):
    """A generation of a tree. Its variants say by ``parent_id`` what they were made from."""

    id: UUID
    project_id: UUID
    number: int
    generation_type: RequestType | str
    input_mode: InputMode | str
    prompt: str | None
    selected_variant: int
    created_by: UUID | None
    started_at: datetime
    ended_at: datetime | None
    inputs: Mapping[str, Any]
    status: GenerationStatus | str
    variants: Sequence[TreeVariant]


class TreeVariant(Answer):
    """A variant; ``code`` is None where it was not asked for."""

    id: UUID
    project_id: UUID
    name: str | None
    code_stack: CodeStack | str
    provider: GenerationProvider | str
    model: str
    status: GenerationStatus | str
    generation_type: GenerationType | str
    version: int
    parent_id: UUID | None
    generation_id: UUID
    variant_index: int
    total_tokens: int | None
    generation_time_seconds: float | None
    error_message: str | None
    is_favorite: bool
    rating: int | None
    created_at: datetime
    updated_at: datetime
    code_size: int
    code: str | None = None


class UnusedIndex(Answer):
    """An index that no statement has used since the counters of this server began, and that keeps no rule."""

    name: str
    table: str
    size: int


class UsageEntryView(Answer):
    """An entry of the ledger."""

    id: UUID
    user_id: UUID
    key: str
    project_id: UUID | None
    code_id: UUID | None
    provider: str
    model: str
    code_stack: CodeStack | str | None
    outcome: UsageOutcome | str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: str
    currency: str
    at: datetime


class UsageSum(Answer):
    """What was used in one group; what the sums are not divided by is ``None``, and so is a project or
    stack of none.

    Costs in several currencies are never added: each has sums of its own.
    """

    user_id: UUID | None = None
    project_id: UUID | None = None
    provider: str | None = None
    model: str | None = None
    code_stack: CodeStack | str | None = None
    outcome: UsageOutcome | str | None = None
    day: date | None = None
    currency: str
    entries: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: str


class UserAdmin(Answer):
    """What administrators also see: how and from where the account is used."""

    id: UUID
    display_name: str | None
    avatar: str | None
    email: str
    first_name: str
    last_name: str
    status: UserStatus | str
    role: UserRole | str
    auth_provider: AuthProvider | str
    email_verified: bool
    email_verified_at: datetime | None
    last_login_at: datetime | None
    preferences: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    azure_id: str | None
    google_id: str | None
    github_id: str | None
    last_login_ip: str | None
    last_login_user_agent: str | None
    login_count: int
    failed_login_count: int
    locked_until: datetime | None
    password_changed_at: datetime | None
    metadata: Mapping[str, Any]


class UserFull(Answer):
    """What users see of themselves."""

    id: UUID
    display_name: str | None
    avatar: str | None
    email: str
    first_name: str
    last_name: str
    status: UserStatus | str
    role: UserRole | str
    auth_provider: AuthProvider | str
    email_verified: bool
    email_verified_at: datetime | None
    last_login_at: datetime | None
    preferences: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime


class UserPage(Answer):
    """A page of accounts; ``next`` is null on the last one."""

    users: Sequence[UserAdmin]
    next: UUID | None


class VariantModel(Answer):
    """Who makes a variant."""

    provider: GenerationProvider | str = "other"
    name: str = "unknown"


class VariantReplay(Answer):
    """How a variant was made.

    Attributes:
        code_id: which variant.
        generation_id: of which generation.
        status: of the variant.
        started_at: when it began.
        duration: milliseconds from then until the last of all this.
        is_known: whether it was kept how the code grew: it is of what is streamed, and not of what was stored whole.
        steps: how the code grew, first one first; the last one makes the code that is stored.
        events: what happened meanwhile, by their numbers.
        has_more_events: whether there are more events than are returned.
    """

    code_id: UUID
    generation_id: UUID
    status: GenerationStatus | str
    started_at: datetime
    duration: int
    is_known: bool
    steps: Sequence[GrowthStep]
    events: Sequence[ReplayedEvent]
    has_more_events: bool


class VariantResult(Answer):
    """What is known of a variant when it ends; what is not given stays empty.

    The four kinds of tokens do not overlap: ``prompt_tokens`` are those that no cache served. ``cost``
    is exact.
    """

    model: VariantModel | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost: Decimal | float | str | None = None
    currency: str = "USD"
    generation_time_seconds: float | None = None


class Verified(Answer):
    """The address is verified.

    ``password_token`` is there when the account has no password now, because it was verified on another
    device than it was registered on, maybe by another person: send it to
    ``/v1/accounts/password-reset/confirm`` with a new one.
    """

    status: Literal["verified"] = "verified"
    password_token: str | None


class VersionPage(Answer):
    """A page of versions with their variants, without code; ``next`` is null on the last one."""

    versions: Sequence[GenerationView]
    next: int | None


class WriterState(Answer):
    """What a new writer continues: for each variant the last sequence number that is stored."""

    generation_id: UUID
    writer_token: str
    last_sequences: Sequence[int]


class WrittenCode(Answer):
    """The whole code so far."""

    type: Literal["code"]
    code: str


class WrittenEvent(Answer):
    """Something that happened, such as ``thinking``."""

    type: Literal["event"]
    kind: str
    payload: Mapping[str, Any] = Field(default_factory=dict)


class WrittenText(Answer):
    """Text that continues the code."""

    type: Literal["text"]
    text: str
