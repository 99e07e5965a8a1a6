"""An index in PostgreSQL with pgvector: connections, tables, the reader of one generation, the writer."""
