"""The calls of the API.

Written by `make clients` from docs/reference/openapi.json; changes here are lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from data_layer.client.downloads import Download, Pages, path_value
from data_layer.client.extensions import DirectUploads, GenerationStreams, Resource
from data_layer.client.transport import UNSET, Call, File, Transport, Unset, new_key
from data_layer.client.values import (
    Accepted,
    AcceptedRegistration,
    AddedApp,
    AddedFactor,
    ApiKeyPage,
    ApiKeyView,
    ApiScope,
    Appended,
    AssetPage,
    AssetView,
    AuditAction,
    AuditCategory,
    AuditCompliance,
    AuditFull,
    AuditLevel,
    AuditSecure,
    AuditView,
    AuthProvider,
    BegunSession,
    BudgetView,
    CodeDiff,
    CodeStack,
    CreatedKey,
    CreatedShare,
    DesignSystems,
    DesignSystemView,
    DirectUpload,
    Ended,
    EndedSessions,
    EndedVariant,
    EntryPage,
    ExportFormat,
    ExportPage,
    ExportView,
    FactorsView,
    GeneratedCodeFull,
    GeneratedImageFull,
    GeneratedImageSummary,
    GenerationFull,
    GenerationRequest,
    GenerationView,
    ImageKind,
    ImagePage,
    ImageProvider,
    ImageQuality,
    ImageStyle,
    LoginMethods,
    MailPage,
    MailStatus,
    MailView,
    MaintenanceReport,
    OwnSessions,
    PasskeyOptions,
    ProjectFull,
    ProjectHit,
    ProjectOrder,
    ProjectPage,
    ProjectStatus,
    ProjectSummary,
    ProjectTree,
    ProjectType,
    ProviderList,
    PublicFile,
    RecoveryCodes,
    Reset,
    SearchPage,
    SecondFactorNeeded,
    SessionAdmin,
    SessionPage,
    SharePage,
    ShareView,
    StartedGeneration,
    Statistics,
    Sums,
    TrailPage,
    TreeCode,
    UsageEntryView,
    UsageGroup,
    UserAdmin,
    UserFull,
    UserPage,
    UserRole,
    UserStatus,
    VariantModel,
    VariantReplay,
    VariantResult,
    Verified,
    VersionPage,
    WriterState,
    WrittenCode,
    WrittenEvent,
    WrittenText,
)


class AccountsCalls(Resource):
    """Calls of the section *accounts*."""

    __slots__ = ()

    async def ask_for_reset(self, *, email: str) -> Accepted:
        """Ask for a mail to choose a new password.

        It is sent to the address of an account, once in five minutes.
        """
        return await self.transport.send(
            Accepted, Call("POST", "/v1/accounts/password-reset", body={"email": email}, needs_login=False)
        )

    async def ask_for_verification(self, *, email: str) -> Accepted:
        """Ask for a mail to verify the address.

        It is sent to an address that is not verified, once in five minutes.
        """
        return await self.transport.send(
            Accepted, Call("POST", "/v1/accounts/verification", body={"email": email}, needs_login=False)
        )

    async def change(
        self,
        *,
        first_name: str | Unset | None = UNSET,
        last_name: str | Unset | None = UNSET,
        display_name: str | Unset | None = UNSET,
        avatar: str | Unset | None = UNSET,
        if_match: str | None = None,
    ) -> UserFull:
        """Change the own profile.

        What is not given stays. ``If-Match`` is heeded where it is sent.
        """
        return await self.transport.send(
            UserFull,
            Call(
                "PATCH",
                "/v1/accounts/me",
                headers={"If-Match": if_match},
                body={"first_name": first_name, "last_name": last_name, "display_name": display_name, "avatar": avatar},
            ),
        )

    async def change_password(self, *, current: str, new: str) -> None:
        """Change the own password.

        All other sessions end. Wrong guesses count as failed logins.
        """
        await self.transport.respond(Call("POST", "/v1/accounts/me/password", body={"current": current, "new": new}))

    async def change_preferences(self, *, preferences: Mapping[str, Any], if_match: str | None = None) -> UserFull:
        """Change the own preferences.

        They are merged as JSON Merge Patch does it (RFC 7396): null removes. ``If-Match`` is heeded where
        it is sent.
        """
        return await self.transport.send(
            UserFull,
            Call(
                "PATCH",
                "/v1/accounts/me/preferences",
                headers={"If-Match": if_match},
                body={"preferences": preferences},
            ),
        )

    async def delete(
        self,
        *,
        email: str,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        password: str | Unset | None = UNSET,
        challenge: str | Unset | None = UNSET,
    ) -> None:
        """Delete the own account.

        For good: personal data, sessions, projects, images and files. ``email`` must be the address of the
        account.

        The password, or a second factor, is asked for once more. 409 for the last active administrator.
        """
        await self.transport.respond(
            Call(
                "POST",
                "/v1/accounts/me/delete",
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "password": password,
                    "challenge": challenge,
                    "email": email,
                },
            )
        )

    async def get(self) -> UserFull:
        """Read the own account.

        What its owner sees of it. ``ETag`` is what a change may name.
        """
        return await self.transport.send(UserFull, Call("GET", "/v1/accounts/me"))

    async def list_identities(self) -> LoginMethods:
        """List the identities by which one logs in.

        And whether there is a password.
        """
        return await self.transport.send(LoginMethods, Call("GET", "/v1/accounts/me/identities"))

    async def register(
        self,
        *,
        email: str,
        password: str,
        first_name: str,
        last_name: str,
        display_name: str | Unset | None = UNSET,
        cookie: bool | Unset = UNSET,
        idempotency_key: str | None = None,
    ) -> AcceptedRegistration:
        """Register.

        The account is open once its address is verified. A mail says how, or that there is an account
        already.

        With an ``Idempotency-Key`` a repeated request gets the same ``proof`` again, and sends no second
        mail.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            AcceptedRegistration,
            Call(
                "POST",
                "/v1/accounts",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={
                    "email": email,
                    "password": password,
                    "first_name": first_name,
                    "last_name": last_name,
                    "display_name": display_name,
                    "cookie": cookie,
                },
                needs_login=False,
            ),
        )

    async def reset(self, *, token: str, password: str) -> None:
        """Choose a new password by a mailed token.

        All sessions end.
        """
        await self.transport.respond(
            Call(
                "POST",
                "/v1/accounts/password-reset/confirm",
                body={"token": token, "password": password},
                needs_login=False,
            )
        )

    async def unlink(
        self,
        provider: AuthProvider,
        *,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        password: str | Unset | None = UNSET,
        challenge: str | Unset | None = UNSET,
    ) -> LoginMethods:
        """Unlink an identity.

        The last way to log in is not removed. The password, or a second factor, is asked for once more.

        ``provider`` is that of ``GET /v1/accounts/me/identities``; for ``oidc`` the identities of all
        issuers go.
        """
        return await self.transport.send(
            LoginMethods,
            Call(
                "POST",
                f"/v1/accounts/me/identities/{path_value(provider)}/unlink",
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "password": password,
                    "challenge": challenge,
                },
            ),
        )

    async def verify(self, *, token: str, proof: str | Unset | None = UNSET) -> Verified:
        """Verify the address by a mailed token.

        A new account is open then; its password stays if the proof comes from the device that registered.
        """
        return await self.transport.send(
            Verified, Call("POST", "/v1/accounts/verification/confirm", body={"token": token, "proof": proof})
        )


