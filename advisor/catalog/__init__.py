"""Facts about GPUs and prices: data with source and date."""
