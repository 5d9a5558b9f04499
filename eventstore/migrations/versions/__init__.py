"""The revisions of the schema, one module each. A module is never changed once it was released."""
