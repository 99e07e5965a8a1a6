"""The embedder and the cross-encoder, the protocol they implement, language detection."""
