"""Who may do what: the only place that decides it. What is not listed is denied.

An actor may be older than the last change of its account, so transactions ask again with the role that it has now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from data_layer.entities import AuditLog
from data_layer.entities.enums import ApiScope, AuditAction, UserRole, UserStatus
from data_layer.errors import InvalidValueError, PermissionDeniedError
from data_layer.repositories.standing import Standing
from data_layer.repositories.unit_of_work import UnitOfWork
from data_layer.schemas.actors import Actor

_RANKS = {role: rank for rank, role in enumerate((UserRole.USER, UserRole.MODERATOR, UserRole.ADMIN))}


class Permission(StrEnum):
    """What can be allowed or denied."""

    READ_ACCOUNT = "read_account"
    READ_ACCOUNT_AS_ADMIN = "read_account_as_admin"
    LIST_ACCOUNTS = "list_accounts"
    CREATE_ACCOUNT = "create_account"
    UPDATE_PROFILE = "update_profile"
    UPDATE_PREFERENCES = "update_preferences"
    CHANGE_PASSWORD = "change_password"  # noqa: S105  (the name of a permission)
    LINK_IDENTITY = "link_identity"
    UNLINK_IDENTITY = "unlink_identity"
    DEACTIVATE_ACCOUNT = "deactivate_account"
    REACTIVATE_ACCOUNT = "reactivate_account"
    DELETE_ACCOUNT = "delete_account"
    VERIFY_ACCOUNT = "verify_account"
    SET_PASSWORD = "set_password"  # noqa: S105  (the name of a permission)
    SUSPEND_ACCOUNT = "suspend_account"
    UNLOCK_ACCOUNT = "unlock_account"
    SET_ROLE = "set_role"
    CREATE_API_KEY = "create_api_key"
    LIST_API_KEYS = "list_api_keys"
    REVOKE_API_KEY = "revoke_api_key"
    EXPORT_ACCOUNT = "export_account"
    LIST_FACTORS = "list_factors"
    CHANGE_FACTORS = "change_factors"
    RESET_FACTORS = "reset_factors"
    LIST_SESSIONS = "list_sessions"
    REVOKE_SESSIONS = "revoke_sessions"
    REVOKE_ALL_SESSIONS = "revoke_all_sessions"
    READ_PROJECT = "read_project"
    READ_PROJECT_FOR_A_REASON = "read_project_for_a_reason"
    CHANGE_PROJECT = "change_project"
    COPY_PROJECT = "copy_project"
    READ_DESIGN_SYSTEMS = "read_design_systems"
    CHANGE_DESIGN_SYSTEMS = "change_design_systems"
    RECORD_USAGE = "record_usage"
    READ_USAGE = "read_usage"
    SET_BUDGET = "set_budget"
    SHARE_PROJECT = "share_project"
    READ_SHARES = "read_shares"
    REVOKE_SHARE = "revoke_share"
    READ_CODE = "read_code"
    READ_CODE_FOR_A_REASON = "read_code_for_a_reason"
    CHANGE_CODE = "change_code"
    READ_IMAGES = "read_images"
    READ_IMAGES_FOR_A_REASON = "read_images_for_a_reason"
    CHANGE_IMAGES = "change_images"
    READ_AUDIT_TRAIL = "read_audit_trail"
    READ_AUDIT_DETAILS = "read_audit_details"
    EXPORT_AUDIT_TRAIL = "export_audit_trail"
    RUN_MAINTENANCE = "run_maintenance"
    READ_STATISTICS = "read_statistics"
    MAINTAIN_STORAGE = "maintain_storage"
    READ_MAILS = "read_mails"
    READ_OPERATIONS = "read_operations"
    CHANGE_OPERATIONS = "change_operations"


@dataclass(frozen=True, slots=True)
class Rule:
    """The callers to whom a permission is given: owners of the thing, and everybody from a role on.

    ``outranked``: others need a higher role than the owner, so that moderators do not act against each other or against
    administrators. An administrator may act on everybody.

    ``scopes``: an API key needs one of them, and ``admin`` to act on what is not its owner's. Without any, no key may.
    """

    owner: bool = False
    others: UserRole | None = None
    outranked: bool = False
    scopes: frozenset[ApiScope] = frozenset()


# Reading is part of each: who may write gets back what was written. Routes ask for the exact scope.
_READ = frozenset(ApiScope)
_ADMIN = frozenset({ApiScope.ADMIN})
_WRITE = frozenset({ApiScope.WRITE})
_MAKE = frozenset({ApiScope.WRITE, ApiScope.GENERATE})


RULES: dict[Permission, Rule] = {
    Permission.READ_ACCOUNT: Rule(owner=True, others=UserRole.MODERATOR, scopes=_READ),
    Permission.READ_ACCOUNT_AS_ADMIN: Rule(others=UserRole.MODERATOR, scopes=_ADMIN),
    Permission.LIST_ACCOUNTS: Rule(others=UserRole.MODERATOR, scopes=_ADMIN),
    Permission.CREATE_ACCOUNT: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.UPDATE_PROFILE: Rule(owner=True, others=UserRole.ADMIN),
    Permission.UPDATE_PREFERENCES: Rule(owner=True, others=UserRole.ADMIN),
    Permission.CHANGE_PASSWORD: Rule(owner=True),
    Permission.LINK_IDENTITY: Rule(owner=True),
    Permission.UNLINK_IDENTITY: Rule(owner=True, others=UserRole.ADMIN),
    Permission.DEACTIVATE_ACCOUNT: Rule(owner=True, others=UserRole.ADMIN),
    Permission.REACTIVATE_ACCOUNT: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.DELETE_ACCOUNT: Rule(owner=True, others=UserRole.ADMIN),
    Permission.VERIFY_ACCOUNT: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    # Nobody but an operator with a shell: setting a password is as good as being that person.
    Permission.SET_PASSWORD: Rule(),
    Permission.SUSPEND_ACCOUNT: Rule(others=UserRole.MODERATOR, outranked=True, scopes=_ADMIN),
    Permission.UNLOCK_ACCOUNT: Rule(others=UserRole.MODERATOR, outranked=True, scopes=_ADMIN),
    Permission.SET_ROLE: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.CREATE_API_KEY: Rule(owner=True),
    Permission.LIST_API_KEYS: Rule(owner=True, others=UserRole.MODERATOR),
    Permission.REVOKE_API_KEY: Rule(owner=True, others=UserRole.MODERATOR, outranked=True),
    Permission.EXPORT_ACCOUNT: Rule(owner=True),
    Permission.LIST_FACTORS: Rule(owner=True, others=UserRole.MODERATOR),
    Permission.CHANGE_FACTORS: Rule(owner=True),
    Permission.RESET_FACTORS: Rule(others=UserRole.ADMIN),
    Permission.LIST_SESSIONS: Rule(owner=True, others=UserRole.MODERATOR, scopes=_ADMIN),
    Permission.REVOKE_SESSIONS: Rule(owner=True, others=UserRole.MODERATOR, outranked=True, scopes=_ADMIN),
    Permission.REVOKE_ALL_SESSIONS: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.READ_PROJECT: Rule(owner=True, scopes=_READ),
    Permission.READ_PROJECT_FOR_A_REASON: Rule(owner=True, others=UserRole.MODERATOR, scopes=_READ),
    Permission.CHANGE_PROJECT: Rule(owner=True, scopes=_MAKE),
    Permission.COPY_PROJECT: Rule(owner=True, scopes=_WRITE),
    Permission.READ_DESIGN_SYSTEMS: Rule(owner=True, scopes=_READ),
    Permission.CHANGE_DESIGN_SYSTEMS: Rule(owner=True, scopes=_WRITE),
    Permission.RECORD_USAGE: Rule(owner=True, scopes=_MAKE),
    Permission.READ_USAGE: Rule(owner=True, others=UserRole.ADMIN, scopes=_READ),
    Permission.SET_BUDGET: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.SHARE_PROJECT: Rule(owner=True, scopes=_WRITE),
    Permission.READ_SHARES: Rule(owner=True, others=UserRole.MODERATOR, scopes=_READ),
    Permission.REVOKE_SHARE: Rule(owner=True, others=UserRole.MODERATOR, scopes=_WRITE | _ADMIN),
    Permission.READ_CODE: Rule(owner=True, scopes=_READ),
    Permission.READ_CODE_FOR_A_REASON: Rule(owner=True, others=UserRole.MODERATOR, scopes=_READ),
    Permission.CHANGE_CODE: Rule(owner=True, scopes=_MAKE),
    Permission.READ_IMAGES: Rule(owner=True, scopes=_READ),
    Permission.READ_IMAGES_FOR_A_REASON: Rule(owner=True, others=UserRole.MODERATOR, scopes=_READ),
    Permission.CHANGE_IMAGES: Rule(owner=True, scopes=_MAKE),
    Permission.READ_AUDIT_TRAIL: Rule(owner=True, others=UserRole.MODERATOR, scopes=_READ),
    Permission.READ_AUDIT_DETAILS: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.EXPORT_AUDIT_TRAIL: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.RUN_MAINTENANCE: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.READ_STATISTICS: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.MAINTAIN_STORAGE: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.READ_MAILS: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.READ_OPERATIONS: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
    Permission.CHANGE_OPERATIONS: Rule(others=UserRole.ADMIN, scopes=_ADMIN),
}


def is_allowed(
    actor: Actor, permission: Permission, *, owner: UUID | None = None, owner_role: UserRole | None = None
) -> bool:
    """Whether the actor may do it.

    Args:
        actor: the caller.
        permission: for what.
        owner: the user whom the thing belongs to; none where the permission is not about somebody's thing.
        owner_role: that user's role, once it is known.
    """
    if actor.is_system:
        return True
    rule = RULES.get(permission)
    if rule is None or actor.user_id is None or actor.role is None:
        return False
    if actor.scopes is not None and rule.scopes.isdisjoint(actor.scopes):
        return False
    if rule.owner and owner is not None and owner == actor.user_id:
        return True
    if actor.scopes is not None and ApiScope.ADMIN not in actor.scopes:
        return False
    if rule.others is None or _RANKS[actor.role] < _RANKS[rule.others]:
        return False
    if not rule.outranked or owner_role is None or actor.role is UserRole.ADMIN:
        return True
    return _RANKS[owner_role] < _RANKS[actor.role]


def require(
    actor: Actor, permission: Permission, *, owner: UUID | None = None, owner_role: UserRole | None = None
) -> None:
    """Refuse unless ``is_allowed``.

    Raises:
        PermissionDeniedError: when the actor may not do it.
    """
    if not is_allowed(actor, permission, owner=owner, owner_role=owner_role):
        raise PermissionDeniedError(f"this account may not {permission.replace('_', ' ')} here")


LONGEST_REASON = 1000
"""Most characters of the reason why somebody else's work is read."""


