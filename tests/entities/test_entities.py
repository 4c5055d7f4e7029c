from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from data_layer import entities
from data_layer.entities import AuditLog, Entity, GeneratedImage, Session, enums
from data_layer.entities.columns import Json
from data_layer.entities.enums import AuditAction, AuditCategory, AuditLevel, GenerationStatus, ImageProvider
from data_layer.errors import InvalidValueError
from data_layer.schemas.audit import AuditCompliance, AuditFull, AuditSecure
from data_layer.schemas.codes import GeneratedCodeFull
from data_layer.schemas.images import GeneratedImageFull, GeneratedImagePublic
from data_layer.schemas.projects import ProjectFull, ProjectPublic
from data_layer.schemas.sessions import SessionAdmin, SessionSecure
from data_layer.schemas.users import UserAdmin, UserFull, UserPublic
from tests.support import make_user

ALL = [
    *(entities.User, entities.Project, entities.GeneratedCode, GeneratedImage, Session, AuditLog),
    *(entities.Generation, entities.GenerationEvent, entities.DesignSystem, entities.StoredFile),
    *(entities.FileReference, entities.UsageEntry, entities.Budget, entities.Share),
]
SECRET_COLUMNS = {"password_hash", "reset_password_token_hash", "email_verification_token_hash"}


def test_the_six_tables_and_what_they_need_others() -> None:
    others = {
        "idempotency_keys",
        "mails",
        "exports",
        "user_identities",
        "api_keys",
        "second_factors",
        "recovery_codes",
        "login_attempts",
        "refresh_tokens",
        "session_changes",
        "usage_days",
        "usage_totals",
        "budget_reservations",
    }
    others |= {"project_search", "project_search_changes", "code_bodies"}
    assert set(Entity.metadata.tables) == {str(inspect(entity).local_table) for entity in ALL} | others


@pytest.mark.parametrize("entity", ALL)
def test_ids_are_uuid7_and_json_columns_are_never_empty(entity: type[Entity]) -> None:
    for column in inspect(entity).local_table.columns:
        if isinstance(column.type, Json):
            assert not column.nullable
            assert column.server_default is not None
    assert make_user().id.version == 7
    ids = [make_user().id for _ in range(1000)]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("view", "entity", "hidden"),
    [
        (UserFull, entities.User, SECRET_COLUMNS | {"failed_login_count", "last_login_ip"}),
        (UserAdmin, entities.User, SECRET_COLUMNS),
        (SessionSecure, Session, {"session_id", "session_data", "user_id", "request_count"}),
        (SessionAdmin, Session, {"session_id", "session_data", "data_version"}),
        (AuditSecure, AuditLog, {"ip_address", "user_agent", "old_values", "new_values", "session_id", "context"}),
        (AuditCompliance, AuditLog, {"session_id", "context"}),
        (ProjectPublic, entities.Project, {"user_id", "settings", "instructions", "original_image"}),
        (GeneratedImagePublic, GeneratedImage, {"prompt", "storage_key", "error_message"}),
    ],
)
def test_a_view_hides_what_its_reader_may_not_see(view: Any, entity: type[Entity], hidden: set[str]) -> None:
    shown = set(view.model_fields)
    columns = {name.rstrip("_") for name in inspect(entity).column_attrs.keys()}  # noqa: SIM118  (no mapping)
    assert hidden <= columns
    assert not shown & hidden
    assert shown <= columns


@pytest.mark.parametrize(
    ("view", "entity", "left_out"),
    [
        (ProjectFull, entities.Project, {"search_vector", "status_before_archive", "status_before_delete"}),
        (
            GeneratedCodeFull,
            entities.GeneratedCode,
            {"lease_until", "writer", "last_sequence", "code_hash", "trimmed_hash", "growth", "body", "body_size"},
        ),
        (GeneratedImageFull, GeneratedImage, set()),
        (AuditFull, AuditLog, set()),
        (UserAdmin, entities.User, SECRET_COLUMNS | {"reset_password_expires_at", "email_verification_expires_at"}),
        (SessionAdmin, Session, {"session_id", "session_data", "data_version"}),
    ],
)
def test_a_full_view_forgets_nothing(view: Any, entity: type[Entity], left_out: set[str]) -> None:
    columns = {name.rstrip("_") for name in inspect(entity).column_attrs.keys()}  # noqa: SIM118  (no mapping)
    assert set(view.model_fields) == columns - left_out


