"""``data.usage``: the ledger of what was used of paid models, and monthly budgets."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from data_layer.entities import AuditLog, Budget, UsageEntry
from data_layer.entities.changes import changes_of
from data_layer.entities.enums import AuditAction
from data_layer.entities.validation import check_time
from data_layer.errors import (
    BudgetExceededError,
    ChangedMeanwhileError,
    DuplicateError,
    InvalidValueError,
    NotFoundError,
)
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.actors import Actor
from data_layer.schemas.usage import BudgetView, NewUsage, Reservation, UsageEntryView, UsageGroup, UsageSum
from data_layer.services.arguments import checks_arguments
from data_layer.services.permissions import Permission, as_of_now, require

MOST_SUMS = 10_000
"""The most groups of one answer."""

RESERVED_FOR = timedelta(minutes=10)
LONGEST_RESERVATION = timedelta(days=1)

_SMALLEST_AMOUNT = Decimal("0.00000001")
_WORTH_A_START = Decimal("0.01")
_CURRENCY = re.compile("[A-Z]{3}")
_CLOCK_SKEW = timedelta(hours=1)


@checks_arguments
class UsageService:
    """What was spent, by whom and for what; and how much of a month's budget is left.

    Entries are recorded once and never changed, so they need no further record in the audit trail. Work that failed
    or was cancelled was paid for as well: record it with its outcome.

    ``user_id`` is whose usage is meant, by default the actor's own. Users record and see their own; administrators see
    everybody's and set budgets.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def record(self, actor: Actor, usage: NewUsage, *, user_id: UUID | None = None) -> UsageEntryView:
        """Add an entry to the ledger. Harmless to repeat: the key counts once.

        A budget does not refuse it, because the money is spent.

        Raises:
            DuplicateError: the key belongs to an entry with other figures, which stays as it is.
            NotFoundError: the person has no such project, or the project no such variant.
            InvalidValueError: a value is out of range; ``field`` says which.
            PermissionDeniedError: the actor may not record usage of that person.
        """
        user_id = _person(actor, user_id, Permission.RECORD_USAGE)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.RECORD_USAGE, owner=user_id)
            return await record_usage(tx, user_id, usage)

    async def reserve(
        self,
        actor: Actor,
        amount: Decimal,
        *,
        currency: str = "USD",
        user_id: UUID | None = None,
        expires_in: timedelta = RESERVED_FOR,
    ) -> Reservation:
        """Set aside what work may cost, before it begins; ``settle`` it afterwards.

        Reservations of one budget are made one after the other, so together they never exceed it. One that is neither
        settled, released nor extended, because its process died, ends by itself. A person without a budget in this
        currency may spend any amount.

        Args:
            actor: who works.
            amount: the most that the work may cost.
            currency: of the amount, and of the budget.
            user_id: see the class.
            expires_in: from a second to a day; longer than the work takes, or than the next ``extend``.

        Raises:
            BudgetExceededError: the budget of this month has less left.
            InvalidValueError: the amount is not above 0, or ``expires_in`` out of range.
        """
        user_id = _person(actor, user_id, Permission.RECORD_USAGE)
        check_currency(currency)
        wanted = Reservation(
            id=uuid7(),
            user_id=user_id,
            amount=check_amount(amount, "amount"),
            currency=currency,
            expires_at=datetime.now(UTC),
            is_limited=True,
        )
        return await self._reserve(actor, wanted, expires_in)

    async def extend(
        self,
        actor: Actor,
        reservation: Reservation,
        *,
        amount: Decimal | None = None,
        expires_in: timedelta = RESERVED_FOR,
    ) -> Reservation:
        """Keep a reservation for longer, and with another amount if one is given; what ``reserve`` says, holds.

        The amount is what the rest of the work may cost. One that has expired is made once more, if there is room.

        Raises:
            BudgetExceededError: the budget has less left; the reservation stays as it was.
        """
        require(actor, Permission.RECORD_USAGE, owner=reservation.user_id)
        wanted = (
            reservation if amount is None else reservation.model_copy(update={"amount": check_amount(amount, "amount")})
        )
        return await self._reserve(actor, wanted, expires_in)

    async def set_aside(
        self,
        actor: Actor,
        reservation_id: UUID,
        most: Decimal,
        *,
        currency: str = "USD",
        user_id: UUID | None = None,
        expires_in: timedelta = RESERVED_FOR,
    ) -> bool:
        """Set aside what is left of a budget, ``most`` at most; whether that is at least a hundredth of the currency.

        For work whose caller knows only whether a person may begin. The same id again changes what was set aside with
        it before, and never sets aside more. What work has cost is taken from it by ``data.generations.receive``.

        Args:
            actor: who works.
            reservation_id: chosen by the caller, such as one for all that a person does at once.
            most: what the work may cost.
            currency: of the amount, and of the budget.
            user_id: see the class.
            expires_in: from a second to a day.

        Raises:
            DuplicateError: the id belongs to a reservation of another budget.
            InvalidValueError: the amount is not above 0, or ``expires_in`` out of range.
        """
        user_id = _person(actor, user_id, Permission.RECORD_USAGE)
        check_currency(currency)
        wanted = Reservation(
            id=reservation_id,
            user_id=user_id,
            amount=check_amount(most, "most"),
            currency=currency,
            expires_at=datetime.now(UTC),
            is_limited=True,
        )
        _check_expiry(expires_in)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.RECORD_USAGE, owner=user_id)
            while True:  # What is recorded meanwhile leaves less each time.
                try:
                    await reserve_amount(tx, wanted, expires_in)
                except BudgetExceededError as error:
                    if error.remaining < _WORTH_A_START:
                        return False
                    wanted = wanted.model_copy(update={"amount": error.remaining})
                else:
                    return True

    async def settle(
        self, actor: Actor, reservation: Reservation, usage: NewUsage, *, is_final: bool = True
    ) -> UsageEntryView:
        """Record what work has cost, and give back what it has not; in one transaction, and harmless to repeat.

        Args:
            actor: who works.
            reservation: what was set aside; it may have expired, because the money is spent.
            usage: what to record, also more than was set aside.
            is_final: the work is done. If not, the reservation keeps what is left of it.

        Raises:
            InvalidValueError: the usage is in another currency than the reservation.
            DuplicateError, NotFoundError, InvalidValueError: see ``record``.
        """
        require(actor, Permission.RECORD_USAGE, owner=reservation.user_id)
        if usage.currency != reservation.currency:
            raise InvalidValueError(
                f"the usage is in {usage.currency}, and the reservation in {reservation.currency}", field="currency"
            )
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.RECORD_USAGE, owner=reservation.user_id)
            entry, is_new = await _record(tx, reservation.user_id, usage)
            if is_final:
                await tx.budgets.release(reservation.id, reservation.user_id)
            elif is_new:
                tx.budgets.reduce(reservation.id, reservation.user_id, entry.cost)
            return entry

    async def release(self, actor: Actor, reservation: Reservation) -> bool:
        """Give back what was set aside for work that cost nothing; whether it was still set aside."""
        require(actor, Permission.RECORD_USAGE, owner=reservation.user_id)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.RECORD_USAGE, owner=reservation.user_id)
            return await tx.budgets.release(reservation.id, reservation.user_id)

    async def entries(
        self,
        actor: Actor,
        *,
        user_id: UUID | None = None,
        project_id: UUID | None = None,
        limit: int = 100,
        before: UUID | None = None,
    ) -> Sequence[UsageEntryView]:
        """Return a page of a person's entries, those recorded last first.

        Args:
            actor: the caller.
            user_id: see the class.
            project_id: only those of this project.
            limit: the length of the page, 1000 at most.
            before: the id of the last entry of the page before.

        Raises:
            PermissionDeniedError: the actor may not see them.
            InvalidValueError: a limit out of range.
        """
        user_id = _person(actor, user_id, Permission.READ_USAGE)
        filters = {"user_id": user_id} | ({} if project_id is None else {"project_id": project_id})
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.READ_USAGE, owner=user_id)
            found = await tx.usage.list(limit=limit, after=before, order_by="-id", **filters)
        return [UsageEntryView.model_validate(entry) for entry in found]

    async def sums(
        self,
        actor: Actor,
        by: Collection[UsageGroup | str] = (),
        *,
        user_id: UUID | None = None,
        everyone: bool = False,
        project_id: UUID | None = None,
        first_day: date | None = None,
        last_day: date | None = None,
        top: int | None = None,
    ) -> Sequence[UsageSum]:
        """Add up usage, in one query over the sums of each day, which are exact at any moment.

        Args:
            actor: the caller.
            by: what to divide the sums by; by nothing they are one for each currency.
            user_id: see the class.
            everyone: the usage of everybody instead, for administrators.
            project_id: only that of this project.
            first_day: from the beginning of this day on, in UTC.
            last_day: to the end of this day.
            top: only so many groups, those that cost most, in this order; 1 to 10,000. Without it they come in the
                order of what they are divided by.

        Raises:
            PermissionDeniedError: the actor may not see them.
            InvalidValueError: more than 10,000 groups; choose fewer days or fewer kinds, or ``top``.
        """
        if top is not None and not 1 <= top <= MOST_SUMS:
            raise InvalidValueError(f"top must be a number from 1 to {MOST_SUMS}", field="top")
        wanted = None if everyone else _person(actor, user_id, Permission.READ_USAGE)
        require(actor, Permission.READ_USAGE, owner=wanted)
        groups = tuple(dict.fromkeys(_group(group) for group in by))
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.READ_USAGE, owner=wanted)
            found = await tx.usage.sums(
                groups,
                user_id=wanted,
                project_id=project_id,
                first_day=first_day,
                last_day=last_day,
                limit=top or MOST_SUMS + 1,
                by_cost=top is not None,
            )
        if len(found) > MOST_SUMS:
            raise InvalidValueError(
                f"these are more than {MOST_SUMS} sums; choose fewer days, or fewer groups", field="by"
            )
        return found

    async def budget(self, actor: Actor, *, user_id: UUID | None = None, currency: str = "USD") -> BudgetView | None:
        """Return a person's budget of this month; ``None`` if nothing limits it.

        Raises:
            PermissionDeniedError: the actor may not see it.
        """
        user_id = _person(actor, user_id, Permission.READ_USAGE)
        check_currency(currency)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.READ_USAGE, owner=user_id)
            return await _view(tx, user_id, currency)

    async def set_budget(
        self,
        actor: Actor,
        user_id: UUID,
        monthly_limit: Decimal | None,
        *,
        currency: str = "USD",
        expected: datetime | None = None,
        is_new: bool = False,
    ) -> BudgetView | None:
        """Set what a person may spend in a month of UTC, from now on; ``None`` takes the limit away.

        A limit below what is spent already refuses every further reservation, and ends none.

        Args:
            actor: an administrator.
            user_id: whose budget.
            monthly_limit: the most that may be spent.
            currency: in which currency.
            expected: the ``updated_at`` that the caller has seen; without it the last change wins.
            is_new: whether the caller has seen that there is none.

        Raises:
            ChangedMeanwhileError: the budget is no longer the one that the caller has seen.
            PermissionDeniedError: the actor is not an administrator.
            NotFoundError: the person does not exist.
            InvalidValueError: a value is out of range; ``field`` says which.
        """
        require(actor, Permission.SET_BUDGET, owner=user_id)
        check_currency(currency)
        limit = None if monthly_limit is None else check_amount(monthly_limit, "monthly_limit", may_be_zero=True)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.SET_BUDGET, owner=user_id)
            user = await tx.users.get(user_id, lock=True)  # Two that set it at the same moment follow each other.
            if user.is_erased:
                raise NotFoundError(f"the account {user_id} was deleted")
            budget = await tx.budgets.find_one(user_id=user_id, currency=currency)
            if limit is not None or budget is not None:  # Harmless to repeat.
                _require_seen(budget, expected, is_new=is_new)
            await _set_budget(tx, actor, budget, _Limit(user_id, currency, limit))
            return await _view(tx, user_id, currency)

    async def _reserve(self, actor: Actor, wanted: Reservation, expires_in: timedelta) -> Reservation:
        _check_expiry(expires_in)
        async with self._transactions() as tx:
            require(await as_of_now(tx, actor), Permission.RECORD_USAGE, owner=wanted.user_id)
            return await reserve_amount(tx, wanted, expires_in)


