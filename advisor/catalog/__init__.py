"""Facts about models, cards and prices: data with source and date, nothing computed."""
