"""Cartridges, media sets, and the restore points on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "medium",
        sa.Column("barcode", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("volume_uuid", sa.String(36)),
        sa.Column("pool", sa.String(64)),
        sa.Column("media_set", sa.String(128)),
        sa.Column("first_written", _MOMENT),
        sa.Column("last_written", _MOMENT),
        sa.Column("retention_until", _MOMENT),
        sa.Column("bytes_written", sa.BigInteger, nullable=False),
        sa.Column("capacity_bytes", sa.BigInteger),
        sa.Column("remaining_bytes", sa.BigInteger),
        sa.Column("worm", sa.Boolean, nullable=False),
        sa.Column("library", sa.String(64)),
        sa.Column("slot", sa.Integer),
        sa.Column("vault", sa.String(200)),
        sa.Column("vaulted", _MOMENT),
        sa.Column("due_back", _MOMENT),
        sa.Column("loads", sa.Integer),
        sa.Column("errors", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("released", sa.Text),
        sa.Column("seen", _MOMENT),
    )
    op.create_table(
        "media_set",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("pool", sa.String(64), nullable=False, index=True),
        sa.Column("began", _MOMENT, nullable=False),
        sa.Column("last_written", _MOMENT),
        sa.Column("retention_until", _MOMENT),
        sa.Column("closed", sa.Boolean, nullable=False),
    )
    op.create_table(
        "point",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("vm", sa.Text, nullable=False),
        sa.Column("vm_uuid", sa.String(64), nullable=False, index=True),
        sa.Column("time", _MOMENT, nullable=False, index=True),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("media_set", sa.String(128), nullable=False),
        sa.Column("base", sa.String(32)),
    )
    op.create_table(
        "part",
        sa.Column("point", sa.String(32), sa.ForeignKey("point.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("barcode", sa.String(32), nullable=False, index=True),
        sa.Column("volume_uuid", sa.String(36), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