class AdminCalls(Resource):
    """Calls of the section *admin*."""

    __slots__ = ()

    def check_storage(self, *, deep: bool | Unset = UNSET, repair: bool | Unset = UNSET) -> Download:
        """Compare the table of files with the storage.

        For administrators. Nothing is changed without ``repair``, which stores again what has wrong headers
        or sizes.
        """
        return Download(
            self.transport,
            Call("POST", "/v1/admin/storage/check", body={"deep": deep, "repair": repair}, follow_redirects=True),
        )

    def clean_storage(self, *, apply: bool | Unset = UNSET, older_than_hours: int | Unset = UNSET) -> Download:
        """Remove files that are useless.

        For administrators: what is expired, abandoned, unreferenced or unknown. Without ``apply`` it is
        only counted.
        """
        return Download(
            self.transport,
            Call(
                "POST",
                "/v1/admin/storage/cleanup",
                body={"apply": apply, "older_than_hours": older_than_hours},
                follow_redirects=True,
            ),
        )

    async def delete_user(self, user: UUID | str) -> None:
        """Erase an account.

        With its projects and files, for administrators. Only its id stays, for the audit trail.
        """
        await self.transport.respond(Call("DELETE", f"/v1/admin/users/{path_value(user)}"))

    async def end_sessions(self, user_id: UUID | str) -> Ended:
        """Log somebody out everywhere.

        For moderators, against users; for administrators, against everybody.
        """
        return await self.transport.send(Ended, Call("DELETE", f"/v1/admin/users/{path_value(user_id)}/sessions"))

    def export_trail(
        self,
        *,
        user_id: UUID | str | None = None,
        action: Sequence[AuditAction] | None = None,
        level: Sequence[AuditLevel] | None = None,
        category: Sequence[AuditCategory] | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        correlation_id: str | None = None,
        is_success: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        view: AuditView | None = None,
        format: ExportFormat | None = None,
    ) -> Download:
        """Export the audit trail.

        JSON Lines or CSV, oldest first, while it is read; for administrators. The export itself is
        recorded.
        """
        return Download(
            self.transport,
            Call(
                "GET",
                "/v1/admin/audit/export",
                query={
                    "user_id": user_id,
                    "action": action,
                    "level": level,
                    "category": category,
                    "resource_type": resource_type,
                    "resource_id": resource_id,
                    "correlation_id": correlation_id,
                    "is_success": is_success,
                    "since": since,
                    "until": until,
                    "text": text,
                    "view": view,
                    "format": format,
                },
                follow_redirects=True,
            ),
        )

    async def find_user(self, user: str) -> UserAdmin:
        """Find an account.

        By its id or its address, for moderators. ``ETag`` is what a change of the role needs.
        """
        return await self.transport.send(UserAdmin, Call("GET", f"/v1/admin/users/{path_value(user)}"))

    async def list_factors(self, user_id: UUID | str) -> FactorsView:
        """List somebody's second factors.

        For moderators.
        """
        return await self.transport.send(
            FactorsView, Call("GET", f"/v1/admin/users/{path_value(user_id)}/second-factors")
        )

    def list_mails(
        self, *, status: MailStatus | None = None, user_id: UUID | str | None = None, limit: int | None = None
    ) -> Pages[MailView, MailPage]:
        """List mails.

        For administrators: which wait, and what became of the others. Neither text nor link is shown.
        """

        async def fetch(after: Any) -> MailPage:
            return await self.transport.send(
                MailPage,
                Call(
                    "GET",
                    "/v1/admin/mails",
                    query={"status": status, "user_id": user_id, "limit": limit, "after": after},
                ),
            )

        return Pages(fetch, lambda page: page.mails)

    def list_sessions(self, user_id: UUID | str, *, limit: int | None = None) -> Pages[SessionAdmin, SessionPage]:
        """List somebody's sessions.

        For moderators; with devices and places.
        """

        async def fetch(after: Any) -> SessionPage:
            return await self.transport.send(
                SessionPage,
                Call("GET", f"/v1/admin/users/{path_value(user_id)}/sessions", query={"limit": limit, "after": after}),
            )

        return Pages(fetch, lambda page: page.sessions)

    def list_users(
        self, *, status: UserStatus | None = None, role: UserRole | None = None, limit: int | None = None
    ) -> Pages[UserAdmin, UserPage]:
        """List accounts.

        For moderators.
        """

        async def fetch(after: Any) -> UserPage:
            return await self.transport.send(
                UserPage,
                Call("GET", "/v1/admin/users", query={"status": status, "role": role, "limit": limit, "after": after}),
            )

        return Pages(fetch, lambda page: page.users)

    async def mail_reset(self, user_id: UUID | str) -> UserAdmin:
        """Mail a link for a new password.

        For moderators; at most one mail in five minutes, and none to an account that is suspended.
        """
        return await self.transport.send(
            UserAdmin, Call("POST", f"/v1/admin/users/{path_value(user_id)}/password-reset")
        )

    async def read_statistics(self) -> Statistics:
        """Read the figures of database, cache and storage.

        For administrators, after about ten seconds at most. Of a part that is null ``errors`` says why.
        """
        return await self.transport.send(Statistics, Call("GET", "/v1/admin/statistics"))

    def read_trail(
        self,
        *,
        user_id: UUID | str | None = None,
        action: Sequence[AuditAction] | None = None,
        level: Sequence[AuditLevel] | None = None,
        category: Sequence[AuditCategory] | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        correlation_id: str | None = None,
        is_success: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        view: AuditView | None = None,
        limit: int | None = None,
        oldest_first: bool | None = None,
    ) -> Pages[AuditFull | AuditCompliance | AuditSecure, TrailPage]:
        """Read the audit trail.

        Newest first. Users see what they did themselves (``user_id``), moderators what everybody did.
        """

        async def fetch(after: Any) -> TrailPage:
            return await self.transport.send(
                TrailPage,
                Call(
                    "GET",
                    "/v1/admin/audit",
                    query={
                        "user_id": user_id,
                        "action": action,
                        "level": level,
                        "category": category,
                        "resource_type": resource_type,
                        "resource_id": resource_id,
                        "correlation_id": correlation_id,
                        "is_success": is_success,
                        "since": since,
                        "until": until,
                        "text": text,
                        "view": view,
                        "limit": limit,
                        "after": after,
                        "oldest_first": oldest_first,
                    },
                ),
            )

        return Pages(fetch, lambda page: page.entries)

    async def reset_factors(self, user_id: UUID | str) -> Reset:
        """Reset somebody's second factors.

        For administrators, after they were lost: check the person's identity first. All their sessions end.
        """
        return await self.transport.send(Reset, Call("DELETE", f"/v1/admin/users/{path_value(user_id)}/second-factors"))

    async def retry_mail(self, mail_id: UUID | str) -> MailView:
        """Send a mail again.

        For administrators: one that waits or has failed, as soon as possible.
        """
        return await self.transport.send(MailView, Call("POST", f"/v1/admin/mails/{path_value(mail_id)}/retry"))

    async def run_maintenance(self, *, dry_run: bool | Unset = UNSET) -> MaintenanceReport:
        """Run maintenance.

        For administrators. One round at a time: ``is_complete`` is false where another process is at it.
        """
        return await self.transport.send(
            MaintenanceReport, Call("POST", "/v1/admin/maintenance", body={"dry_run": dry_run})
        )

    async def set_role(self, user_id: UUID | str, *, role: UserRole, if_match: str | None) -> UserAdmin:
        """Give an account another role.

        For administrators. The sessions of the account end. 409 for the last active administrator.

        ``If-Match`` must name the account that was read; 412 shows what is stored now.
        """
        return await self.transport.send(
            UserAdmin,
            Call(
                "PUT",
                f"/v1/admin/users/{path_value(user_id)}/role",
                headers={"If-Match": if_match},
                body={"role": role},
            ),
        )

    async def suspend(self, user_id: UUID | str, *, reason: str) -> UserAdmin:
        """Keep somebody out.

        For moderators, against users; for administrators, against everybody. All sessions end within two
        seconds.
        """
        return await self.transport.send(
            UserAdmin, Call("POST", f"/v1/admin/users/{path_value(user_id)}/suspend", body={"reason": reason})
        )

    async def unlock(self, user_id: UUID | str) -> None:
        """End the waiting after failed logins.

        For moderators.
        """
        await self.transport.respond(Call("POST", f"/v1/admin/users/{path_value(user_id)}/unlock"))

    async def unsuspend(self, user_id: UUID | str) -> UserAdmin:
        """Let somebody in again.

        An address that was never verified still has to be.
        """
        return await self.transport.send(UserAdmin, Call("POST", f"/v1/admin/users/{path_value(user_id)}/unsuspend"))

    async def verify(self, user_id: UUID | str) -> UserAdmin:
        """Vouch for an address.

        For administrators: the person who registered reads mail there. A new account is open then.
        """
        return await self.transport.send(UserAdmin, Call("POST", f"/v1/admin/users/{path_value(user_id)}/verify"))