def _check_expiry(expires_in: timedelta) -> None:
    if not timedelta(seconds=1) <= expires_in <= LONGEST_RESERVATION:
        raise InvalidValueError("expires_in must be from one second to one day", field="expires_in")


async def reserve_amount(tx: UnitOfWork, wanted: Reservation, expires_in: timedelta) -> Reservation:
    """Set an amount aside within a transaction; see `UsageService.reserve`."""
    state = await tx.budgets.reserve(
        wanted.id, wanted.user_id, wanted.currency, wanted.amount, expires_in.total_seconds()
    )
    if state is None:
        return wanted.model_copy(update={"expires_at": datetime.now(UTC) + expires_in, "is_limited": False})
    if state.expires_at is None and state.remaining >= wanted.amount:
        raise DuplicateError("the id belongs to a reservation of another budget; choose another one", field="id")
    if state.expires_at is None:
        raise BudgetExceededError(
            f"the budget of this month has {state.remaining:f} {wanted.currency} left, and {wanted.amount:f} are "
            "needed; wait for the next month, or ask an administrator",
            remaining=state.remaining,
        )
    return wanted.model_copy(update={"expires_at": state.expires_at, "is_limited": True})


async def record_usage(tx: UnitOfWork, user_id: UUID, usage: NewUsage) -> UsageEntryView:
    """Record usage within a transaction, such as the one that ends a variant; see `UsageService.record`."""
    return (await _record(tx, user_id, usage))[0]


