"""What a cartridge's memory tells of its life."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; what they hold is told at the next load."""
    op.add_column("medium", sa.Column("made_on", sa.String(8)))
    op.add_column("medium", sa.Column("life_written_mib", sa.BigInteger))
    op.add_column("medium", sa.Column("life_read_mib", sa.BigInteger))
    op.add_column("medium", sa.Column("last_drive", sa.String(64)))
