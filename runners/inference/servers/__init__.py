"""Several servers behind one generator: their health, and the failover of requests between them."""