class ApiKeysCalls(Resource):
    """Calls of the section *api keys*."""

    __slots__ = ()

    async def create(
        self,
        *,
        name: str,
        scopes: Sequence[ApiScope],
        expires_in: int | Unset | None = UNSET,
        idempotency_key: str | None = None,
    ) -> CreatedKey:
        """Make an API key.

        Scopes: ``read`` and ``write`` what the person has, ``generate`` code, ``admin`` for administrators
        alone.

        409 where a person has 50 keys in force.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            CreatedKey,
            Call(
                "POST",
                "/v1/accounts/me/api-keys",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"name": name, "scopes": scopes, "expires_in": expires_in},
            ),
        )

    def list_keys(self, *, limit: int | None = None) -> Pages[ApiKeyView, ApiKeyPage]:
        """List the own API keys.

        ``prefix`` is how a key begins, to recognise it by. ``last_used_at`` may be some seconds old.
        """

        async def fetch(after: Any) -> ApiKeyPage:
            return await self.transport.send(
                ApiKeyPage, Call("GET", "/v1/accounts/me/api-keys", query={"limit": limit, "after": after})
            )

        return Pages(fetch, lambda page: page.api_keys)

    async def revoke(self, key_id: UUID | str) -> None:
        """Revoke an API key.

        It is refused everywhere within two seconds. Harmless to repeat.
        """
        await self.transport.respond(Call("DELETE", f"/v1/accounts/me/api-keys/{path_value(key_id)}"))


class AssetsCalls(DirectUploads):
    """Calls of the section *assets*."""

    __slots__ = ()

    async def begin_upload(
        self,
        *,
        content_type: str,
        size: int,
        sha256: str | Unset | None = UNSET,
        file_name: str | Unset | None = UNSET,
        idempotency_key: str | None = None,
    ) -> DirectUpload:
        """Begin a direct upload.

        Send the file with ``method`` to ``url``, with exactly these ``headers``; then complete the upload.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            DirectUpload,
            Call(
                "POST",
                "/v1/assets/uploads",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"content_type": content_type, "size": size, "sha256": sha256, "file_name": file_name},
            ),
        )

    async def complete_upload(self, upload_id: UUID | str) -> AssetView:
        """Complete a direct upload.

        What has arrived is verified and becomes an asset with the same id. Harmless to repeat.
        """
        return await self.transport.send(
            AssetView, Call("POST", f"/v1/assets/uploads/{path_value(upload_id)}/complete")
        )

    def content(self, asset_id: UUID | str, *, thumbnail: int | None = None) -> Download:
        """Read the bytes of an asset.

        A redirect to a signed URL; ``thumbnail`` chooses the smallest one with at least so many pixels on a
        side.
        """
        return Download(
            self.transport,
            Call(
                "GET",
                f"/v1/assets/{path_value(asset_id)}/content",
                query={"thumbnail": thumbnail},
                follow_redirects=True,
            ),
        )

    async def create(
        self,
        *,
        url: str | Unset | None = UNSET,
        file_name: str | Unset | None = UNSET,
        file: File | None = None,
        idempotency_key: str | None = None,
    ) -> AssetView:
        """Keep a file.

        The type is read from the content; a name, a type or a URL that says something else changes nothing
        about it.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            AssetView,
            Call(
                "POST",
                "/v1/assets",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"url": url, "file_name": file_name},
                file=file,
            ),
        )

    async def delete(self, asset_id: UUID | str) -> None:
        """Delete an asset, or abandon an upload.

        Bytes that something else needs stay.
        """
        await self.transport.respond(Call("DELETE", f"/v1/assets/{path_value(asset_id)}"))

    async def get(self, asset_id: UUID | str) -> AssetView:
        """Read what is known of an asset.

        Its bytes are at ``/content``.
        """
        return await self.transport.send(AssetView, Call("GET", f"/v1/assets/{path_value(asset_id)}"))

    def list(self, *, limit: int | None = None) -> Pages[AssetView, AssetPage]:
        """List the own assets.

        Screenshots and generated images are among them.
        """

        async def fetch(after: Any) -> AssetPage:
            return await self.transport.send(
                AssetPage, Call("GET", "/v1/assets", query={"limit": limit, "after": after})
            )

        return Pages(fetch, lambda page: page.assets)

    async def publish(self, asset_id: UUID | str) -> PublicFile:
        """Give an asset a permanent address.

        It may stand inside pages. Harmless to repeat. Deleting the asset whose id is returned takes it
        back.
        """
        return await self.transport.send(PublicFile, Call("POST", f"/v1/assets/{path_value(asset_id)}/publish"))


class BudgetsCalls(Resource):
    """Calls of the section *budgets*."""

    __slots__ = ()

    async def get(self, currency: str, *, user_id: UUID | str | None = None) -> BudgetView:
        """Read a budget.

        404 where nothing limits what the person may spend. ``ETag`` names the limit, which a change needs.
        """
        return await self.transport.send(
            BudgetView, Call("GET", f"/v1/budgets/{path_value(currency)}", query={"user_id": user_id})
        )

    async def remove(self, currency: str, *, user_id: UUID | str, if_match: str | None = None) -> None:
        """Remove a budget.

        For administrators. The person may spend any amount from now on. Harmless to repeat.

        ``If-Match`` is heeded where it is sent.
        """
        await self.transport.respond(
            Call(
                "DELETE",
                f"/v1/budgets/{path_value(currency)}",
                query={"user_id": user_id},
                headers={"If-Match": if_match},
            )
        )

    async def set(
        self,
        currency: str,
        *,
        monthly_limit: Decimal | float | str,
        user_id: UUID | str,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
    ) -> BudgetView:
        """Set a budget.

        For administrators. A limit below what is spent already refuses every further reservation, and ends
        none.

        ``If-Match`` must name the limit that was read, or ``If-None-Match: *`` say that there is none; 412
        shows what is stored now.
        """
        return await self.transport.send(
            BudgetView,
            Call(
                "PUT",
                f"/v1/budgets/{path_value(currency)}",
                query={"user_id": user_id},
                headers={"If-Match": if_match, "If-None-Match": if_none_match},
                body={"monthly_limit": monthly_limit},
            ),
        )


class DesignSystemsCalls(Resource):
    """Calls of the section *design systems*."""

    __slots__ = ()

    async def change(
        self,
        design_id: UUID | str,
        *,
        if_match: str | None,
        name: str | Unset | None = UNSET,
        content: str | Unset | None = UNSET,
    ) -> DesignSystemView:
        """Change a design system.

        What is not given stays. ``If-Match`` must name what was read; 412 shows what is stored now.
        """
        return await self.transport.send(
            DesignSystemView,
            Call(
                "PATCH",
                f"/v1/design-systems/{path_value(design_id)}",
                headers={"If-Match": if_match},
                body={"name": name, "content": content},
            ),
        )

    async def create(self, *, name: str, content: str, idempotency_key: str | None = None) -> DesignSystemView:
        """Add a design system.

        Two may have the same name. 409 where a person has a hundred already.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            DesignSystemView,
            Call(
                "POST",
                "/v1/design-systems",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"name": name, "content": content},
            ),
        )

    async def delete(self, design_id: UUID | str, *, if_match: str | None = None) -> None:
        """Delete a design system.

        Generations that used it keep their own copy of its text. ``If-Match`` is heeded where it is sent.
        """
        await self.transport.respond(
            Call("DELETE", f"/v1/design-systems/{path_value(design_id)}", headers={"If-Match": if_match})
        )

    async def get(self, design_id: UUID | str) -> DesignSystemView:
        """Read a design system.

        ``ETag`` is what a change needs.
        """
        return await self.transport.send(DesignSystemView, Call("GET", f"/v1/design-systems/{path_value(design_id)}"))

    async def list(self) -> DesignSystems:
        """List the own design systems.

        There are a hundred at most, so they are on one page.
        """
        return await self.transport.send(DesignSystems, Call("GET", "/v1/design-systems"))


