"""Query options, metadata filters, fusion of dense and lexical scores, post-processing."""