def test_the_public_view_of_a_user_names_nobody() -> None:
    assert set(UserPublic.model_fields) == {"id", "display_name", "avatar"}


def test_every_action_of_the_specification_is_there() -> None:
    specified = """user_login user_logout user_register user_update_profile user_change_password user_delete_account
    user_verify_email user_reset_password project_create project_update project_delete project_archive project_restore
    project_share project_clone code_generate code_update code_delete code_copy code_download code_rate image_generate
    image_delete image_download image_rate session_create session_extend session_revoke session_expire
    security_login_failed security_account_locked security_account_unlocked security_suspicious_activity
    security_data_export security_privacy_settings admin_user_create admin_user_update admin_user_delete
    admin_user_suspend admin_user_unsuspend admin_system_config admin_data_export admin_bulk_action system_startup
    system_shutdown system_error system_maintenance system_backup system_restore"""
    added = """design_create design_update design_delete project_unshare admin_budget_update image_update
        user_create_api_key user_revoke_api_key user_add_factor user_remove_factor"""
    assert {action.value for action in AuditAction} == set(f"{specified} {added}".split())


def test_the_enumerations_are_those_of_the_public_surface() -> None:
    defined = {
        name
        for name, value in vars(enums).items()
        if isinstance(value, type) and value.__module__ == enums.__name__ and value is not enums.TextEnum
    }
    source = (Path(entities.__file__).parent.parent / "__init__.py").read_text()
    assert all(re.search(rf'"{name}"', source) for name in defined)


@pytest.mark.parametrize("provider", [provider for provider in ImageProvider if not provider.sizes])
def test_of_other_providers_no_sizes_are_known(provider: ImageProvider) -> None:
    for size in ("auto", "1536x1024", "16:9"):
        image = GeneratedImage(project_id=make_user().id, prompt="p", provider=provider, model="m", size=size)
        assert image.size == size


@pytest.mark.parametrize("provider", [ImageProvider.DALLE3, ImageProvider.FLUX_SCHNELL])
def test_an_image_has_a_size_that_its_provider_makes(provider: ImageProvider) -> None:
    def make(size: str) -> GeneratedImage:
        return GeneratedImage(project_id=make_user().id, prompt="p", provider=provider, model="m", size=size)

    for size in provider.sizes:
        make(size)
    for size in ("1x1", "", {"dalle3": "512x512", "flux_schnell": "1792x1024"}[provider]):
        with pytest.raises(InvalidValueError, match="size must be one of"):
            make(size)


def test_final_statuses_lead_nowhere() -> None:
    final = {status for status in GenerationStatus if not status.next_statuses}
    assert final == {GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED}


def test_factories_fill_in_category_level_and_success() -> None:
    user_id = make_user().id
    login = AuditLog.user_action(AuditAction.USER_LOGIN, user_id, "User logged in", ip_address="192.168.1.1")
    assert (login.category, login.level, login.is_success) == (AuditCategory.AUTHENTICATION, AuditLevel.INFO, True)
    assert (login.user_id, login.ip_address, login.description) == (user_id, "192.168.1.1", "User logged in")
    failed = AuditLog.security_event(AuditAction.SECURITY_LOGIN_FAILED, "Wrong password")
    assert (failed.category, failed.level, failed.is_success) == (AuditCategory.SECURITY, AuditLevel.WARNING, False)
    copied = AuditLog.data_action(AuditAction.CODE_COPY, user_id, "generated_code", user_id, "Copied")
    assert (copied.category, copied.resource_id) == (AuditCategory.DATA_ACCESS, str(user_id))
    made = AuditLog.data_action(AuditAction.PROJECT_CREATE, user_id, "project", "1", "Made", new_values={"a": 1})
    assert (made.category, made.new_values) == (AuditCategory.DATA_MODIFICATION, {"a": 1})
    error = AuditLog.system_event(AuditAction.SYSTEM_ERROR, "Broken", level=AuditLevel.CRITICAL)
    assert (error.category, error.is_success) == (AuditCategory.SYSTEM, False)
    suspended = AuditLog.admin_action(AuditAction.ADMIN_USER_SUSPEND, user_id, "Suspended", resource_type="user")
    assert (suspended.category, suspended.level) == (AuditCategory.ADMINISTRATION, AuditLevel.WARNING)