class ExportsCalls(Resource):
    """Calls of the section *exports*."""

    __slots__ = ()

    def content(self, export_id: UUID | str) -> Download:
        """Download the archive of an export.

        A redirect to a signed URL, which takes Range, so that a download that broke off goes on.
        """
        return Download(
            self.transport,
            Call("GET", f"/v1/accounts/me/exports/{path_value(export_id)}/content", follow_redirects=True),
        )

    async def delete(self, export_id: UUID | str) -> None:
        """Delete an export.

        Its archive goes too; one that is being made is given up.
        """
        await self.transport.respond(Call("DELETE", f"/v1/accounts/me/exports/{path_value(export_id)}"))

    async def get(self, export_id: UUID | str) -> ExportView:
        """Read how far an export is.

        ``queued``, ``running``, ``done``, ``failed`` or ``expired``; ask again every few seconds.
        """
        return await self.transport.send(ExportView, Call("GET", f"/v1/accounts/me/exports/{path_value(export_id)}"))

    def list(self, *, limit: int | None = None) -> Pages[ExportView, ExportPage]:
        """List the own exports.

        Those of the last thirty days, the newest first. One of them at most has an archive.
        """

        async def fetch(after: Any) -> ExportPage:
            return await self.transport.send(
                ExportPage, Call("GET", "/v1/accounts/me/exports", query={"limit": limit, "after": after})
            )

        return Pages(fetch, lambda page: page.exports)

    async def start(self, *, idempotency_key: str | None = None) -> ExportView:
        """Export everything about the own account.

        A ZIP is made in the background; a mail says when it is ready. While one is made, the answer is that
        one.

        It holds the account, identities, sessions, keys, projects with all versions, files, shares, usage,
        and what the audit trail says of the person. It can be had for seven days, or until a later one is
        complete.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            ExportView,
            Call("POST", "/v1/accounts/me/exports", headers={"Idempotency-Key": idempotency_key or new_key()}),
        )


class GenerationsCalls(GenerationStreams):
    """Calls of the section *generations*."""

    __slots__ = ()

    async def append(
        self,
        generation_id: UUID | str,
        *,
        variant: int,
        sequence: int,
        pieces: Sequence[WrittenText | WrittenCode | WrittenEvent],
        writer_token: str,
    ) -> Appended:
        """Write what was streamed.

        It is answered when it is stored. Pieces that came before are passed over, so a batch may be sent
        again.
        """
        return await self.transport.send(
            Appended,
            Call(
                "POST",
                f"/v1/generations/{path_value(generation_id)}/events",
                headers={"Writer-Token": writer_token},
                body={"variant": variant, "sequence": sequence, "pieces": pieces},
            ),
        )

    async def cancel(self, generation_id: UUID | str, *, variant: int | Unset | None = UNSET) -> GenerationView:
        """Cancel a generation.

        What was streamed so far is kept. Harmless where nothing runs any more.
        """
        return await self.transport.send(
            GenerationView,
            Call("POST", f"/v1/generations/{path_value(generation_id)}/cancel", body={"variant": variant}),
        )

    async def end(
        self,
        generation_id: UUID | str,
        index: int,
        *,
        status: Literal["completed", "failed"],
        writer_token: str,
        code: str | Unset | None = UNSET,
        result: VariantResult | Unset = UNSET,
        error_message: str | Unset | None = UNSET,
        error_details: Mapping[str, Any] | Unset = UNSET,
    ) -> EndedVariant:
        """End a variant.

        With success or without. Harmless to repeat; a variant that has ended in another way answers 409.
        """
        return await self.transport.send(
            EndedVariant,
            Call(
                "PUT",
                f"/v1/generations/{path_value(generation_id)}/variants/{path_value(index)}",
                headers={"Writer-Token": writer_token},
                body={
                    "status": status,
                    "code": code,
                    "result": result,
                    "error_message": error_message,
                    "error_details": error_details,
                },
            ),
        )

    async def get(self, generation_id: UUID | str, *, reason: str | None = None) -> GenerationFull:
        """Read a generation.

        What was asked for, and its variants without their code.
        """
        return await self.transport.send(
            GenerationFull, Call("GET", f"/v1/generations/{path_value(generation_id)}", query={"reason": reason})
        )

    async def renew_lease(self, generation_id: UUID | str, *, writer_token: str) -> None:
        """Renew the lease of the writer.

        For a writer that has nothing to send, such as while a model thinks. Every twenty seconds is often
        enough.
        """
        await self.transport.respond(
            Call("PUT", f"/v1/generations/{path_value(generation_id)}/lease", headers={"Writer-Token": writer_token})
        )

    async def select(self, generation_id: UUID | str, *, variant: int) -> GenerationView:
        """Choose the variant that goes on.

        The new selection shows in the history of the project.
        """
        return await self.transport.send(
            GenerationView,
            Call("PUT", f"/v1/generations/{path_value(generation_id)}/selection", body={"variant": variant}),
        )

    async def start(
        self,
        *,
        project_id: UUID | str,
        request: GenerationRequest | Unset = UNSET,
        models: Sequence[VariantModel] | Unset = UNSET,
        reserve: Decimal | float | str | Unset | None = UNSET,
        currency: str | Unset = UNSET,
        idempotency_key: str | None = None,
    ) -> StartedGeneration:
        """Start a generation.

        The answer holds the ids, and the token that lets its holder write the variants. It cannot be had
        again.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            StartedGeneration,
            Call(
                "POST",
                "/v1/generations",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={
                    "project_id": project_id,
                    "request": request,
                    "models": models,
                    "reserve": reserve,
                    "currency": currency,
                },
            ),
        )

    async def take_over(self, generation_id: UUID | str) -> WriterState:
        """Take over as the writer.

        For a process that continues what another one began, whose token is of no use from now on.
        """
        return await self.transport.send(
            WriterState, Call("POST", f"/v1/generations/{path_value(generation_id)}/writer")
        )


