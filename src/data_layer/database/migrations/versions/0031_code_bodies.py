"""Codes can leave their row: a table of compressed texts, and the columns that refer to it.

Nothing is moved here. Processes of the version before read and write ``code`` as they did; maintenance packs codes from
``codes_packed_from`` on, a day from now where there are codes already, when such processes have gone.
"""

from __future__ import annotations

import zstandard
from alembic import op
from sqlalchemy import Connection, text

revision = "0031"
down_revision = "0030"

TABLE = """
CREATE TABLE code_bodies (
    project_id uuid NOT NULL,
    sha256 bytea NOT NULL,
    size integer NOT NULL,
    encoding text NOT NULL,
    base bytea,
    bytes bytea NOT NULL,
    CONSTRAINT pk_code_bodies PRIMARY KEY (project_id, sha256),
    CONSTRAINT fk_code_bodies_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_code_bodies_base FOREIGN KEY (project_id, base) REFERENCES code_bodies (project_id, sha256),
    CONSTRAINT ck_code_bodies_encoding CHECK (encoding IN ('zstd')),
    CONSTRAINT ck_code_bodies_body CHECK (octet_length(sha256) = 32 AND size > 0 AND base <> sha256)
)
"""
BASES = "CREATE INDEX ix_code_bodies_project_id_base ON code_bodies (project_id, base) WHERE base IS NOT NULL"
COLUMNS = """
ALTER TABLE generated_codes
    ADD COLUMN body bytea,
    ADD COLUMN body_size integer,
    ADD CONSTRAINT ck_generated_codes_body
        CHECK (num_nonnulls(code, body) = 1 AND (body IS NULL) = (body_size IS NULL)) NOT VALID,
    ADD CONSTRAINT fk_generated_codes_body
        FOREIGN KEY (project_id, body) REFERENCES code_bodies (project_id, sha256) NOT VALID
"""
MAY_BE_PACKED = "-- squawk-ignore ban-drop-not-null\nALTER TABLE generated_codes ALTER COLUMN code DROP NOT NULL"
RELEASE = """
CREATE FUNCTION release_code_body() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.body := NULL;
    NEW.body_size := NULL;
    RETURN NEW;
END
$body$
"""
TRIGGER = """
CREATE TRIGGER release_body BEFORE UPDATE OF code ON generated_codes FOR EACH ROW
WHEN (NEW.code IS NOT NULL AND OLD.body IS NOT NULL) EXECUTE FUNCTION release_code_body()
"""
SEARCH = """
CREATE OR REPLACE TRIGGER note_search_update AFTER UPDATE OF status, code ON generated_codes FOR EACH ROW
WHEN ((NEW.status = 'completed') <> (OLD.status = 'completed') OR (NEW.status = 'completed' AND {changed}))
EXECUTE FUNCTION note_search_change()
"""
# A code that is packed has no text in its row any more; the next one that is assigned is a change.
CHANGED = "NEW.code IS NOT NULL AND NEW.code IS DISTINCT FROM OLD.code"
CHANGED_BEFORE = "NEW.code <> '' AND NEW.code <> OLD.code"
START = """
ALTER TABLE data_layer_schema_version ADD COLUMN codes_packed_from timestamptz NOT NULL DEFAULT now()
"""
LATER = """
UPDATE data_layer_schema_version SET codes_packed_from = now() + interval '1 day'
WHERE EXISTS (SELECT FROM generated_codes)
"""
PACKED = """
SELECT codes.id, own.bytes, base.bytes FROM generated_codes AS codes
JOIN code_bodies AS own ON own.project_id = codes.project_id AND own.sha256 = codes.body
LEFT JOIN code_bodies AS base ON base.project_id = own.project_id AND base.sha256 = own.base
LIMIT 100
"""
# By hand nothing can be decompressed: the rule of the table refuses to go on while codes are packed.
DROP = (
    SEARCH.format(changed=CHANGED_BEFORE),
    "DROP TRIGGER release_body ON generated_codes",
    "DROP FUNCTION release_code_body()",
    "-- squawk-ignore adding-not-nullable-field\nALTER TABLE generated_codes ALTER COLUMN code SET NOT NULL",
    "ALTER TABLE generated_codes DROP CONSTRAINT fk_generated_codes_body, DROP COLUMN body, DROP COLUMN body_size",
    "DROP TABLE code_bodies",
    "ALTER TABLE data_layer_schema_version DROP COLUMN codes_packed_from",
)


def upgrade() -> None:
    """Add the table and the columns."""
    for statement in (TABLE, BASES, COLUMNS, MAY_BE_PACKED, RELEASE, TRIGGER, SEARCH.format(changed=CHANGED)):
        op.execute(statement)
    for statement in (START, LATER):
        op.execute(statement)


def downgrade() -> None:
    """Bring all codes back into their rows."""
    if not op.get_context().as_sql:
        _unpack(op.get_bind())
    for statement in DROP:
        op.execute(statement)


def _unpack(connection: Connection) -> None:
    connection.execute(text("LOCK TABLE generated_codes IN SHARE ROW EXCLUSIVE MODE"))
    while rows := connection.execute(text(PACKED)).all():
        for code_id, data, base in rows:
            code = _decompressed(data, None if base is None else _decompressed(base, None))
            connection.execute(
                text("UPDATE generated_codes SET code = :code WHERE id = :id"), {"code": code.decode(), "id": code_id}
            )


def _decompressed(data: bytes, base: bytes | None) -> bytes:
    dictionary = None if base is None else zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(bytes(data))
