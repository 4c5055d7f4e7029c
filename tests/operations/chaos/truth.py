"""What is there in the end: read with plain SQL where the data layer could be wrong about itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from data_layer import DataLayer, Settings
from data_layer.errors import DataLayerError
from data_layer.schemas.actors import SYSTEM
from data_layer.services.files.owners import ANY_OWNER
from tests.operations.chaos.load import Rows, page_of
from tests.operations.chaos.servers import Servers
from tests.support import until

_CODES = "SELECT id, project_id, version, code FROM generated_codes"
_COUNTS = "SELECT id, generation_count FROM projects"
_AUDITS = "SELECT action, resource_id, count(*) FROM audit_logs GROUP BY 1, 2"
_SESSIONS = "SELECT id, status FROM sessions"
_FILES = "SELECT id FROM file_references"


@dataclass(frozen=True, slots=True)
class Code:
    """A version as it is stored: of which project, and whether its text is what was sent."""

    row: int
    version: int
    is_right: bool


@dataclass
class Truth:
    """The rows by their ids, as texts; ``counts`` are the projects' own numbers of versions."""

    codes: dict[str, Code] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    audits: dict[tuple[str, str], int] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of what is read, or why it cannot be."""
    orphans: list[str] = field(default_factory=list)
    """What ``storage check`` finds after ``storage cleanup``."""
    cleaned: int = 0
    """Objects that ``storage cleanup`` removed."""


async def read_truth(servers: Servers, rows: Rows) -> Truth:
    """Look at everything, after the replicas have left."""
    truth = Truth()
    async with DataLayer(Settings(**servers.settings("truth"))) as data:
        # Entries that wait on disk are written by the next process.
        await until(lambda: data.audit.buffer_statistics().bytes_on_disk == 0, 60)
        cleaned = await data.file_maintenance.cleanup(SYSTEM, apply=True, older_than=timedelta(0))
        truth.cleaned = cleaned.orphans + cleaned.half_deleted + cleaned.unreferenced
        report = await data.file_maintenance.check(SYSTEM, deep=True, young_for=timedelta(0))
        truth.orphans = [str(finding) for finding in report.findings]
        for (file_id,) in servers.execute(_FILES):
            truth.files[str(file_id)] = await _hash_of(data, file_id)
    numbers = {str(project): number for number, (project, _) in enumerate(rows.projects)}
    for code_id, project, version, page in servers.execute(_CODES):
        truth.codes[str(code_id)] = Code(numbers[str(project)], version, page == page_of(str(code_id)))
    truth.counts = {numbers[str(project)]: count for project, count in servers.execute(_COUNTS)}
    truth.audits = {(action, resource): count for action, resource, count in servers.execute(_AUDITS)}
    truth.sessions = {str(session): status for session, status in servers.execute(_SESSIONS)}
    return truth


async def _hash_of(data: DataLayer, file_id: UUID) -> str:
    try:
        return hashlib.sha256(await data.files.download(file_id, owner_id=ANY_OWNER)).hexdigest()
    except DataLayerError as error:
        return f"{type(error).__name__}: {error}"