class ImagesCalls(Resource):
    """Calls of the section *images*."""

    __slots__ = ()

    async def change(
        self,
        image_id: UUID | str,
        *,
        if_match: str | None,
        name: str | Unset | None = UNSET,
        is_favorite: bool | Unset | None = UNSET,
    ) -> GeneratedImageFull:
        """Change an image.

        What is not given stays; a ``name`` of null is taken away. ``If-Match`` must name what was read.
        """
        return await self.transport.send(
            GeneratedImageFull,
            Call(
                "PATCH",
                f"/v1/images/{path_value(image_id)}",
                headers={"If-Match": if_match},
                body={"name": name, "is_favorite": is_favorite},
            ),
        )

    def content(self, image_id: UUID | str, *, reason: str | None = None) -> Download:
        """Read the bytes of an image.

        A redirect to a signed URL.
        """
        return Download(
            self.transport,
            Call("GET", f"/v1/images/{path_value(image_id)}/content", query={"reason": reason}, follow_redirects=True),
        )

    async def delete(self, image_id: UUID | str) -> None:
        """Delete an image.

        Its file goes too, unless another row or a permanent address needs it.
        """
        await self.transport.respond(Call("DELETE", f"/v1/images/{path_value(image_id)}"))

    async def get(self, image_id: UUID | str, *, reason: str | None = None) -> GeneratedImageFull:
        """Read what is known of an image.

        The view is counted. ``ETag`` is what a change needs.
        """
        return await self.transport.send(
            GeneratedImageFull, Call("GET", f"/v1/images/{path_value(image_id)}", query={"reason": reason})
        )

    def list(
        self,
        project_id: UUID | str,
        *,
        kind: ImageKind | None = None,
        is_favorite: bool | None = None,
        limit: int | None = None,
        reason: str | None = None,
    ) -> Pages[GeneratedImageSummary, ImagePage]:
        """List the images of a project.

        The latest come first.
        """

        async def fetch(after: Any) -> ImagePage:
            return await self.transport.send(
                ImagePage,
                Call(
                    "GET",
                    f"/v1/projects/{path_value(project_id)}/images",
                    query={"kind": kind, "is_favorite": is_favorite, "after": after, "limit": limit, "reason": reason},
                ),
            )

        return Pages(fetch, lambda page: page.images)

    async def publish(self, image_id: UUID | str) -> PublicFile:
        """Give an image a permanent address.

        It may stand inside pages, and outlives the image. Harmless to repeat.
        """
        return await self.transport.send(PublicFile, Call("POST", f"/v1/images/{path_value(image_id)}/publish"))

    async def rate(
        self,
        image_id: UUID | str,
        *,
        stars: int | Unset | None = UNSET,
        is_good: bool | Unset | None = UNSET,
        words: str | Unset | None = UNSET,
    ) -> GeneratedImageFull:
        """Rate an image.

        Stars, a thumb up or down, and why.
        """
        return await self.transport.send(
            GeneratedImageFull,
            Call(
                "PUT",
                f"/v1/images/{path_value(image_id)}/rating",
                body={"stars": stars, "is_good": is_good, "words": words},
            ),
        )

    async def record(
        self,
        project_id: UUID | str,
        *,
        prompt: str | Unset = UNSET,
        revised_prompt: str | Unset | None = UNSET,
        name: str | Unset | None = UNSET,
        provider: ImageProvider | Unset = UNSET,
        kind: ImageKind | Unset = UNSET,
        model: str | Unset = UNSET,
        size: str | Unset | None = UNSET,
        quality: ImageQuality | Unset | None = UNSET,
        style: ImageStyle | Unset | None = UNSET,
        seed: int | Unset | None = UNSET,
        generation_params: Mapping[str, Any] | Unset = UNSET,
        generation_time_seconds: float | Unset | None = UNSET,
        error_details: Mapping[str, Any] | Unset = UNSET,
        correlation_id: str | Unset | None = UNSET,
        metadata: Mapping[str, Any] | Unset = UNSET,
        url: str | Unset | None = UNSET,
        file_name: str | Unset | None = UNSET,
        file: File | None = None,
        idempotency_key: str | None = None,
    ) -> GeneratedImageFull:
        """Record an image.

        Its bytes are kept as a file with thumbnails.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            GeneratedImageFull,
            Call(
                "POST",
                f"/v1/projects/{path_value(project_id)}/images",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={
                    "prompt": prompt,
                    "revised_prompt": revised_prompt,
                    "name": name,
                    "provider": provider,
                    "kind": kind,
                    "model": model,
                    "size": size,
                    "quality": quality,
                    "style": style,
                    "seed": seed,
                    "generation_params": generation_params,
                    "generation_time_seconds": generation_time_seconds,
                    "error_details": error_details,
                    "correlation_id": correlation_id,
                    "metadata": metadata,
                    "url": url,
                    "file_name": file_name,
                },
                file=file,
            ),
        )

    def thumbnail(self, image_id: UUID | str, *, size: int | None = None, reason: str | None = None) -> Download:
        """Read a thumbnail of an image.

        The smallest with at least ``size`` pixels on a side; the image itself where there is none.
        """
        return Download(
            self.transport,
            Call(
                "GET",
                f"/v1/images/{path_value(image_id)}/thumbnail",
                query={"size": size, "reason": reason},
                follow_redirects=True,
            ),
        )


class ProjectsCalls(Resource):
    """Calls of the section *projects*."""

    __slots__ = ()

    async def archive(self, project_id: UUID | str) -> ProjectFull:
        """Put a project aside.

        Harmless to repeat.
        """
        return await self.transport.send(ProjectFull, Call("POST", f"/v1/projects/{path_value(project_id)}/archive"))

    async def change(
        self,
        project_id: UUID | str,
        *,
        if_match: str | None,
        name: str | Unset | None = UNSET,
        description: str | Unset | None = UNSET,
        type: ProjectType | Unset | None = UNSET,
        status: ProjectStatus | Unset | None = UNSET,
        instructions: str | Unset | None = UNSET,
        settings: Mapping[str, Any] | Unset | None = UNSET,
        tags: Sequence[str] | Unset | None = UNSET,
        is_public: bool | Unset | None = UNSET,
        is_favorite: bool | Unset | None = UNSET,
        metadata: Mapping[str, Any] | Unset | None = UNSET,
    ) -> ProjectFull:
        """Change a project.

        What is not given stays. ``If-Match`` must name the revision that was read; 412 shows what is stored
        now.
        """
        return await self.transport.send(
            ProjectFull,
            Call(
                "PATCH",
                f"/v1/projects/{path_value(project_id)}",
                headers={"If-Match": if_match},
                body={
                    "name": name,
                    "description": description,
                    "type": type,
                    "status": status,
                    "instructions": instructions,
                    "settings": settings,
                    "tags": tags,
                    "is_public": is_public,
                    "is_favorite": is_favorite,
                    "metadata": metadata,
                },
            ),
        )

    async def clone(
        self,
        project_id: UUID | str,
        *,
        name: str | Unset | None = UNSET,
        history: bool | Unset = UNSET,
        version: int | Unset | None = UNSET,
        idempotency_key: str | None = None,
    ) -> ProjectFull:
        """Copy a project.

        With its history up to ``version``, or without it as version 1. The copy is private and holds its
        own files.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            ProjectFull,
            Call(
                "POST",
                f"/v1/projects/{path_value(project_id)}/clone",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"name": name, "history": history, "version": version},
            ),
        )

    async def create(
        self,
        *,
        name: str,
        description: str | Unset | None = UNSET,
        type: ProjectType | Unset = UNSET,
        instructions: str | Unset | None = UNSET,
        settings: Mapping[str, Any] | Unset = UNSET,
        tags: Sequence[str] | Unset = UNSET,
        is_public: bool | Unset = UNSET,
        is_favorite: bool | Unset = UNSET,
        metadata: Mapping[str, Any] | Unset = UNSET,
        screenshot: str | Unset | None = UNSET,
        file_name: str | Unset | None = UNSET,
        file: File | None = None,
        idempotency_key: str | None = None,
    ) -> ProjectFull:
        """Create a project.

        The answer names the new project in ``Location``.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            ProjectFull,
            Call(
                "POST",
                "/v1/projects",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={
                    "name": name,
                    "description": description,
                    "type": type,
                    "instructions": instructions,
                    "settings": settings,
                    "tags": tags,
                    "is_public": is_public,
                    "is_favorite": is_favorite,
                    "metadata": metadata,
                    "screenshot": screenshot,
                    "file_name": file_name,
                },
                file=file,
            ),
        )

    async def delete(self, project_id: UUID | str) -> None:
        """Move a project to the trash.

        Undelete undoes it, for as long as the trash is kept.
        """
        await self.transport.respond(Call("DELETE", f"/v1/projects/{path_value(project_id)}"))

    async def get(self, project_id: UUID | str, *, reason: str | None = None) -> ProjectFull:
        """Read a project.

        The view is counted. ``ETag`` is the revision, which a change needs.
        """
        return await self.transport.send(
            ProjectFull, Call("GET", f"/v1/projects/{path_value(project_id)}", query={"reason": reason})
        )

    def list(
        self,
        *,
        owner_id: UUID | str | None = None,
        reason: str | None = None,
        status: Sequence[ProjectStatus] | None = None,
        type: ProjectType | None = None,
        stack: CodeStack | None = None,
        tag: str | None = None,
        is_favorite: bool | None = None,
        is_public: bool | None = None,
        order: ProjectOrder | None = None,
        descending: bool | None = None,
        limit: int | None = None,
    ) -> Pages[ProjectSummary, ProjectPage]:
        """List the own projects.

        A project that nobody changes meanwhile is on exactly one page. Another person's list needs a
        reason.
        """

        async def fetch(after: Any) -> ProjectPage:
            return await self.transport.send(
                ProjectPage,
                Call(
                    "GET",
                    "/v1/projects",
                    query={
                        "after": after,
                        "owner_id": owner_id,
                        "reason": reason,
                        "status": status,
                        "type": type,
                        "stack": stack,
                        "tag": tag,
                        "is_favorite": is_favorite,
                        "is_public": is_public,
                        "order": order,
                        "descending": descending,
                        "limit": limit,
                    },
                ),
            )

        return Pages(fetch, lambda page: page.projects)

    def search(
        self,
        *,
        q: str,
        owner_id: UUID | str | None = None,
        reason: str | None = None,
        include_public: bool | None = None,
        limit: int | None = None,
    ) -> Pages[ProjectHit, SearchPage]:
        """Search projects.

        Names, tags, descriptions, instructions, prompts and the latest page are searched; the best hits
        come first.
        """

        async def fetch(after: Any) -> SearchPage:
            return await self.transport.send(
                SearchPage,
                Call(
                    "GET",
                    "/v1/projects/search",
                    query={
                        "after": after,
                        "owner_id": owner_id,
                        "reason": reason,
                        "q": q,
                        "include_public": include_public,
                        "limit": limit,
                    },
                ),
            )

        return Pages(fetch, lambda page: page.hits)

    def thumbnail(self, project_id: UUID | str, *, reason: str | None = None) -> Download:
        """Look at the picture of a project.

        The screenshot in small. 404 with the code `picture_missing` where there is none.
        """
        return Download(
            self.transport,
            Call(
                "GET",
                f"/v1/projects/{path_value(project_id)}/thumbnail",
                query={"reason": reason},
                follow_redirects=True,
            ),
        )

    async def tree(
        self, project_id: UUID | str, *, code: TreeCode | None = None, reason: str | None = None
    ) -> ProjectTree:
        """Read a project with all its versions.

        All that an application needs to show a project again; variants form a tree by ``parent_id``.

        The answer is sent while it is read, so its length is not known before. ``ETag`` changes with
        whatever is in it, counters aside.
        """
        return await self.transport.send(
            ProjectTree,
            Call("GET", f"/v1/projects/{path_value(project_id)}/tree", query={"code": code, "reason": reason}),
        )

    async def unarchive(self, project_id: UUID | str) -> ProjectFull:
        """Return a project from the archive.

        It has the status again that it had. Harmless to repeat.
        """
        return await self.transport.send(ProjectFull, Call("POST", f"/v1/projects/{path_value(project_id)}/unarchive"))

    async def undelete(self, project_id: UUID | str) -> ProjectFull:
        """Take a project out of the trash.

        Harmless to repeat.
        """
        return await self.transport.send(ProjectFull, Call("POST", f"/v1/projects/{path_value(project_id)}/undelete"))

    async def version(
        self, project_id: UUID | str, number: int, *, variant: int | None = None, reason: str | None = None
    ) -> GeneratedCodeFull:
        """Read a version with its code.

        The view is counted.
        """
        return await self.transport.send(
            GeneratedCodeFull,
            Call(
                "GET",
                f"/v1/projects/{path_value(project_id)}/versions/{path_value(number)}",
                query={"variant": variant, "reason": reason},
            ),
        )

    def versions(
        self, project_id: UUID | str, *, limit: int | None = None, reason: str | None = None
    ) -> Pages[GenerationView, VersionPage]:
        """List the versions of a project.

        Variants form a tree by ``parent_id``.
        """

        async def fetch(before: Any) -> VersionPage:
            return await self.transport.send(
                VersionPage,
                Call(
                    "GET",
                    f"/v1/projects/{path_value(project_id)}/versions",
                    query={"before": before, "limit": limit, "reason": reason},
                ),
            )

        return Pages(fetch, lambda page: page.versions)


class SecondFactorsCalls(Resource):
    """Calls of the section *second factors*."""

    __slots__ = ()

    async def add_passkey(
        self,
        *,
        challenge: str,
        answer: Mapping[str, Any],
        name: str | Unset = UNSET,
        idempotency_key: str | None = None,
    ) -> AddedFactor:
        """Add a passkey.

        From now on logging in with the password asks for a second factor.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            AddedFactor,
            Call(
                "POST",
                "/v1/accounts/me/second-factors/passkeys",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"challenge": challenge, "answer": answer, "name": name},
            ),
        )

    async def begin_confirmation(self) -> SecondFactorNeeded:
        """Ask for a challenge that a second factor answers.

        For adding or removing a factor, or for other recovery codes, with a passkey.
        """
        return await self.transport.send(SecondFactorNeeded, Call("POST", "/v1/accounts/me/second-factors/challenge"))

    async def begin_passkey(
        self,
        *,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        password: str | Unset | None = UNSET,
        challenge: str | Unset | None = UNSET,
    ) -> PasskeyOptions:
        """Begin to make a passkey.

        ``options`` are for ``navigator.credentials.create``.

        Passkeys are bound to PASSKEY_DOMAIN, which is the host of PUBLIC_URL by default.
        """
        return await self.transport.send(
            PasskeyOptions,
            Call(
                "POST",
                "/v1/accounts/me/second-factors/passkeys/options",
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "password": password,
                    "challenge": challenge,
                },
            ),
        )

    async def begin_totp(
        self,
        *,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        password: str | Unset | None = UNSET,
        challenge: str | Unset | None = UNSET,
        name: str | Unset = UNSET,
        idempotency_key: str | None = None,
    ) -> AddedApp:
        """Add an authenticator app.

        It counts once a code was confirmed. One that was begun before, and not confirmed, is forgotten.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            AddedApp,
            Call(
                "POST",
                "/v1/accounts/me/second-factors/totp",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "password": password,
                    "challenge": challenge,
                    "name": name,
                },
            ),
        )

    async def confirm_totp(self, factor_id: UUID | str, *, code: str) -> AddedFactor:
        """Confirm an authenticator app.

        From now on logging in with the password asks for a second factor.
        """
        return await self.transport.send(
            AddedFactor,
            Call("POST", f"/v1/accounts/me/second-factors/totp/{path_value(factor_id)}/confirm", body={"code": code}),
        )

    async def list_factors(self) -> FactorsView:
        """List the own second factors.

        The oldest first, and how many recovery codes are left.
        """
        return await self.transport.send(FactorsView, Call("GET", "/v1/accounts/me/second-factors"))

    async def remove(
        self,
        factor_id: UUID | str,
        *,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        password: str | Unset | None = UNSET,
        challenge: str | Unset | None = UNSET,
    ) -> None:
        """Remove a second factor.

        The password, or a second factor, is asked for once more. With the last factor the recovery codes
        go.
        """
        await self.transport.respond(
            Call(
                "POST",
                f"/v1/accounts/me/second-factors/{path_value(factor_id)}/remove",
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "password": password,
                    "challenge": challenge,
                },
            )
        )

    async def renew(
        self,
        *,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        password: str | Unset | None = UNSET,
        challenge: str | Unset | None = UNSET,
        idempotency_key: str | None = None,
    ) -> RecoveryCodes:
        """Renew the recovery codes.

        Those there were work no more. The password, or a second factor, is asked for once more.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            RecoveryCodes,
            Call(
                "POST",
                "/v1/accounts/me/second-factors/recovery-codes",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "password": password,
                    "challenge": challenge,
                },
            ),
        )


