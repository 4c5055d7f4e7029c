"""What a rollback takes back in the entities, so that the transaction can be repeated with them.

========================  ==========================================================================================
in the transaction        after a rollback
========================  ==========================================================================================
inserted                  new again, without what the database had filled in
changed by assignment     changed still: another transaction to which the entity is added writes it
filled in by a statement  as it was before, because the database has it so: ``updated_at``, counters
removed                   stored again
========================  ==========================================================================================

SQLAlchemy counts what it has flushed as stored whatever becomes of the transaction, and empties all entities when a
statement of it fails. A rollback to a savepoint of its session puts everything back as it was at the savepoint, because
the entities stay in the transaction and would be written with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, make_transient, make_transient_to_detached
from sqlalchemy.orm.attributes import flag_modified, instance_state, set_committed_value

from data_layer.database.rows import RowPlan
from data_layer.entities import Entity

Values = dict[str, Any]

_Savepoint = tuple[int, dict[Entity, set[str]], set[Entity], set[Entity], dict[Entity, Values]]


class WatchedSession(Session):
    """A session that reports to the ``EntityRollback`` in its ``info`` what it writes."""


class EntityRollback:
    """Remembers how the entities of one transaction were.

    Args:
        forget: takes entities out of the transaction that a savepoint has made new again.
    """

    def __init__(self, forget: Callable[[Sequence[Entity]], None]) -> None:
        self._forget = forget
        self._inserted: list[tuple[RowPlan[Any], Entity, Values]] = []
        self._before: dict[Entity, Values] = {}
        self._changed: dict[Entity, set[str]] = {}
        self._flushed: dict[Entity, Values] = {}
        self._taken_over: dict[Entity, Values] = {}
        self._added: set[Entity] = set()
        self._removed: set[Entity] = set()
        self._savepoints: dict[SessionTransaction, _Savepoint] = {}

    def inserted(self, plan: RowPlan[Any], entity: Entity, given: Values) -> None:
        """Remember a row that was inserted, and what the plan needs to take that back."""
        self._inserted.append((plan, entity, given))

    def take_over(self, entity: Entity, values: Values) -> None:
        """Show in an entity what a statement has stored."""
        before = self._taken_over.setdefault(entity, {})
        for name, value in values.items():
            if name in entity.__dict__:
                before.setdefault(name, entity.__dict__[name])
            set_committed_value(entity, name, value)

    def before_flush(self, session: Session) -> None:
        """Remember what is about to be written."""
        self._flushed.update(_values_in(session))
        for entity in session.dirty:
            changed = instance_state(entity).committed_state
            unchanged = {name: value for name, value in entity.__dict__.items() if name not in changed}
            self._before.setdefault(entity, unchanged)
            self._changed.setdefault(entity, set()).update(changed)
        self._added.update(session.new)
        self._removed.update(session.deleted)

    def after_failure(self) -> None:
        """Fill the entities again that SQLAlchemy has emptied."""
        for entity, values in self._flushed.items():
            if instance_state(entity).key is not None:
                _restore(entity, {name: value for name, value in values.items() if name not in entity.__dict__})

    def savepoint(self, savepoint: SessionTransaction) -> None:
        """Remember how everything is."""
        changed = {entity: set(names) for entity, names in self._changed.items()}
        values = dict(_values_in(savepoint.session))
        self._savepoints[savepoint] = len(self._inserted), changed, set(self._added), set(self._removed), values

    def rolled_back_to(self, savepoint: SessionTransaction) -> None:
        """Put everything back as it was at a savepoint."""
        count, changed, added, removed, values = self._savepoints[savepoint]
        self._changed = {entity: set(names) for entity, names in changed.items()}
        self._added, self._removed = set(added), set(removed)
        for entity, stored in values.items():
            _restore(entity, stored)
        inserted = self._inserted[count:]
        del self._inserted[count:]
        self._forget([entity for _, entity, _ in inserted])
        for plan, entity, given in inserted:
            plan.mark_removed(entity, given)

    def take_back(self) -> None:
        """Undo in the entities what the transaction did; its session is closed."""
        for entity in self._removed:
            make_transient(entity)
            make_transient_to_detached(entity)
        for entity, values in (*self._before.items(), *self._taken_over.items()):
            changed = self._changed.get(entity, set()) | instance_state(entity).committed_state.keys()
            _restore(entity, {name: value for name, value in values.items() if name not in changed})
        for entity, names in self._changed.items():
            for name in names & entity.__dict__.keys():
                flag_modified(entity, name)
        for entity in self._added:
            make_transient(entity)
        for plan, entity, given in self._inserted:
            plan.mark_removed(entity, given)


def _values_in(session: Session) -> Iterable[tuple[Entity, Values]]:
    entities = ((state.obj(), dict(state.dict)) for state in session.identity_map.all_states())
    return ((entity, values) for entity, values in entities if entity is not None)


def _restore(entity: Entity, values: Values) -> None:
    own = instance_state(entity).manager
    for name, value in values.items():
        if name in own and entity.__dict__.get(name, own) is not value:
            set_committed_value(entity, name, value)


@event.listens_for(WatchedSession, "before_flush")
def _before_flush(session: Session, *_: object) -> None:
    session.info[EntityRollback].before_flush(session)


@event.listens_for(WatchedSession, "after_transaction_create")
def _after_create(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested:
        session.info[EntityRollback].savepoint(transaction)


@event.listens_for(WatchedSession, "after_soft_rollback")
def _after_rollback(session: Session, transaction: SessionTransaction) -> None:
    rollback: EntityRollback = session.info[EntityRollback]
    savepoint = transaction if transaction.nested else session.get_nested_transaction()
    if savepoint is not None:
        rollback.rolled_back_to(savepoint)
    else:
        rollback.after_failure()
