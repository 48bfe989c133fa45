"""Pins and suspicions; what a list says of a restore point; media sets that were read from cartridges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add them; of restore points that are known already, size and wholeness stay unknown until a rebuild."""
    op.add_column("media_set", sa.Column("taken_in", _MOMENT))
    op.add_column("point", sa.Column("size_bytes", sa.BigInteger))
    op.add_column("point", sa.Column("partial", sa.Boolean))
    op.create_table(
        "pin",
        sa.Column("point", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holds", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("changed", _MOMENT, nullable=False),
    )
    op.create_table(
        "suspicion",
        sa.Column("point", sa.String(32), primary_key=True),
        sa.Column("because", sa.Text, nullable=False),
    )
