"""The settings of the audit trail and of maintenance: a part of ``Settings``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class AuditSettings(BaseModel):
    """How audit entries wait, and how long they are kept."""

    # The audit trail
    audit_flush_interval: float = Field(
        1.0, gt=0, le=60, description="Seconds after which collected audit entries are written."
    )
    audit_buffer_size: int = Field(50_000, ge=100, le=1_000_000, description="Audit entries that may wait in memory.")
    audit_spill_folder: Path | None = Field(
        None, description="Folder, one per database, for audit entries that wait. Default: audit-spill in DATA_FOLDER."
    )
    audit_spill_limit: int = Field(
        268_435_456, ge=0, description="Largest size of that folder, in bytes; what comes after is lost, and counted."
    )
    audit_retention_months: int = Field(
        24, ge=0, le=1200, description="Whole months for which audit entries are kept; 0: for ever."
    )
    maintenance_interval: float = Field(
        3600, ge=0, le=86_400, description="Seconds between two rounds of maintenance by the service; 0: none."
    )