async def _record(tx: UnitOfWork, user_id: UUID, usage: NewUsage) -> tuple[UsageEntryView, bool]:
    if not usage.key:
        raise InvalidValueError("key is empty; without it a repeated call would count twice", field="key")
    if usage.at is not None and check_time("at", usage.at) > datetime.now(UTC) + _CLOCK_SKEW:
        raise InvalidValueError("at lies in the future; leave it out, or set the clock right", field="at")
    await _require_owned(tx, user_id, usage)
    values = usage.model_dump() | {"cost": check_amount(usage.cost, "cost", may_be_zero=True)}
    check_currency(usage.currency)
    entry, is_new = await tx.usage.add_once(UsageEntry(user_id=user_id, **values))
    stored = UsageEntryView.model_validate(entry)
    if any(getattr(stored, name) != value for name, value in values.items() if value is not None or name != "at"):
        raise DuplicateError(
            f"the key {usage.key!r} belongs to an entry with other figures; use another key for other work", field="key"
        )
    return stored, is_new


async def _require_owned(tx: UnitOfWork, user_id: UUID, usage: NewUsage) -> None:
    if usage.project_id is None:
        if usage.code_id is not None:
            raise InvalidValueError("project_id is missing: a variant belongs to a project", field="project_id")
        return
    project = await tx.projects.find_one(id=usage.project_id)
    # One that was deleted softly meanwhile is still charged; somebody else's is as unknown as a missing one.
    if project is None or project.user_id != user_id:
        raise NotFoundError(f"this person has no project with the id {usage.project_id}")
    if usage.code_id is not None and not await tx.codes.count(id=usage.code_id, project_id=usage.project_id):
        raise NotFoundError(f"the project has no variant with the id {usage.code_id}")