class SessionsCalls(Resource):
    """Calls of the section *sessions*."""

    __slots__ = ()

    async def begin_passkey_log_in(self, *, reactivate: bool | Unset = UNSET) -> PasskeyOptions:
        """Begin to log in with a passkey.

        ``options`` are for ``navigator.credentials.get``. It takes the place of password and second factor.

        Send ``challenge`` and the answer to ``POST /v1/sessions/second-factor`` or ``POST
        /v1/tokens/second-factor``. The passkey must verify its owner, by a PIN or a finger.
        """
        return await self.transport.send(
            PasskeyOptions, Call("POST", "/v1/sessions/passkey", body={"reactivate": reactivate}, needs_login=False)
        )

    async def end(self, session_id: UUID | str) -> None:
        """End a session.

        One of the own, such as that of a lost device. Harmless when it has ended.
        """
        await self.transport.respond(Call("DELETE", f"/v1/sessions/{path_value(session_id)}"))

    async def end_others(self) -> EndedSessions:
        """Log out everywhere else.

        All but the one of this request.
        """
        return await self.transport.send(EndedSessions, Call("POST", "/v1/sessions/revoke-others"))

    async def finish_log_in(
        self,
        *,
        challenge: str,
        code: str | Unset | None = UNSET,
        recovery_code: str | Unset | None = UNSET,
        passkey: Mapping[str, Any] | Unset | None = UNSET,
        device_id: str | Unset | None = UNSET,
        cookie: bool | Unset = UNSET,
    ) -> BegunSession:
        """Log in with a second factor.

        Wrong answers count as failed logins.

        ``challenge`` is that of the first answer, or of ``POST /v1/sessions/passkey``, and good for five
        minutes.
        """
        return await self.transport.send(
            BegunSession,
            Call(
                "POST",
                "/v1/sessions/second-factor",
                body={
                    "code": code,
                    "recovery_code": recovery_code,
                    "passkey": passkey,
                    "challenge": challenge,
                    "device_id": device_id,
                    "cookie": cookie,
                },
                needs_login=False,
            ),
        )

    async def list(self) -> OwnSessions:
        """List the own sessions.

        Those that are accepted, the one that was active last first.
        """
        return await self.transport.send(OwnSessions, Call("GET", "/v1/sessions"))

    async def list_issuers(self) -> ProviderList:
        """List whom one can log in by.

        A button is a link to ``login_url``, with ``?next=`` and the path to go on with.
        """
        return await self.transport.send(ProviderList, Call("GET", "/v1/oidc", needs_login=False))

    async def log_in(
        self,
        *,
        email: str,
        password: str,
        reactivate: bool | Unset = UNSET,
        device_id: str | Unset | None = UNSET,
        cookie: bool | Unset = UNSET,
    ) -> BegunSession:
        """Log in.

        The token is in the answer, or in a cookie if the body asks for one. 200 where a second factor is
        needed.
        """
        return await self.transport.send(
            BegunSession,
            Call(
                "POST",
                "/v1/sessions",
                body={
                    "email": email,
                    "password": password,
                    "reactivate": reactivate,
                    "device_id": device_id,
                    "cookie": cookie,
                },
                needs_login=False,
            ),
        )

    async def log_out(self) -> None:
        """Log out.

        The cookie, if there is one, is removed.
        """
        await self.transport.respond(Call("DELETE", "/v1/sessions/current"))


