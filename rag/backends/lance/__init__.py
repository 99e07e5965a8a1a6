"""The backend of an index in LanceDB, in a folder or on S3."""
