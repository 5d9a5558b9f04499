"""The window of schemas that this program serves, and the window of programs that a schema lets serve.

A program says the least schema that it can serve, and the newest that it knows. A database says the schema at which it
stands, and the oldest program that may serve it: `serves_from`, the newest revision that such a program must know.
Revisions that only add (expand) leave `serves_from` as it was, so that the release before goes on beside the new one.
Revisions that take away (contract) raise it.
"""

from dataclasses import dataclass

# The newest revision that this program knows: the head of `eventstore/migrations/versions`.
REVISION = "0013"
# The oldest revision that this program can serve. It is raised when the program begins to need something of a newer
# one.
LEAST = "0013"
# Programs that know this revision declare the features that they handle, and heed those in use
# (eventstore/features.py).
FIRST_WITH_FEATURES = "0006"
# A program from before there were windows knows exactly this revision, which it reads in
# `log.alembic_version`.
BEFORE_WINDOWS = "0005"


@dataclass(frozen=True, slots=True)
class Schema:
    """The revision of a database, and the revision that a program must know to serve it."""

    revision: str
    serves_from: str

    def refusal(self, *, least: str = LEAST, known: str = REVISION) -> str | None:
        """The reason why a program that serves schemas from `least` to `known` may not serve, or None."""
        if self.revision < least:
            return (
                f"the database stands at schema {self.revision}, this program needs schema {least}: "
                "run the migration (tagtrail db migrate)"
            )
        if known < self.serves_from:
            return (
                f"the database stands at schema {self.revision}, which needs a program that knows schema "
                f"{self.serves_from}; this one knows {known}: install a newer version of tagtrail"
            )
        return None
