"""Copies that were made before 0044 have images of their own.

A clone learns the addresses that its images had in the project that it is a copy of, and a fork refers to the images
that its page names. Each batch is a transaction of its own, and what was done is not done again when the migration
goes on. The page of a fork that was packed meanwhile is not read: its images live as long as the original.
"""

from __future__ import annotations

from alembic import op

revision = "0048"
down_revision = "0047"

FIRST = "00000000-0000-0000-0000-000000000000"

# A project that has a code of another one, and the same image at the same address later, is a copy of it.
CLONES = """
WITH batch AS MATERIALIZED (
    SELECT id FROM file_references WHERE id > CAST('{after}' AS uuid) AND address_hash IS NOT NULL ORDER BY id LIMIT 200
), found AS (
    SELECT own.id, jsonb_agg(DISTINCT name) AS names
    FROM batch JOIN file_references AS own ON own.id = batch.id
    JOIN file_references AS original ON original.address_hash = own.address_hash AND original.file_id = own.file_id
        AND original.owner_id = own.owner_id AND original.project_id <> own.project_id AND original.id < own.id
    CROSS JOIN LATERAL jsonb_array_elements_text(original.earlier_names || to_jsonb(original.asset_name)) AS name
    WHERE NOT jsonb_exists(own.earlier_names, name) AND EXISTS (
        SELECT FROM generated_codes AS code JOIN generated_codes AS same ON same.trimmed_hash = code.trimmed_hash
        WHERE code.project_id = own.project_id AND same.project_id = original.project_id
    )
    GROUP BY own.id
), named AS (
    UPDATE file_references SET earlier_names = earlier_names || names, updated_at = now()
    FROM found WHERE file_references.id = found.id
)
SELECT max(CAST(id AS text)) FROM batch
"""
# The id begins with the time, as all do; permanent addresses are as long and as random as others.
FORKS = """
WITH batch AS MATERIALIZED (
    SELECT id, project_id FROM generations
    WHERE id > CAST('{after}' AS uuid) AND inputs @> CAST('{{"copied_from": "share"}}' AS jsonb) ORDER BY id LIMIT 200
), wanted AS (
    SELECT DISTINCT batch.project_id, match[1] AS name FROM batch JOIN generated_codes ON generation_id = batch.id,
        regexp_matches(code, '/a/([A-Za-z0-9_-]{{22}}[.][a-z0-9]{{1,8}})', 'g') AS match
), found AS (
    SELECT wanted.*, user_id, file_id, uuid_send(gen_random_uuid()) AS random,
        int8send(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)) AS moment
    FROM wanted JOIN projects ON projects.id = project_id
    JOIN file_references AS original ON original.asset_name = wanted.name AND original.project_id <> projects.id
    JOIN stored_files ON stored_files.id = file_id AND state = 'stored'
    WHERE NOT EXISTS (
        SELECT FROM file_references AS own
        WHERE own.project_id = projects.id AND (
            own.asset_name = wanted.name OR jsonb_exists(own.earlier_names, wanted.name)
        )
    )
), held AS (
    INSERT INTO file_references (id, file_id, owner_id, project_id, address_hash, asset_name)
    SELECT
        CAST(encode(
            set_byte(substring(moment FROM 3) || substring(random FROM 7), 6, 112 + (get_byte(random, 6) & 15)), 'hex'
        ) AS uuid),
        file_id, user_id, project_id, encode(sha256(convert_to('/a/' || name, 'UTF8')), 'hex'),
        translate(encode(uuid_send(gen_random_uuid()), 'base64'), '+/=', '-_') || substring(name FROM '[.][a-z0-9]+$')
    FROM found
    ON CONFLICT (address_hash, project_id) WHERE address_hash IS NOT NULL DO NOTHING
)
SELECT max(CAST(id AS text)) FROM batch
"""
# The same for who runs the SQL by hand.
BY_HAND = """
DO $body$
DECLARE
    last text := '00000000-0000-0000-0000-000000000000';
BEGIN
    WHILE last IS NOT NULL LOOP
        EXECUTE replace($batch${batch}$batch$, '{{after}}', last) INTO last;
        COMMIT;
    END LOOP;
END
$body$
"""


def upgrade() -> None:
    """Give the images their names and references, in batches."""
    context = op.get_context()
    with context.autocommit_block():
        for batch in (CLONES, FORKS):
            if context.as_sql:
                op.execute(BY_HAND.format(batch=batch.format(after="{after}")))
                continue
            after: str | None = FIRST
            while after is not None:
                statement = batch.format(after=after)
                after = op.get_bind().exec_driver_sql(statement).scalar()


def downgrade() -> None:
    """Leave what was found: the version before knows both."""
