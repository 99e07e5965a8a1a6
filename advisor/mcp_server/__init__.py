"""The server of ``tunewise mcp``: tools for agents over the Model Context Protocol."""