class _Limit(NamedTuple):
    """What a person may spend in a month; None: any amount."""

    user_id: UUID
    currency: str
    amount: Decimal | None


async def _set_budget(tx: UnitOfWork, actor: Actor, budget: Budget | None, wanted: _Limit) -> None:
    user_id, currency, limit = wanted
    entry = AuditLog.admin_action(
        AuditAction.ADMIN_BUDGET_UPDATE,
        actor.user_id,
        "Set a monthly budget" if limit is not None else "Removed a monthly budget",
        resource_type="user",
        resource_id=str(user_id),
    )
    if limit is None:
        if budget is None:
            return
        entry.old_values = {"currency": currency, "monthly_limit": str(budget.monthly_limit)}
        await tx.budgets.delete(budget)
    else:
        if budget is None:
            tx.add(budget := Budget(user_id=user_id, currency=currency, monthly_limit=limit))
        elif budget.monthly_limit == limit:
            return
        budget.monthly_limit = limit
        entry.old_values, entry.new_values = changes_of(budget, without=("id", "user_id", "updated_at"))
    tx.add(entry)


def _require_seen(stored: Budget | None, expected: datetime | None, *, is_new: bool) -> None:
    if stored is None and expected is not None:
        raise ChangedMeanwhileError("the budget was removed; read it again")
    if stored is not None and (is_new or expected not in {None, stored.updated_at}):
        raise ChangedMeanwhileError(
            f"the budget was set at {stored.updated_at:%Y-%m-%d %H:%M:%S}; read it again",
            current={"monthly_limit": str(stored.monthly_limit), "updated_at": stored.updated_at},
        )