class SharesCalls(Resource):
    """Calls of the section *shares*."""

    __slots__ = ()

    async def create(
        self,
        project_id: UUID | str,
        *,
        version: int | Unset | None = UNSET,
        variant_index: int | Unset | None = UNSET,
        expires_in: int | Unset | None = UNSET,
        idempotency_key: str | None = None,
    ) -> CreatedShare:
        """Share a project.

        Anybody with the link sees the page. 409 where the project has a hundred shares in force.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            CreatedShare,
            Call(
                "POST",
                f"/v1/projects/{path_value(project_id)}/shares",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"version": version, "variant_index": variant_index, "expires_in": expires_in},
            ),
        )

    async def fork(self, *, token: str, name: str | Unset = UNSET, idempotency_key: str | None = None) -> ProjectFull:
        """Make a project of a shared page.

        The page becomes version 1 of a project of your own; nothing else of the shared project comes along.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            ProjectFull,
            Call(
                "POST",
                "/v1/shares/fork",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"token": token, "name": name},
            ),
        )

    def list(self, project_id: UUID | str, *, limit: int | None = None) -> Pages[ShareView, SharePage]:
        """List the shares of a project.

        Owners and moderators see them; tokens are not among what they see.
        """

        async def fetch(after: Any) -> SharePage:
            return await self.transport.send(
                SharePage,
                Call("GET", f"/v1/projects/{path_value(project_id)}/shares", query={"limit": limit, "after": after}),
            )

        return Pages(fetch, lambda page: page.shares)

    async def revoke(self, share_id: UUID | str) -> None:
        """Revoke a share.

        It ends at once and for good. Harmless to repeat.
        """
        await self.transport.respond(Call("DELETE", f"/v1/shares/{path_value(share_id)}"))


