"""Facts about models, and the user's own file of facts: data with source and date."""
