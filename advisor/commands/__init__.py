"""One file per verb of the command line; each holds a signature and imports its work inside."""