async def as_of_now(tx: UnitOfWork, actor: Actor) -> Actor:
    """The actor with the role that the account has now: an ``Actor`` may be older than the last change of it.

    Raises:
        PermissionDeniedError: the account is gone, or not active.
    """
    if actor.user_id is None:
        return actor
    return Actor.user(actor.user_id, active_role(await tx.users.standing(actor.user_id)), actor.scopes)


def active_role(standing: Standing | None) -> UserRole:
    """The role of the acting account.

    Raises:
        PermissionDeniedError: the account is gone, or not active.
    """
    if standing is None or standing[1] is not UserStatus.ACTIVE:
        raise acting_account_inactive()
    return standing[0]


def acting_account_inactive() -> PermissionDeniedError:
    """What an actor gets whose account is gone, or not active."""
    return PermissionDeniedError("the acting account is not active")


def reading_entry(
    actor: Actor, owner_id: UUID, description: str, reason: object, *, resource_type: str, resource_id: str
) -> AuditLog:
    """Return the audit entry for a moderator's look at somebody else's work.

    Raises:
        InvalidValueError: the reason is empty or has more than 1000 characters.
    """
    if not isinstance(reason, str) or not reason.strip() or len(reason) > LONGEST_REASON:
        raise InvalidValueError(f"reason must say why, in 1 to {LONGEST_REASON} characters", field="reason")
    return AuditLog.admin_action(
        AuditAction.ADMIN_DATA_EXPORT,
        actor.user_id,
        description,
        details=reason,
        resource_type=resource_type,
        resource_id=resource_id,
        metadata_={"owner_id": str(owner_id)},
    )
