"""Known models, how a name becomes a folder, downloads, fingerprints, endpoints, model cards."""
