"""Called by Alembic: run the steps on the connection that was opened for them."""

from __future__ import annotations

from alembic import context

# One transaction for all steps, on SQLite too: half a migration is never seen.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