class UsageCalls(Resource):
    """Calls of the section *usage*."""

    __slots__ = ()

    def entries(
        self, *, user_id: UUID | str | None = None, project_id: UUID | str | None = None, limit: int | None = None
    ) -> Pages[UsageEntryView, EntryPage]:
        """List the ledger.

        Entries are recorded once and never changed.
        """

        async def fetch(before: Any) -> EntryPage:
            return await self.transport.send(
                EntryPage,
                Call(
                    "GET",
                    "/v1/usage/entries",
                    query={"user_id": user_id, "project_id": project_id, "limit": limit, "before": before},
                ),
            )

        return Pages(fetch, lambda page: page.entries)

    async def sums(
        self,
        *,
        by: Sequence[UsageGroup] | None = None,
        user_id: UUID | str | None = None,
        everyone: bool | None = None,
        project_id: UUID | str | None = None,
        first_day: date | None = None,
        last_day: date | None = None,
    ) -> Sums:
        """Add up usage.

        As JSON, or as CSV with ``format=csv`` or ``Accept: text/csv``. There are 10,000 sums at most.
        """
        return await self.transport.send(
            Sums,
            Call(
                "GET",
                "/v1/usage",
                query={
                    "by": by,
                    "user_id": user_id,
                    "everyone": everyone,
                    "project_id": project_id,
                    "first_day": first_day,
                    "last_day": last_day,
                },
            ),
        )


class VariantsCalls(Resource):
    """Calls of the section *variants*."""

    __slots__ = ()

    async def change(
        self,
        variant_id: UUID | str,
        *,
        if_match: str | None,
        name: str | Unset | None = UNSET,
        is_favorite: bool | Unset = UNSET,
    ) -> GeneratedCodeFull:
        """Change a variant.

        What is not given stays. ``If-Match`` must name the ETag that was read; 412 shows what is stored
        now.
        """
        return await self.transport.send(
            GeneratedCodeFull,
            Call(
                "PATCH",
                f"/v1/variants/{path_value(variant_id)}",
                headers={"If-Match": if_match},
                body={"name": name, "is_favorite": is_favorite},
            ),
        )

    async def code(self, variant_id: UUID | str, *, download: bool | None = None, reason: str | None = None) -> str:
        """Read the code of a variant.

        Always text, whatever is in it. ``ETag`` is the SHA-256 of the answer.
        """
        return (
            await self.transport.respond(
                Call(
                    "GET", f"/v1/variants/{path_value(variant_id)}/code", query={"download": download, "reason": reason}
                )
            )
        ).text

    async def count_copy(self, variant_id: UUID | str) -> None:
        """Count that the code was copied.

        For a button that copies to the clipboard, which the service would not notice.
        """
        await self.transport.respond(Call("POST", f"/v1/variants/{path_value(variant_id)}/copies"))

    async def diff(
        self, variant_id: UUID | str, *, against: UUID | str | None = None, reason: str | None = None
    ) -> CodeDiff:
        """Compare a variant with another one.

        What the variant changes of the other one: as JSON, or as a unified diff for ``Accept:
        text/x-diff``.
        """
        return await self.transport.send(
            CodeDiff,
            Call("GET", f"/v1/variants/{path_value(variant_id)}/diff", query={"against": against, "reason": reason}),
        )

    async def fork(
        self, variant_id: UUID | str, *, name: str | Unset | None = UNSET, idempotency_key: str | None = None
    ) -> ProjectFull:
        """Begin a project with a variant.

        The new project is private, and holds its own files.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            ProjectFull,
            Call(
                "POST",
                f"/v1/variants/{path_value(variant_id)}/fork",
                headers={"Idempotency-Key": idempotency_key or new_key()},
                body={"name": name},
            ),
        )

    async def get(self, variant_id: UUID | str, *, reason: str | None = None) -> GeneratedCodeFull:
        """Read a variant.

        The view is counted. ``ETag`` names what people edit, which a change needs.
        """
        return await self.transport.send(
            GeneratedCodeFull, Call("GET", f"/v1/variants/{path_value(variant_id)}", query={"reason": reason})
        )

    def preview(self, variant_id: UUID | str, *, at: int | None = None, reason: str | None = None) -> Download:
        """Look at the page of a variant.

        The page can do nothing to the person who looks. The view is counted, unless it is one of a state.
        """
        return Download(
            self.transport,
            Call(
                "GET",
                f"/v1/variants/{path_value(variant_id)}/preview",
                query={"at": at, "reason": reason},
                follow_redirects=True,
            ),
        )

    async def rate(
        self,
        variant_id: UUID | str,
        *,
        stars: int | Unset | None = UNSET,
        is_good: bool | Unset | None = UNSET,
        words: str | Unset | None = UNSET,
    ) -> GeneratedCodeFull:
        """Rate a variant.

        Harmless to repeat.
        """
        return await self.transport.send(
            GeneratedCodeFull,
            Call(
                "PUT",
                f"/v1/variants/{path_value(variant_id)}/feedback",
                body={"stars": stars, "is_good": is_good, "words": words},
            ),
        )

    async def replay(self, variant_id: UUID | str, *, reason: str | None = None) -> VariantReplay:
        """Read how a variant was made.

        How its code grew, step by step, and its events, each so many milliseconds after the beginning.

        A step says how many characters of the code before it stay at the beginning and at the end, and what
        stands between them. `is_known` is false where the code was stored as a whole.
        """
        return await self.transport.send(
            VariantReplay, Call("GET", f"/v1/variants/{path_value(variant_id)}/replay", query={"reason": reason})
        )

    async def restore(self, variant_id: UUID | str, *, idempotency_key: str | None = None) -> GenerationView:
        """Restore a variant.

        It becomes the last version of its project again, as a generation of its own.

        It is repeated under one key; to repeat it from elsewhere too, give an ``idempotency_key``.
        """
        return await self.transport.send(
            GenerationView,
            Call(
                "POST",
                f"/v1/variants/{path_value(variant_id)}/restore",
                headers={"Idempotency-Key": idempotency_key or new_key()},
            ),
        )

    async def take_back_rating(self, variant_id: UUID | str) -> None:
        """Take back the rating of a variant.

        Harmless to repeat.
        """
        await self.transport.respond(Call("DELETE", f"/v1/variants/{path_value(variant_id)}/feedback"))

    def thumbnail(self, variant_id: UUID | str, *, reason: str | None = None) -> Download:
        """Look at the picture of a variant.

        The last image that was attached to it, in small. 404 with the code `picture_missing` where there is
        none.
        """
        return Download(
            self.transport,
            Call(
                "GET",
                f"/v1/variants/{path_value(variant_id)}/thumbnail",
                query={"reason": reason},
                follow_redirects=True,
            ),
        )


class Resources:
    """All resources of the API."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.accounts = AccountsCalls(transport)
        self.admin = AdminCalls(transport)
        self.api_keys = ApiKeysCalls(transport)
        self.assets = AssetsCalls(transport)
        self.budgets = BudgetsCalls(transport)
        self.design_systems = DesignSystemsCalls(transport)
        self.exports = ExportsCalls(transport)
        self.generations = GenerationsCalls(transport)
        self.images = ImagesCalls(transport)
        self.projects = ProjectsCalls(transport)
        self.second_factors = SecondFactorsCalls(transport)
        self.sessions = SessionsCalls(transport)
        self.shares = SharesCalls(transport)
        self.usage = UsageCalls(transport)
        self.variants = VariantsCalls(transport)