async def _view(tx: UnitOfWork, user_id: UUID, currency: str) -> BudgetView | None:
    state = await tx.budgets.state(user_id, currency)
    if state is None:
        return None
    return BudgetView(
        user_id=user_id,
        currency=currency,
        monthly_limit=state.monthly_limit,
        spent=state.spent,
        reserved=state.reserved,
        updated_at=state.updated_at,
    )


def _person(actor: Actor, user_id: UUID | None, permission: Permission) -> UUID:
    """Whose usage is meant; after a first check, which needs no database."""
    user_id = user_id or actor.user_id
    require(actor, permission, owner=user_id)
    if user_id is None:
        raise InvalidValueError("user_id is missing: the system uses nothing itself", field="user_id")
    return user_id


def _group(group: str) -> UsageGroup:
    try:
        return UsageGroup(group)
    except ValueError:
        raise InvalidValueError(f"by must be of: {', '.join(UsageGroup)}", field="by") from None


def check_currency(currency: str) -> None:
    """Refuse another spelling of a currency, which would have sums and a budget of its own."""
    if not _CURRENCY.fullmatch(currency):
        raise InvalidValueError("currency must be a code of ISO 4217, such as USD", field="currency")


def check_amount(amount: Decimal, name: str, *, may_be_zero: bool = False) -> Decimal:
    """An amount with eight decimals, as the ledger keeps it; floats are refused, because they are not exact."""
    rounded = None
    if type(amount) in {Decimal, int}:
        try:
            rounded = Decimal(amount).quantize(_SMALLEST_AMOUNT, ROUND_HALF_EVEN)
        except InvalidOperation:  # Infinite, or with too many digits.
            rounded = None
    if rounded is None or not rounded.is_finite() or rounded < 0 or (rounded == 0 and not may_be_zero):
        lowest = "of 0 or more" if may_be_zero else "above 0"
        raise InvalidValueError(f"{name} must be a Decimal {lowest}", field=name)
    return rounded
