"""The work behind each verb, one module per verb, without Typer."""
