"""Where an index is held: local files, PostgreSQL with pgvector, LanceDB; all answer the protocol of rag.search.backend."""
