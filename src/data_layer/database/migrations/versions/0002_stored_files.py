"""The objects of the storage, and the counted references to them."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

STORED_FILES = """
CREATE TABLE stored_files (
    id uuid NOT NULL,
    parent_id uuid,
    owner_id uuid,
    backend text NOT NULL,
    key text COLLATE "C" NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    content_type varchar(255) NOT NULL,
    encoding text,
    size bigint NOT NULL,
    original_size bigint NOT NULL,
    sha256 text,
    width integer,
    height integer,
    frame_count integer,
    image_format text,
    dominant_color text,
    reference_count integer NOT NULL DEFAULT 0,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_stored_files PRIMARY KEY (id),
    CONSTRAINT uq_stored_files_key UNIQUE (key),
    CONSTRAINT fk_stored_files_parent_id FOREIGN KEY (parent_id) REFERENCES stored_files (id) ON DELETE CASCADE,
    CONSTRAINT fk_stored_files_owner_id FOREIGN KEY (owner_id) REFERENCES users (id),
    CONSTRAINT ck_stored_files_sha256 CHECK (state <> 'stored' OR sha256 IS NOT NULL),
    CONSTRAINT ck_stored_files_reference_count CHECK (reference_count >= 0),
    CONSTRAINT ck_stored_files_backend CHECK (backend IN ('local', 'azure', 's3')),
    CONSTRAINT ck_stored_files_state CHECK (state IN ('pending', 'stored', 'deleted')),
    CONSTRAINT ck_stored_files_encoding CHECK (encoding IN ('gzip'))
)
"""

FILE_REFERENCES = """
CREATE TABLE file_references (
    id uuid NOT NULL,
    file_id uuid NOT NULL,
    owner_id uuid,
    file_name varchar(255),
    project_id uuid,
    code_id uuid,
    image_id uuid,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_file_references PRIMARY KEY (id),
    CONSTRAINT fk_file_references_file_id FOREIGN KEY (file_id) REFERENCES stored_files (id),
    CONSTRAINT fk_file_references_owner_id FOREIGN KEY (owner_id) REFERENCES users (id),
    CONSTRAINT fk_file_references_project_id FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_file_references_code_id FOREIGN KEY (code_id) REFERENCES generated_codes (id) ON DELETE CASCADE,
    CONSTRAINT fk_file_references_image_id FOREIGN KEY (image_id) REFERENCES generated_images (id) ON DELETE CASCADE,
    CONSTRAINT ck_file_references_attachment CHECK (num_nonnulls(project_id, code_id, image_id) <= 1)
)
"""

INDEXES = (
    """
CREATE UNIQUE INDEX uq_stored_files_owner_id_sha256_content_type ON stored_files (owner_id, sha256, content_type)
NULLS NOT DISTINCT WHERE state = 'stored' AND parent_id IS NULL
""",
    "CREATE INDEX ix_stored_files_parent_id ON stored_files (parent_id) WHERE parent_id IS NOT NULL",
    """
CREATE INDEX ix_stored_files_unreferenced ON stored_files (updated_at)
WHERE state = 'stored' AND parent_id IS NULL AND reference_count = 0
""",
    "CREATE INDEX ix_stored_files_unfinished ON stored_files (state, updated_at) WHERE state <> 'stored'",
    "CREATE INDEX ix_file_references_file_id ON file_references (file_id)",
    "CREATE INDEX ix_file_references_owner_id_id ON file_references (owner_id, id)",
    "CREATE INDEX ix_file_references_project_id ON file_references (project_id) WHERE project_id IS NOT NULL",
    "CREATE INDEX ix_file_references_code_id ON file_references (code_id) WHERE code_id IS NOT NULL",
    "CREATE INDEX ix_file_references_image_id ON file_references (image_id) WHERE image_id IS NOT NULL",
    "CREATE INDEX ix_file_references_expires_at ON file_references (expires_at) WHERE expires_at IS NOT NULL",
)

COUNT_FILE_REFERENCES = """
CREATE FUNCTION count_file_references() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE stored_files SET reference_count = reference_count - 1, updated_at = now() WHERE id = OLD.file_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE stored_files SET reference_count = reference_count + 1, updated_at = now()
        WHERE id = NEW.file_id AND state <> 'deleted';
        IF NOT FOUND THEN
            RAISE foreign_key_violation USING
                MESSAGE = 'file_id names no file, or one that is being deleted',
                CONSTRAINT = 'fk_file_references_file_id', TABLE = 'file_references', COLUMN = 'file_id';
        END IF;
    END IF;
    RETURN NULL;
END
$body$
"""

TRIGGER = """
CREATE TRIGGER count_references AFTER INSERT OR DELETE OR UPDATE OF file_id ON file_references
FOR EACH ROW EXECUTE FUNCTION count_file_references()
"""


def upgrade() -> None:
    """Create both tables, which nothing uses yet."""
    for statement in (STORED_FILES, FILE_REFERENCES, *INDEXES, COUNT_FILE_REFERENCES, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Drop both. The files stay in the storage, and nobody knows of them any more."""
    op.execute("DROP TABLE file_references")
    op.execute("DROP TABLE stored_files")
    op.execute("DROP FUNCTION count_file_references()")
